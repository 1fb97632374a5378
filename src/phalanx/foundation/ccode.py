"""Our C files as shared objects: compiled on first use into a private cache, never from a stale one.

A compiled file is named after everything that decides what it is: the sources, the flags, the compiler, the
C library and the CPU. It ends in the SHA-256 of what comes before (loaders ignore a tail), so one rename
puts it there whole, and one that was torn or cut is seen and made again. A published wheel carries the
files built (`hatch_build.py` at the root); those are portable and found first.

Knows nothing of what the C does, nor of ctypes: it returns a path.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import functools
import hashlib
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from phalanx.foundation.errors import PhalanxError
from phalanx.foundation.files import StorageError, ensure_private_directory, storage_error, write_atomic

log = logging.getLogger(__name__)

FLAGS = (
    "-O3", "-std=c11", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra",
    "-Werror=implicit-function-declaration", "-Werror=incompatible-pointer-types", "-Werror=int-conversion",
    "-Werror=return-type", "-Wl,--no-undefined", "-Wl,-z,relro", "-Wl,-z,now",
)  # fmt: skip

_DIGEST = hashlib.sha256().digest_size
_CPU = {"vendor_id", "model name", "flags", "CPU implementer", "CPU part", "CPU variant", "Features", "isa"}
_COMPILES_AT_MOST_S = 300.0
_PATIENCE_S = 120.0  # then a process compiles for itself: the one that has the lock may be stopped
_POLL_S = 0.02
_REMEDY_CACHE = "set PHALANX_C_CACHE to a directory of yours from which programs may be run"


class BuildError(PhalanxError):
    """A C file cannot be made into a shared object."""


class CompilerMissing(BuildError):
    """There is no C compiler."""


class CompilerFailed(BuildError):
    """The compiler does not accept the file."""


def build(source: Path, *, includes: Sequence[Path] = (), flags: Sequence[str] = ()) -> Path:
    """The shared object of the C11 file `source`, compiled unless that was done before.

    `includes`: every file of ours that it includes. `flags` come after FLAGS, `-l...` after the source.
    Safe to call from many processes at once: one compiles, the others wait for it. Where the cache
    (PHALANX_C_CACHE, else $XDG_CACHE_HOME/phalanx/c, else ~/.cache/phalanx/c) cannot be used, a warning is logged
    and the file lives in a temporary directory of this process. Raises CompilerMissing, CompilerFailed, BuildError.
    """
    source, includes = source.resolve(), [path.resolve() for path in includes]
    carried = source.with_name(f"{source.stem}-{_portable_key(source, includes, flags)}.so")
    if _whole(carried) is not None:
        return carried
    compiler = _compiler()
    place = _cache()
    try:
        return _build_in(place, compiler, source, includes, flags)
    except StorageError as error:
        other = _temporary()
        if place == other:
            raise BuildError(error.message, where=error.where, remedy=_REMEDY_CACHE) from error
        log.warning("C cache %s: %s; compiled for this process alone", place, error.message)
    try:
        return _build_in(other, compiler, source, includes, flags)
    except StorageError as error:
        raise BuildError(error.message, where=error.where, remedy=_REMEDY_CACHE) from error


def prebuild(source: Path, directory: Path) -> Path:
    """The same for a wheel: into `directory`, under the name that `build` looks for beside `source`."""
    source = source.resolve()
    payload, includes = _compile(_compiler(), source, (), includes=None)
    path = directory / f"{source.stem}-{_portable_key(source, includes, ())}.so"
    write_atomic(path, payload, mode=0o644)
    return path


def _build_in(place: Path, compiler: list[str], source: Path, includes: Sequence[Path], flags: Sequence[str]) -> Path:
    """The file in `place`, which is a private directory. Raises StorageError where it cannot be written."""
    while True:
        key = _key(compiler, source, includes, flags)
        path = place / f"{source.stem}-{key}.so"
        if _whole(path) is not None:
            return path
        with _locked(place):
            if _whole(path) is not None:  # somebody made it while we waited
                return path
            if not os.access(place, os.W_OK):
                raise storage_error(OSError(errno.EACCES, ""), place)
            payload, _ = _compile(compiler, source, flags, includes=includes)
            if key != _key(compiler, source, includes, flags):
                continue  # a source was edited meanwhile: what we have is neither the old nor the new
            for torn in place.glob(f".{path.name}.*.tmp"):  # of one that was killed while it wrote
                torn.unlink(missing_ok=True)
            write_atomic(path, payload, mode=0o700)
            return path


def _compile(
    compiler: list[str], source: Path, flags: Sequence[str], *, includes: Sequence[Path] | None
) -> tuple[bytes, list[Path]]:
    """The bytes of the shared object with their digest behind, and the files that `source` included.

    Something included that is not in `includes` (None: anything may be) would make the cache stale, so it fails.
    """
    libraries = [flag for flag in flags if flag.startswith("-l")]
    others = [flag for flag in flags if flag not in libraries]
    folders = sorted({f"-I{path.parent}" for path in includes or ()})
    with _scratch() as scratch:
        output, rules = scratch / "out.so", scratch / "out.d"
        command = [*compiler, *FLAGS, *others, *folders, "-MMD", "-MF", str(rules), "-MT", "out"]
        command += ["-o", str(output), str(source), *libraries]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", check=False, timeout=_COMPILES_AT_MOST_S,
                stdin=subprocess.DEVNULL, env=os.environ | {"LC_ALL": "C", "TMPDIR": str(scratch)},
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise CompilerFailed(
                f"{compiler[0]} did not finish within {_COMPILES_AT_MOST_S:.0f} s", where=str(source)
            ) from error
        if done.returncode != 0 or not output.exists():
            raise _refused(compiler, source, done)
        if done.stderr.strip():
            log.debug("%s: %s", source, done.stderr.strip())
        payload = output.read_bytes()
        used = _used(rules.read_text(), source)
    if includes is not None and (unknown := sorted(set(used) - set(includes))):
        raise BuildError(
            f"it includes {', '.join(path.name for path in unknown)}, which build() was not told of",
            where=str(source),
            remedy="name every included file of ours in includes=",
        )
    return payload + hashlib.sha256(payload).digest(), used


def _refused(compiler: list[str], source: Path, done: subprocess.CompletedProcess[str]) -> BuildError:
    lines = done.stderr.strip().splitlines()
    if any("No space left on device" in line for line in lines):
        return BuildError(
            "no space for the compiler's files", where=tempfile.gettempdir(), remedy="free space there, or set TMPDIR"
        )
    errors = (
        [line for line in lines if "error" in line or "undefined reference" in line]
        or lines
        or [f"exit status {done.returncode}"]
    )
    return CompilerFailed(
        f"{compiler[0]} fails:\n    " + "\n    ".join(line[:200] for line in errors[:5]),
        where=str(source),
        remedy="try another compiler: CC=gcc or CC=clang (C11 with GNU extensions is needed)",
    )


def _used(rules: str, source: Path) -> list[Path]:
    """The files in the compiler's rule for make ("out: shm.c kernels.inc \\"), without `source`, sorted."""
    names = re.split(r"(?<!\\)\s+", rules.partition(":")[2].replace("\\\n", " ").strip())
    found = {Path(re.sub(r"\\(.)", r"\1", name)).resolve() for name in names if name}
    return sorted(found - {source})


def _compiler() -> list[str]:
    """The command: $CC, which may have arguments, else the first of cc, gcc, clang."""
    if chosen := shlex.split(os.environ.get("CC", "")):
        if shutil.which(chosen[0]):
            return chosen
        raise CompilerMissing(
            "no such C compiler", where=f"CC={shlex.join(chosen)}", remedy="install it, or set CC to one that is there"
        )
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    raise CompilerMissing(
        "no C compiler (cc, gcc, clang) is installed",
        remedy="install gcc (Debian: apt install gcc libc6-dev) or set CC",
    )


def _portable_key(source: Path, includes: Sequence[Path], flags: Sequence[str]) -> str:
    """Of what a file built for any CPU of this architecture depends on, wherever it was built."""
    return _digest([*_contents(source, includes), *FLAGS, "", *flags, os.uname().machine])


def _key(compiler: list[str], source: Path, includes: Sequence[Path], flags: Sequence[str]) -> str:
    """Of everything: flags may ask for this very CPU, and two hosts may share the cache."""
    try:
        version = subprocess.run([*compiler, "--version"], capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompilerMissing(f"{compiler[0]} cannot be run: {error}", remedy="set CC to one that can") from error
    facts = [*_contents(source, includes), *FLAGS, "", *flags, os.uname().machine]
    return _digest([*facts, *compiler, version.stdout, "".join(platform.libc_ver()), _cpu()])


def _contents(source: Path, includes: Sequence[Path]) -> list[str | bytes]:
    try:
        return [part for path in (source, *sorted(includes)) for part in (path.name, path.read_bytes())]
    except OSError as error:
        raise BuildError(
            error.strerror or str(error), where=str(error.filename), remedy="install Phalanx again"
        ) from error


@functools.cache
def _cpu() -> str:
    """Model and abilities of the first processor."""
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")[0]
        return "\n".join(line for line in first.splitlines() if line.partition("\t")[0].strip(" :") in _CPU)
    return platform.processor()


def _digest(parts: Sequence[str | bytes]) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return total.hexdigest()[:32]


def _whole(path: Path) -> Path | None:
    """`path` if it is there as it was written: it is about to be run."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return path if data[-_DIGEST:] == hashlib.sha256(data[:-_DIGEST]).digest() else None


def _cache() -> Path:
    """The directory for compiled files: nobody but its owner, we or root, can write there."""
    environment = os.environ.get("PHALANX_C_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        path = Path(environment).expanduser() if environment else Path(base).expanduser() / "phalanx" / "c"
        ensure_private_directory(path.absolute())
        reason = _unfit(path)
    except (StorageError, RuntimeError) as error:  # RuntimeError: there is no home
        path, reason = Path(environment or base), getattr(error, "message", str(error))
    if not reason:
        return path.absolute()
    log.warning("C cache %s %s; compiled for this process alone. To do: %s", path, reason, _REMEDY_CACHE)
    return _temporary()


def _unfit(directory: Path) -> str:
    """Why files in `directory` must not be run, or cannot; "" if they may."""
    status = directory.stat()
    if status.st_uid not in {os.geteuid(), 0}:
        return f"belongs to another user ({status.st_uid})"
    if status.st_mode & 0o022:
        return "can be written by others"
    if os.statvfs(directory).f_flag & os.ST_NOEXEC:
        return "is on a file system mounted noexec"
    return ""


@functools.cache
def _temporary() -> Path:
    """A private directory that ends with this process (a file that is loaded stays loaded)."""
    path, owner = _make_temporary(), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # not in a fork
            shutil.rmtree(path, ignore_errors=True)

    atexit.register(remove)
    return path


def _make_temporary() -> Path:
    try:
        path = Path(tempfile.mkdtemp(prefix="phalanx-c-"))
    except OSError as error:
        raise BuildError(f"no temporary directory ({error.strerror or error})", remedy=_REMEDY_CACHE) from error
    if reason := _unfit(path):
        path.rmdir()
        raise BuildError(reason, where=str(path), remedy=_REMEDY_CACHE)
    return path


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="phalanx-c-", ignore_cleanup_errors=True)
    except OSError as error:
        raise BuildError(f"no temporary directory ({error.strerror or error})", remedy="set TMPDIR") from error
    with folder as path:
        yield Path(path)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One process at a time, where the file system knows locks; without one the last to finish wins, which is safe."""
    deadline = time.monotonic() + _PATIENCE_S
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            stack.callback(os.close, descriptor)
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        break
                    time.sleep(_POLL_S)
        yield
