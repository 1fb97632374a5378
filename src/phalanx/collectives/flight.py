"""A dump of the last operations of a rank, in the format that torch's own analyser reads.

    python -m torch.distributed.flight_recorder.fr_trace DIRECTORY

merges the files `<prefix><rank>` of all ranks and names the first operation that some rank missed, or did with
another tensor. A rank that cannot write its own (stopped or dead, on this host) is stood in for by one that waits for
it: what that rank finished is known, because an operation begins only when it is the same on all ranks.
fr_trace compares kinds, shapes and dtypes; reductions, roots and names are in the file, and in the error itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import dumps  # fr_trace reads nothing else; nothing of ours ever loads one
from typing import Any

from phalanx.collectives.transports.transport import Record
from phalanx.foundation import write_atomic

VERSION = "2.10"  # of the format, as torch 2.13 writes it (FlightRecorder.hpp)
KEPT = 500  # operations of each group
VARIABLES = ("PHALANX_FLIGHT_RECORDER", "TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE")

# fr_trace knows these kinds only, and takes a number of elements for granted with some.
_KINDS = {
    "allreduce": "all_reduce",
    "reduce": "reduce",
    "broadcast": "broadcast",
    "allgather": "_all_gather_base",
    "allgather_ragged": "all_gather_v",
    "reducescatter": "reduce_scatter_v",
    "alltoall": "all_to_all",
    "alltoall_ragged": "all_to_all",
    "gather": "gather",
    "scatter": "scatter",
}
# c10::toString(ScalarType)
_DTYPES = {
    "float64": "Double",
    "float32": "Float",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "int64": "Long",
    "int32": "Int",
    "int16": "Short",
    "int8": "Char",
    "uint8": "Byte",
    "bool": "Bool",
}


@dataclass(frozen=True)
class Part:
    """What one group did. `members`: the world's rank of each of its ranks."""

    group: str
    members: tuple[int, ...]
    records: Sequence[Record]  # finished and unfinished, oldest first
    since: int  # operations up to this one are left out, on all ranks alike


def prefix_from(environment: Mapping[str, str]) -> str | None:
    """What file names begin with: ours, else what people set for torch's recorder; None: no dumps are wanted."""
    return next((environment[name] for name in VARIABLES if environment.get(name)), None)


def write(
    prefix: str,
    rank: int,
    parts: Sequence[Part],
    *,
    reason: str,
    frames: Sequence[Mapping[str, Any]] = (),
    written_by: int | None = None,
) -> Path:
    """Write the dump of `rank`; `frames`: where its Python stands, said of what is unfinished. Raises StorageError."""
    entries: list[dict[str, Any]] = []
    for number, part in enumerate(parts):
        new = [record for record in part.records if record.sequence > part.since]
        entries += [_entry(record, part, number, frames) for record in new]
    content = {
        "version": VERSION,
        "pg_config": {
            part.group: {"name": part.group, "desc": part.group, "ranks": str(list(part.members))} for part in parts
        },
        "pg_status": {part.group: _status(part.records) for part in parts},
        "entries": entries,
        "reason": reason,
        "written_by": rank if written_by is None else written_by,
    }
    path = Path(f"{prefix}{rank}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, dumps(content))
    return path


def _status(records: Sequence[Record]) -> dict[str, int]:
    def newest(which: str) -> int:
        return max((record.sequence for record in records if getattr(record, which)), default=-1)

    return {
        "last_enqueued_collective": newest("submitted_ns"),
        "last_started_collective": newest("started_ns"),
        "last_completed_collective": newest("finished_ns"),
    }


def _entry(record: Record, part: Part, number: int, frames: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    inputs, outputs = _sizes(record, len(part.members))
    dtypes = [_DTYPES.get(record.dtype, record.dtype)] if record.dtype else []
    finished = record.finished_ns > 0
    return {
        # Ranks are aligned by the first entry's: only the first group's numbers may be small.
        "record_id": (number << 32) + record.sequence,
        "pg_id": number,
        "process_group": (part.group, part.group),
        "collective_seq_id": record.sequence,
        "p2p_seq_id": 0,
        "op_id": record.sequence,
        "profiling_name": f"gloo:{_KINDS.get(record.kind, 'barrier')}",  # it refuses names of backends it does not know
        "name": record.name,
        "reduction": record.op,
        "time_created_ns": record.submitted_ns,
        "duration_ms": (record.finished_ns - record.started_ns) / 1e6 if finished else None,
        "input_sizes": [inputs],
        "input_dtypes": dtypes,
        "output_sizes": [outputs],
        "output_dtypes": dtypes,
        "state": "completed" if finished else "started" if record.arrived_ns else "scheduled",
        "time_discovered_started_ns": record.started_ns or None,
        "time_discovered_completed_ns": record.finished_ns or None,
        "retired": finished,
        "timeout_ms": 0,
        "is_p2p": False,
        "frames": [] if finished else [dict(frame) for frame in frames],
    }


def _sizes(record: Record, ranks: int) -> tuple[list[int], list[int]]:
    """Shapes of input and output such that fr_trace, which wants them alike on all ranks, finds what is wrong only."""
    shape = list(record.shape)
    if record.kind == "allgather":
        return shape, [ranks * shape[0], *shape[1:]] if shape else [ranks]
    if record.kind == "allgather_ragged":  # the first dimension may differ, the others must not
        return [-1, *shape[1:]], [-1, *shape[1:]]
    if record.kind in ("scatter", "gather"):  # one side is the root's alone
        return ([], []) if record.kind == "scatter" else (shape, [])
    return shape, shape
