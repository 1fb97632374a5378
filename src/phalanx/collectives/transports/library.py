"""The C of this room as a Python object: built, loaded and typed once a process. Knows no ranks and no torch.

Whoever starts ranks calls `build_library` first, so that they do not wait for one another's compiler.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
from pathlib import Path

from phalanx.foundation import build

HERE = Path(__file__).parent
INCLUDES = tuple(sorted(HERE.glob("*.h")))
TEXT = 1024  # bytes of a message, as in shm.c
DIMENSIONS = 8
MAX_RANKS = 64
NAME_BYTES = 64
RING = 4096  # operations that are remembered
KINDS = (
    "allreduce", "reduce", "broadcast", "allgather", "reducescatter", "alltoall", "gather", "scatter", "barrier",
    "allgather_ragged", "alltoall_ragged", "join",
)  # fmt: skip
OPS = ("sum", "average", "min", "max", "product")
DTYPES = (
    "float32", "float64", "bfloat16", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
    "uint64", "bool", "complex32", "complex64", "complex128", "float8_e5m2", "float8_e4m3fn", "float8_e5m2fnuz",
    "float8_e4m3fnuz",
)  # fmt: skip


class Extras(ctypes.Structure):
    _fields_ = [
        ("pre", ctypes.c_double),
        ("post", ctypes.c_double),
        ("counts", ctypes.c_void_p),
        ("parts", ctypes.c_void_p),
        ("many", ctypes.c_size_t),
    ]


class RawRecord(ctypes.Structure):
    _fields_ = [
        ("ticket", ctypes.c_int64),
        ("submitted", ctypes.c_int64),
        ("arrived", ctypes.c_int64),
        ("started", ctypes.c_int64),
        ("finished", ctypes.c_int64),
        ("count", ctypes.c_int64),
        ("shape", ctypes.c_int64 * DIMENSIONS),
        ("kind", ctypes.c_uint32),
        ("op", ctypes.c_uint32),
        ("dtype", ctypes.c_uint32),
        ("dimensions", ctypes.c_uint32),
        ("name", ctypes.c_char * NAME_BYTES),
    ]


class RawRank(ctypes.Structure):
    _fields_ = [
        ("pid", ctypes.c_int64),
        ("where_ns", ctypes.c_int64),
        ("sequence", ctypes.c_uint32),
        ("inside", ctypes.c_uint32),
        ("alive", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("operation", ctypes.c_char * 512),
        ("where", ctypes.c_char * TEXT),
    ]


def build_library() -> Path:
    """Compile if need be (seconds, once a machine). Raises BuildError (CompilerMissing, CompilerFailed)."""
    return build(HERE / "shm.c", includes=INCLUDES)


@functools.cache
def version() -> str:
    """The same for all who can share a buffer."""
    digest = hashlib.sha256()
    for path in (HERE / "shm.c", *INCLUDES):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def library() -> ctypes.CDLL:
    """The functions of shm.c with their types. Raises as `build_library` does."""
    loaded = ctypes.CDLL(str(build_library()))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64
    signatures: dict[str, tuple[object, list[object]]] = {
        "ph_bytes": (ctypes.c_size_t, [ctypes.c_int, ctypes.c_size_t, ctypes.c_size_t]),
        "ph_create": (ctypes.c_int, [ctypes.c_int, text]),
        "ph_open": (
            pointer,
            [ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t,
             ctypes.c_double, ctypes.c_double, ctypes.c_double, text, pointer, text, pointer],
        ),
        "ph_close": (None, [pointer]),
        "ph_abort": (None, [pointer, text]),
        "ph_call": (number, [pointer, ctypes.c_uint64, pointer, pointer, number, pointer, text, pointer]),
        "ph_wait": (ctypes.c_int, [pointer, number, number]),
        "ph_completed": (number, [pointer]),
        "ph_message": (text, [pointer]),
        "ph_culprit": (ctypes.c_int, [pointer]),
        "ph_take": (pointer, [pointer, number, pointer]),
        "ph_free": (None, [pointer]),
        "ph_records": (ctypes.c_int, [pointer, number, ctypes.c_int, pointer, ctypes.c_int]),
        "ph_state": (None, [pointer, ctypes.c_int, pointer]),
        "ph_say_where": (None, [pointer, text]),
        "ph_combine": (
            None,
            [pointer, pointer, ctypes.c_int, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_double,
             ctypes.c_double],
        ),
        "ph_use_level": (ctypes.c_int, [ctypes.c_int]),
    }  # fmt: skip
    for name, (result, arguments) in signatures.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded
