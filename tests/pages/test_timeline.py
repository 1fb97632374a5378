from __future__ import annotations

from pathlib import Path
from typing import Any

from phalanx.pages.rows import History, read_history
from phalanx.pages.timeline import first_crash, lanes, moments, span, words
from tests.pages.made import Clock, causal_evaluation, causal_job, whole_run

S = 1_000_000_000


def _worker(at: int, event: str, rank: int, pid: int, generation: int = 1, **more: Any) -> dict[str, Any]:
    row = {"time_ns": at * S, "generation": generation, "rank": rank, "event": event, "pid": pid, "host": "h"}
    return row | {"exit_kind": None, "exit_signal": None, "exit_code": None, "message": None} | more


def _checkpoint(at: int, step: int, event: str = "written") -> dict[str, Any]:
    row = {"time_ns": at * S, "generation": 1, "rank": 0, "event": event, "step": step, "path": "p"}
    return row | {"bytes": 1024, "seconds": 0.5, "message": "checksum" if event == "damaged" else None}


def test_a_restart_is_told_in_order(tmp_path: Path, clock: Clock) -> None:
    run = whole_run(tmp_path, clock, causal_job(), causal_evaluation())
    history = read_history(run.rows, run.job.metadata.uid, 1)
    told = moments(history)
    assert [m.time_ns for m in told] == sorted(m.time_ns for m in told)
    texts = [f"{m.who} {m.text}".strip() for m in told]
    crash = texts.index("rank 1 crashed by signal 9")
    assert told[crash].kind == "bad"
    assert "not running: worker crashed" in texts[crash:]
    assert any("generation 2" in text for text in texts[crash:])
    assert texts[-1] == "evaluated: scores written"
    crashed = first_crash(history)
    assert crashed is not None
    assert (crashed["rank"], crashed["generation"]) == (1, 1)


def test_the_first_own_end_is_the_cause_and_a_lost_peer_only_a_consequence() -> None:
    rows = (
        _worker(5, "exited", 0, 10, exit_kind="peer_lost"),
        _worker(6, "exited", 1, 11, exit_kind="out_of_memory"),
        _worker(7, "exited", 2, 12, exit_kind="crashed"),
    )
    crash = first_crash(History(workers=rows))
    assert crash is not None
    assert crash["rank"] == 1
    assert first_crash(History(workers=(_worker(1, "exited", 0, 1, exit_kind="done"),))) is None
    lost = first_crash(History(workers=rows[:1]))
    assert lost is not None
    assert lost["rank"] == 0


def test_many_checkpoints_are_folded_and_a_damaged_one_is_always_shown() -> None:
    rows = tuple(_checkpoint(i, i * 100) for i in range(1, 1001))
    rows += (_checkpoint(2000, 50, "damaged"),)
    told = moments(History(checkpoints=rows))
    assert len(told) == 6
    assert any(m.text == "996 more checkpoints written" for m in told)
    assert told[-1].kind == "bad"
    assert "checksum" in told[-1].detail


def test_a_condition_that_is_said_again_is_told_once() -> None:
    row = {"time_ns": S, "kind": "TrainingJob", "name": "j", "phase": "Running", "condition": "Running"}
    row |= {"status": "True", "reason": "WorkersRunning", "message": "2 running", "generation": 1}
    later = row | {"time_ns": 2 * S, "phase": "Evaluating"}
    assert len(moments(History(states=(row, later)))) == 1


def test_each_life_of_a_rank_is_a_piece_of_its_lane() -> None:
    rows = (
        _worker(0, "started", 0, 10),
        _worker(40, "exited", 0, 10, exit_kind="crashed", exit_signal=9),
        _worker(50, "started", 0, 11, generation=2),
        _worker(0, "started", 1, 20),
        _worker(100, "exited", 1, 20, exit_kind="done"),
    )
    first, second = lanes(History(workers=rows))
    assert [(p.name, p.start, p.width) for p in first.pieces] == [("crashed", 0, 40), ("still running", 50, 50)]
    assert [(p.name, p.width) for p in second.pieces] == [("done", 100)]


def test_nothing_happened() -> None:
    assert moments(History()) == []
    assert lanes(History()) == []
    assert span(History()) == 0


def test_reasons_become_words() -> None:
    assert words("Gate1Blocked") == "gate 1 blocked"
    assert words("AllWorkersDone") == "all workers done"
    assert words("OOMKilled") == "oom killed"
    assert words("") == ""
