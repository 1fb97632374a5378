"""What the C tells of operations and ranks, as the values that every transport tells."""

from __future__ import annotations

import time

import torch

from phalanx.collectives.transports import library as c
from phalanx.collectives.transports.transport import RankState, Record

_BYTES = {name: getattr(torch, name).itemsize for name in c.DTYPES}
_EPOCH_NS = time.time_ns() - time.monotonic_ns()  # of the C's clock


def record_of(raw: c.RawRecord) -> Record:
    kind = c.KINDS[raw.kind]
    dtype = c.DTYPES[raw.dtype] if kind not in ("barrier", "join") else ""
    return Record(
        sequence=raw.ticket,
        kind=kind,
        name=raw.name.decode(errors="replace"),
        op=c.OPS[raw.op] if kind in ("allreduce", "reduce", "reducescatter") else "",
        dtype=dtype,
        shape=tuple(raw.shape[: raw.dimensions]),
        bytes=raw.count * _BYTES[dtype] if dtype else 0,
        submitted_ns=_epoch(raw.submitted),
        arrived_ns=_epoch(raw.arrived),
        started_ns=_epoch(raw.started),
        finished_ns=_epoch(raw.finished),
    )


def state_of(rank: int, raw: c.RawRank) -> RankState:
    return RankState(
        rank=rank,
        pid=raw.pid,
        sequence=raw.sequence,
        operation=raw.operation.decode(errors="replace"),
        inside=bool(raw.inside),
        alive=bool(raw.alive),
        whereabouts=raw.where.decode(errors="replace"),
        whereabouts_age_s=(time.monotonic_ns() - raw.where_ns) / 1e9 if raw.where_ns else 0.0,
    )


def _epoch(ns: int) -> int:
    return ns + _EPOCH_NS if ns else 0
