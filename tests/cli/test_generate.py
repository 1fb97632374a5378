"""`phalanx generate`, from checkpoints of a small decoder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phalanx.cli import generate
from phalanx.cli.main import main
from tests.evaluation.runs import SEQUENCE, Trained, spoil

Captured = pytest.CaptureFixture[str]


def test_it_goes_on_from_the_prompt_the_same_way_for_the_same_seed(trained_decoder: Trained, capsys: Captured) -> None:
    arguments = ["generate", str(trained_decoder.directory), "--prompt", "the worker ", "--max-tokens", "30"]
    shown = []
    for seed in ("4", "4", "5"):
        assert main([*arguments, "--seed", seed]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] != shown[2]
    assert shown[0].startswith("the worker ")
    assert len(shown[0]) > len("the worker ") + 10
    assert shown[0].endswith("\n")


def test_temperature_zero_draws_nothing(trained_decoder: Trained, capsys: Captured) -> None:
    shown = set()
    for seed in ("1", "2"):
        assert (
            main(
                ["generate", str(trained_decoder.directory), "--temperature", "0", "--max-tokens", "20", "--seed", seed]
            )
            == 0
        )
        shown.add(capsys.readouterr().out)
    assert len(shown) == 1


def test_json_gives_a_program_everything_in_ascii(trained_decoder: Trained, capsys: Captured) -> None:
    arguments = ["generate", str(trained_decoder.directory), "--prompt", "naïve", "--max-tokens", "25", "--top-k", "5"]
    assert main([*arguments, "--json"]) == 0
    text = capsys.readouterr().out
    assert text.isascii()
    document = json.loads(text)
    assert document["prompt"] == "naïve"
    assert document["step"] == 10
    assert document["top_k"] == 5
    assert main(arguments) == 0
    assert capsys.readouterr().out.rstrip("\n") == ("naïve" + document["generated"]).rstrip("\n")


def test_control_characters_never_reach_the_terminal(
    trained_decoder: Trained,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("phalanx.evaluation.writing.generate", lambda *_, **__: iter(b"\x1b[2J\x07\xc2\x9b31m ok"))
    assert main(["generate", str(trained_decoder.directory), "--prompt", "\x1b[31m"]) == 0
    shown = capsys.readouterr().out
    assert shown == "␛[31m␛[2J␇�31m ok\n"
    assert main(["generate", str(trained_decoder.directory), "--json"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert json.loads(shown)["generated"] == "\x1b[2J\x07\x9b31m ok"


def test_text_is_shown_as_it_is_written(
    trained_decoder: Trained,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each character is out before the next token is asked for."""
    seen: list[str] = []
    real = generate.click.echo

    def slow_tokens(*_: object, **__: object):
        for byte in b"abc":
            yield byte
            seen.append("asked for the next")

    def echo(message: object = None, **options: object) -> None:
        seen.append(f"shown {message}")
        real(message, **options)

    monkeypatch.setattr("phalanx.evaluation.writing.generate", slow_tokens)
    monkeypatch.setattr(generate.click, "echo", echo)
    assert main(["generate", str(trained_decoder.directory)]) == 0
    assert [line for line in seen if line != "shown None" and line != "shown "] == [
        "shown a", "asked for the next", "shown b", "asked for the next", "shown c", "asked for the next",
    ]  # fmt: skip


def test_an_encoder_is_refused_with_what_it_is(trained_encoder: Trained, capsys: Captured) -> None:
    assert main(["generate", str(trained_encoder.directory)]) == 2
    complaint = capsys.readouterr().err
    assert "bert-tiny fills in masked words" in complaint
    assert "phalanx evaluate" in complaint


def test_a_prompt_that_is_too_long_is_refused(trained_decoder: Trained, capsys: Captured) -> None:
    assert main(["generate", str(trained_decoder.directory), "--prompt", "x" * (SEQUENCE + 1)]) == 2
    assert f"{SEQUENCE + 1} tokens, and the model reads {SEQUENCE} at once" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--temperature", "-1"],
        ["--temperature", "nan"],
        ["--temperature", "inf"],
        ["--top-k", "0"],
        ["--max-tokens", "0"],
        ["--seed", "-1"],
        ["--seed", str(2**63)],
    ],
)
def test_numbers_that_make_no_sense_are_refused(options: list[str], trained_decoder: Trained, capsys: Captured) -> None:
    assert main(["generate", str(trained_decoder.directory), *options]) == 2
    assert options[0] in capsys.readouterr().err


@pytest.mark.parametrize("temperature", ["1e-300", "1e-30", "1e30"])
def test_extreme_temperatures_still_write(temperature: str, trained_decoder: Trained, capsys: Captured) -> None:
    assert main(["generate", str(trained_decoder.directory), "--temperature", temperature, "--max-tokens", "5"]) == 0
    assert capsys.readouterr().out


def test_a_path_that_leads_nowhere_is_answered_with_where_to_look(tmp_path: Path, capsys: Captured) -> None:
    assert main(["generate", "demo"]) == 2
    assert "phalanx describe job" in capsys.readouterr().err
    assert main(["generate", str(tmp_path)]) == 1
    assert "no usable checkpoint" in capsys.readouterr().err


def test_a_damaged_newest_checkpoint_is_said_and_the_previous_one_writes(
    trained_decoder: Trained, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    shutil.copytree(trained_decoder.directory, directory)
    spoil(
        Trained(
            directory,
            trained_decoder.cache,
            trained_decoder.job,
            trained_decoder.corpus,
            trained_decoder.module,
            trained_decoder.config,
        ).save(20)
    )
    done = subprocess.run(
        [sys.executable, "-m", "phalanx", "generate", str(directory), "--max-tokens", "3", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["step"] == 10
    assert done.stderr.startswith("! damaged checkpoint passed over: ")
    assert "step-00000020" in done.stderr
