"""`phalanx evaluate`: the table, the verdict and the examples, of small models and of documents made by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from phalanx.cli.evaluate import example_lines, guess_lines, score_lines, verdict_lines
from phalanx.cli.main import main
from phalanx.foundation import Home
from phalanx.pages.run_files import parse_evaluation
from phalanx.telemetry import Reader
from tests.evaluation.runs import Trained

Captured = pytest.CaptureFixture[str]
CODES = re.compile(r"\x1b\[[0-9;]*m")


def test_a_decoder_is_shown_among_its_tables_best_first(
    trained_decoder: Trained, trained_home: Home, capsys: Captured
) -> None:
    assert main(["evaluate", str(trained_decoder.directory), "--home", str(trained_home.root)]) == 0
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out, "no colours where nobody sees them"
    lines = [line.split("  ") for line in shown.out.splitlines() if "█" in line]
    assert [words[1] for words in lines] == ["6-gram", "4-gram", "byte frequencies", "this model"]
    values = [float(re.search(r"(\d\.\d+) ±", "  ".join(words))[1]) for words in lines]
    assert values == sorted(values)
    assert "behind its strongest table, 6-gram" in shown.out
    assert "gpt-tiny, step 10" in shown.out
    assert shown.out.count("│ ") > 3
    assert "... scoring the model\n... counting the tables\n... writing examples\n" in shown.err
    page = trained_decoder.directory / "step-00000010.evaluation.html"
    assert f"Page: {page}" in shown.out
    assert "gpt-tiny, step 10" in page.read_text()
    rows = Reader(trained_home.store_dir).rows(
        f"SELECT model, value FROM scores WHERE job_uid = '{trained_decoder.job.metadata.uid}' "
        "AND metric = 'bits_per_byte' ORDER BY value"
    )
    assert [row["model"] for row in rows] == ["6-gram", "4-gram", "byte frequencies", "gpt-tiny"]
    assert [round(row["value"], 3) for row in rows] == values
    assert re.search(r"Its first guess is right in \d+\.\d%", shown.out)


def test_an_encoder_is_shown_with_its_guesses(trained_encoder: Trained, trained_home: Home, capsys: Captured) -> None:
    assert main(["evaluate", str(trained_encoder.directory), "--home", str(trained_home.root)]) == 0
    shown = capsys.readouterr().out
    assert "right first guesses at [MASK]" in shown
    assert "No opponent, as it sees what the model does not: both neighbours, unmasked context." in shown
    assert shown.count("it was ") == len(re.findall(r"guesses: (?:\S+ \d+%(?:, )?){5}", shown)) > 3


def test_json_is_the_document_of_the_report_and_nothing_else(
    trained_encoder: Trained,
    trained_home: Home,
    tmp_path: Path,
    capsys: Captured,
) -> None:
    page = tmp_path / "page.html"
    options = ["--home", str(trained_home.root), "--json", "--out", str(page), "--ranks", "2"]
    assert main(["evaluate", str(trained_encoder.directory), *options]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["page"] == str(page)
    assert page.exists()
    assert shown.err == ""
    assert shown.out.isascii()
    assert parse_evaluation(json.loads(shown.out)) is not None


def test_a_path_that_leads_nowhere_is_answered_with_where_to_look(tmp_path: Path, capsys: Captured) -> None:
    assert main(["evaluate", "demo"]) == 2
    complaint = capsys.readouterr().err
    assert "there is no such directory" in complaint
    assert "phalanx get" in complaint
    assert main(["evaluate", str(tmp_path)]) == 1
    assert "no usable checkpoint" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path), "--out", str(tmp_path / "nowhere" / "page.html")]) == 2
    assert "its directory cannot be written to, or is not there" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "is a directory" in capsys.readouterr().err


def document(metric: str = "bits_per_byte", **changes: Any) -> dict[str, Any]:
    share = metric == "top1"
    return {
        "checkpoint": {"path": "/runs/demo/checkpoints/step-00000300", "step": 300},
        "metric": metric,
        "split": {"files": 28, "bytes": 389_577, "tokens": 389_605, "masked": 2463},
        "model": {"name": "decoder", "value": 0.31 if share else 1.81, "standard_error": 0.012, "loss": 1.25},
        "baselines": [
            {"name": "weak", "value": 0.1 if share else 4.5, "standard_error": 0.03},
            {"name": "strong", "value": 0.23 if share else 2.0, "standard_error": None},
        ],
        "strongest": "strong",
        "beats_strongest": True,
        "margin": 0.08 if share else 0.19,
        "margin_standard_error": 0.011,
        "method": "as it was",
        "examples": [],
        "seconds": 21.4,
        "perplexity": 3.49,
        "guesses": {
            "top1": {"value": 0.5, "standard_error": 0.01},
            "top5": {"value": 0.8, "standard_error": None},
            "expected_error": 0.025,
            "bins": [
                {"low": 0.2, "high": 0.3, "examples": 9, "mean": 0.25, "happened": {"value": 0.3, "low": 0.1, "high": 0.6}}
            ],
        },
    } | changes  # fmt: skip


def plain(lines: list[str]) -> list[str]:
    return [CODES.sub("", line).rstrip() for line in lines]


def test_the_table_has_a_bar_each_by_its_value() -> None:
    lines = plain(score_lines(document()))
    assert lines[1] == "bits per byte; less is better, on 389,577 bytes of 28 files that training never saw"
    assert lines[3:] == [
        f"  this model  1.810 ± 0.012  {'█' * 12}",
        f"  strong      2.000  {'█' * 13}",
        f"  weak        4.500 ± 0.030  {'█' * 30}",
    ]


def test_of_first_guesses_more_is_better() -> None:
    lines = plain(score_lines(document("top1")))
    assert "2,463 masked tokens" in lines[1]
    assert [line.split("  ")[1] for line in lines[3:]] == ["this model", "strong", "weak"]
    assert "31.0% ± 1.2" in lines[3]


def test_notes_of_a_baseline_are_told() -> None:
    noted = {"name": "weak", "value": 4.5, "standard_error": None, "note": "counted on a part"}
    assert plain(score_lines(document(baselines=[noted])))[-1] == "  weak: counted on a part"


def test_the_verdict_says_by_how_much_and_how_sure_it_is() -> None:
    assert verdict_lines(document())[0] == (
        "It is 0.190 bits per byte (standard error 0.011) ahead of its strongest table, strong."
    )
    behind = document("top1", margin=-0.08, beats_strongest=False)
    assert verdict_lines(behind)[0] == "It is 8.0 points (standard error 1.1) behind its strongest table, strong."
    assert "standard error" not in verdict_lines(document(margin_standard_error=None))[0]


def test_guesses_are_told_where_they_were_counted() -> None:
    right, sure = guess_lines(document())
    assert right == (
        "Its first guess is right in 50.0% (standard error 1.0), one of its five best in 80.0% of the places; "
        "perplexity 3.49."
    )
    assert sure == "How sure it is of its first guess is 2.5 points off on average (expected calibration error)."
    assert guess_lines(document(guesses=None)) == []
    assert "perplexity" not in guess_lines(document(perplexity=None))[0]


def test_hostile_examples_command_no_terminal() -> None:
    examples = [
        {"prompt": "\x1b[31m", "generated": "\x1b]0;owned\x07\n" * 99},
        {"masked": "a [MASK]\x1b[2J", "guesses": [["\x1b[0m", 0.5]], "truth": "\x9b"},
    ]
    lines = example_lines(examples)
    assert len(lines) < 20, "and take no screens of room"
    assert not any(code in "".join(plain(lines)) for code in "\x1b\x07\x9b")
