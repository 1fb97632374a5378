"""Dumps of the flight recorder, read by torch's own analyser."""

from __future__ import annotations

import gc
import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from torch.distributed.flight_recorder import fr_trace

from phalanx.collectives.flight import Part, prefix_from, write
from phalanx.collectives.transports.transport import Record

Analyse = Callable[[Path], str]
FRAMES = [{"name": "load_batch", "filename": "train.py", "line": 31}]


def done(sequence: int, kind: str = "allreduce", shape: tuple[int, ...] = (8,), dtype: str = "float32") -> Record:
    op = "sum" if kind in ("allreduce", "reduce", "reducescatter") else ""
    return Record(sequence, kind, f"t{sequence}", op, dtype, shape, 32, 1, 2, 3, 4)


def begun(sequence: int, kind: str = "allreduce", shape: tuple[int, ...] = (8,), dtype: str = "float32") -> Record:
    return Record(sequence, kind, f"t{sequence}", "sum", dtype, shape, 32, 1, 2, 0, 0)


@pytest.fixture
def analyse(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[Path], str]]:
    """What fr_trace says of a directory."""

    def run(directory: Path) -> str:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            fr_trace.main([str(directory)])
        return caplog.text

    yield run
    gc.enable()  # it runs once and disables it


def dump(directory: Path, *ranks: Sequence[Record], since: int = 0) -> Path:
    for rank, records in enumerate(ranks):
        part = Part("world", tuple(range(len(ranks))), records, since)
        write(f"{directory}/rank-", rank, [part], reason="a test", frames=FRAMES)
    return directory


ALL_KINDS = [
    done(1),
    done(2, "broadcast"),
    done(3, "allgather", (2, 3)),
    done(4, "allgather", ()),
    done(5, "reducescatter", (8, 2)),
    done(6, "alltoall"),
    done(7, "gather"),
    done(8, "scatter", ()),
    done(9, "barrier", (), ""),
    done(10, "reduce", dtype="bfloat16"),
    done(11, "alltoall_ragged", (5, 2)),
]


def test_every_kind_of_operation_that_went_well_is_found_to_be_well(tmp_path: Path, analyse: Analyse) -> None:
    one = [*ALL_KINDS, done(12, "allgather_ragged", (3, 2)), done(13, "join", (), "")]
    other = [*ALL_KINDS, done(12, "allgather_ragged", (0, 2)), done(13, "join", (), "")]
    said = analyse(dump(tmp_path, one, other))
    assert "Not all ranks joining" not in said
    assert "has errors" not in said
    assert "mismatch" not in said


def test_the_rank_that_did_not_come_is_named_with_the_operation_and_the_stack(tmp_path: Path, analyse: Analyse) -> None:
    said = analyse(dump(tmp_path, [done(1), begun(2)], [done(1)], [done(1), begun(2)]))
    assert "Not all ranks joining collective, sequence number: 2" in said
    assert "missing ranks: {1}" in said
    assert "load_batch at train.py:31" in said


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (begun(2, shape=(4, 2)), "SIZE_OR_SYNTAX_MISMATCH"),
        (begun(2, dtype="float64"), "COLLECTIVE_DTYPE_MISMATCH"),
        (begun(2, "broadcast"), "COLLECTIVE_TYPE_MISMATCH"),
    ],
)
def test_a_mismatch_is_found_and_its_rank_named(tmp_path: Path, analyse: Analyse, wrong: Record, words: str) -> None:
    said = analyse(dump(tmp_path, [done(1), begun(2)], [done(1), wrong], [done(1), begun(2)]))
    assert "Collective sequence number: 2 has errors" in said
    assert words in said
    # It takes the first file that it reads for right, whichever that is.
    assert "Culprit rank 1" in said or ("Culprit rank 0" in said and "Culprit rank 2" in said)


def test_operations_that_one_rank_has_forgotten_are_not_taken_for_missing(tmp_path: Path, analyse: Analyse) -> None:
    said = analyse(dump(tmp_path, [done(i) for i in range(1, 9)], [done(i) for i in range(4, 9)]))
    assert "Not all ranks joining" not in said


def test_several_groups_are_analysed_from_one_file_a_rank(tmp_path: Path, analyse: Analyse) -> None:
    for rank in range(4):
        mine = (0, 1) if rank < 2 else (2, 3)
        work = [done(1), begun(2)] if rank == 2 else [done(1)]
        parts = [Part("world", (0, 1, 2, 3), [done(1), done(2)], 0), Part(f"pair {mine[0]}", mine, work, 0)]
        write(f"{tmp_path}/rank-", rank, parts, reason="a test")
    said = analyse(tmp_path)
    assert "group info: pair 2:pair 2" in said
    assert "missing ranks: {3}" in said


def test_a_dump_says_what_fr_trace_does_not_compare_and_leaves_out_what_is_old(tmp_path: Path) -> None:
    dump(tmp_path, [done(1), done(2), begun(3)], since=1)
    content = pickle.loads((tmp_path / "rank-0").read_bytes())  # noqa: S301 - our own
    assert [(entry["record_id"], entry["state"]) for entry in content["entries"]] == [(2, "completed"), (3, "started")]
    assert [(entry["name"], entry["reduction"]) for entry in content["entries"]] == [("t2", "sum"), ("t3", "sum")]
    assert content["reason"] == "a test"
    status = {"last_enqueued_collective": 3, "last_started_collective": 2, "last_completed_collective": 2}
    assert content["pg_status"] == {"world": status}


def test_where_dumps_go_is_said_by_our_variable_or_by_torchs() -> None:
    torchs = {"TORCH_NCCL_DEBUG_INFO_TEMP_FILE": "/b", "TORCH_FR_DUMP_TEMP_FILE": "/a"}
    assert prefix_from({}) is None
    assert prefix_from({"PHALANX_FLIGHT_RECORDER": ""}) is None
    assert prefix_from(torchs) == "/a"
    assert prefix_from(torchs | {"PHALANX_FLIGHT_RECORDER": "/c"}) == "/c"
