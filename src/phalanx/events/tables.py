"""Every table of events that rooms write and others read: columns, types, units.

A new kind of event is a new entry in `TABLES`; a new column goes to the end of its table and is
null in older rows. Knows nothing of how rows are carried or stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ColumnType = Literal["int64", "float64", "string", "bool"]


@dataclass(frozen=True)
class Column:
    name: str
    type: ColumnType
    unit: str = ""
    doc: str = ""


@dataclass(frozen=True)
class Table:
    """`columns` are the table's own; every stored row has those of `COMMON` before them."""

    name: str
    doc: str
    columns: tuple[Column, ...]


COMMON = (
    Column("source", "string", doc="one emitter of one process; never reused"),
    Column("seq", "int64", doc="counts the emitter's rows from 1; a gap is a lost row"),
    Column("time_ns", "int64", "ns", "since 1970, by the emitting host's clock"),
    Column("host", "string"),
    Column("namespace", "string", doc="the team the job belongs to"),
    Column("job_uid", "string"),
    Column("attempt", "int64"),
    Column("generation", "int64", doc="forming of the group; 0 outside one"),
    Column("rank", "int64", doc="-1: not a worker"),
)


def _table(name: str, doc: str, *columns: Column) -> Table:
    return Table(name, doc, columns)


_ALL = (
    _table(
        "steps",
        "one row per rank and optimizer step",
        Column("step", "int64", doc="from 1"),
        Column("loss", "float64", "nats/token", "mean over the predicted tokens of the global batch"),
        Column("predicted_tokens", "int64", "tokens", "of the global batch"),
        Column("tokens", "int64", "tokens", "real tokens this rank read; no padding"),
        Column("tokens_per_second", "float64", "tokens/s", "real tokens of all ranks over this rank's step time"),
        Column("learning_rate", "float64"),
        Column("gradient_norm", "float64", doc="before clipping"),
        Column("memory_bytes", "int64", "bytes", "resident set of this rank"),
        Column("data_s", "float64", "s"),
        Column("forward_s", "float64", "s"),
        Column("backward_s", "float64", "s"),
        Column("communication_s", "float64", "s", "waiting for the other ranks and summing gradients"),
        Column("optimizer_s", "float64", "s"),
        Column("step_s", "float64", "s"),
    ),
    _table(
        "collectives",
        "operations of a group by each rank; of a flood, one row for those that are alike",
        Column("group_name", "string", doc="which group of the process: world, or a subgroup"),
        Column("sequence", "int64", doc="the group's operations from 1, the same on all ranks; of the last one here"),
        Column("operations", "int64", doc="how many this row stands for; times and bytes are their sums"),
        Column("kind", "string", doc="allreduce, broadcast, allgather, ..."),
        Column("name", "string", doc="the tensor's, where the caller gave one"),
        Column("op", "string", doc="sum, average, min, max or product"),
        Column("dtype", "string"),
        Column("shape", "string", doc="dimensions, separated by commas"),
        Column("bytes", "int64", "bytes", "this rank's input"),
        Column("ranks", "int64", doc="of the group"),
        Column("submitted_ns", "int64", "ns", "since 1970: when the first was asked for"),
        Column("finished_ns", "int64", "ns", "since 1970: when the last was done"),
        Column("queued_s", "float64", "s", "behind earlier operations of this rank"),
        Column("waited_s", "float64", "s", "for other ranks to come"),
        Column("ran_s", "float64", "s", "from the last rank's coming to the end"),
        Column("algorithm_bandwidth", "float64", "bytes/s", "size of the operation over ran_s, as in nccl-tests"),
        Column("bus_bandwidth", "float64", "bytes/s", "algorithm bandwidth times nccl-tests' factor for the operation"),
        Column("lost", "int64", doc="operations before these that were forgotten before they were read"),
    ),
    _table(
        "validations",
        "metrics on held-out data during training, of all ranks, by rank 0",
        Column("step", "int64"),
        Column("split", "string"),
        Column("loss", "float64", "nats/token"),
        Column("tokens", "int64", "tokens", "predicted"),
        Column("bits_per_byte", "float64", "bits/byte", "causal objectives only"),
        Column("seconds", "float64", "s"),
        Column("perplexity", "float64", doc="exp of the loss; infinite beyond a double"),
        Column("top1", "float64", doc="share of the predicted tokens that were the model's best guess"),
        Column("top5", "float64", doc="share that were among its best five"),
    ),
    _table(
        "states",
        "every change of a desired object's status",
        Column("kind", "string"),
        Column("name", "string"),
        Column("phase", "string"),
        Column("condition", "string"),
        Column("status", "string"),
        Column("reason", "string"),
        Column("message", "string"),
    ),
    _table(
        "workers",
        "starts and ends of worker processes, by their agent",
        Column("event", "string", doc="started or exited"),
        Column("pid", "int64"),
        Column("exit_kind", "string"),
        Column("exit_signal", "int64"),
        Column("exit_code", "int64"),
        Column("message", "string", doc="last words"),
    ),
    _table(
        "host_facts",
        "what the machine is, with the place it was read from",
        Column("fact", "string"),
        Column("value", "string"),
        Column("evidence", "string"),
    ),
    _table(
        "findings",
        "what admission found",
        Column("finding_id", "string"),
        Column("gate", "int64"),
        Column("verdict", "string"),
        Column("rule", "string"),
        Column("severity", "string"),
        Column("subject", "string"),
        Column("location", "string"),
        Column("evidence", "string"),
        Column("remedy", "string"),
    ),
    _table(
        "checkpoints",
        "checkpoints written, read and found damaged, and the weights that a run began with",
        Column("event", "string", doc="written, read, damaged or begun with"),
        Column("step", "int64"),
        Column("path", "string"),
        Column("bytes", "int64", "bytes"),
        Column("seconds", "float64", "s"),
        Column("message", "string"),
    ),
    _table(
        "memory",
        "memory of one worker: predicted by the planner (rank -1) and measured by each rank",
        Column("category", "string"),
        Column("bytes", "int64", "bytes"),
    ),
    _table(
        "scores",
        "evaluation of a checkpoint and of the baselines beside it",
        Column("model", "string"),
        Column("metric", "string"),
        Column("value", "float64"),
        Column("unit", "string"),
        Column("tokens", "int64", "tokens"),
        Column("is_baseline", "bool"),
    ),
    _table(
        "metrics",
        "what an evaluation of predictions found",
        Column("predictions", "string", doc="the files, or the query"),
        Column("metric", "string"),
        Column("slice", "string", doc="all, or a value of the column that examples were cut by"),
        Column("value", "float64", doc="null where undefined, as a share of nothing"),
        Column("low", "float64", doc="of its interval"),
        Column("high", "float64"),
        Column("method", "string", doc="how the interval was found"),
        Column("threshold", "float64", doc="of the scores, from which on examples are called positive"),
        Column("examples", "int64"),
    ),
    _table(
        "losses",
        "rows that were emitted and never arrived, by the collector",
        Column("lost_source", "string"),
        Column("first_seq", "int64"),
        Column("last_seq", "int64"),
        Column("rows", "int64"),
        Column("reason", "string", doc="gap or corrupt"),
    ),
    _table(
        "sources",
        "first and last row of every emitter",
        Column("event", "string", doc="opened or closed"),
        Column("program", "string"),
        Column("pid", "int64"),
        Column("dropped", "int64", "rows", "did not fit the spool"),
    ),
)
TABLES: Mapping[str, Table] = {table.name: table for table in _ALL}
