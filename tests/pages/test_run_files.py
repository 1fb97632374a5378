from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from phalanx.pages.run_files import Example, Guess, log_tail, parse_evaluation, read_run
from tests.pages.made import causal_evaluation, decisions, masked_evaluation, plan, write_files


def test_an_empty_directory_and_a_missing_one_are_no_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        files = read_run(path)
        assert (files.plan, files.decisions, files.evaluation, files.damaged) == (None, (), None, ())


def test_everything_is_read_back(tmp_path: Path) -> None:
    write_files(tmp_path, plan(), decisions(), causal_evaluation())
    files = read_run(tmp_path)
    assert files.plan == plan()
    assert files.decisions == tuple(decisions())
    assert files.evaluation is not None
    assert files.evaluation.model is not None
    assert files.evaluation.model.value == 1.807
    assert files.evaluation.strongest is not None
    assert files.evaluation.strongest.name == "6-gram"
    assert files.damaged == ()


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b"", b"null", b"{}"])
def test_damaged_files_are_named_and_the_others_read(tmp_path: Path, content: bytes) -> None:
    write_files(tmp_path, plan(), decisions(), causal_evaluation())
    for name in ("plan.json", "decision-2.json", "evaluation.json"):
        (tmp_path / name).write_bytes(content)
    files = read_run(tmp_path)
    assert files.damaged == ("plan.json", "decision-2.json", "evaluation.json")
    assert files.decisions == (decisions()[0],)


def test_a_baseline_that_sees_more_than_the_model_is_shown_and_is_no_opponent() -> None:
    document = masked_evaluation()
    document["baselines"][-1]["sees_more"] = True
    evaluation = parse_evaluation(document)
    assert evaluation is not None
    assert evaluation.strongest is not None
    assert evaluation.strongest.name == "left"
    assert [score.name for score in evaluation.scores if score.sees_more] == ["both"]


def test_the_strongest_baseline_is_the_largest_where_more_is_better() -> None:
    evaluation = parse_evaluation(masked_evaluation())
    assert evaluation is not None
    assert evaluation.strongest is not None
    assert evaluation.strongest.name == "both"


def test_a_masked_example_is_cut_at_its_mask_and_knows_the_right_guess() -> None:
    evaluation = parse_evaluation(masked_evaluation())
    assert evaluation is not None
    example = evaluation.examples[1]
    assert (example.before, example.after) == ("If the ", " is not callable, a TypeError is raised.")
    assert [guess.piece for guess in example.guesses if guess.right] == ["argument"]


@pytest.mark.parametrize(
    "change",
    [
        {"baselines": None},
        {"baselines": [{"name": "x"}, 3, {"value": "much"}]},
        {"examples": [None, 3, {"guesses": "no"}, {"guesses": [["a"], ["b", "c"], 4]}]},
        {"split": [], "seconds": "long", "beats_strongest": "yes"},
    ],
)
def test_a_strange_evaluation_leaves_gaps_and_no_error(change: dict[str, Any]) -> None:
    evaluation = parse_evaluation(causal_evaluation() | change)
    assert evaluation is not None
    assert evaluation.model is not None


def test_guesses_that_are_no_pairs_are_left_out() -> None:
    document = causal_evaluation() | {"examples": [{"masked": "no mask", "truth": "a", "guesses": [["a", 0.5], ["b"]]}]}
    evaluation = parse_evaluation(json.loads(json.dumps(document)))
    assert evaluation is not None
    assert evaluation.examples == (Example(before="no mask", truth="a", guesses=(Guess("a", 0.5, True),)),)


def test_a_log_tail_keeps_what_a_terminal_would_show(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "generation-2" / "rank-1.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"x" * 9000 + b"\nstep 1\rstep 2\r\n\x1b[31mred\x1b[0m\n\n\xff bad byte\nlast")
    assert log_tail(tmp_path, 2, 1) == ("step 2", "red", "\ufffd bad byte", "last")
    assert log_tail(tmp_path, 9, 9) == ()


def test_a_log_tail_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "generation-1" / "rank-0.log"
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"line {i}\n" for i in range(10_000)))
    lines = log_tail(tmp_path, 1, 0)
    assert len(lines) == 25
    assert lines[-1] == "line 9999"
