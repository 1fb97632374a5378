"""`phalanx generate`, from checkpoints of a small decoder."""

from __future__ import annotations

import io
import json
import re
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
    [written] = document["texts"]
    assert written["prompt"] == "naïve"
    assert written["ended_by"] == "length"
    assert written["tokens"] == 25
    assert document["step"] == 10
    assert document["settings"] == {
        "max_tokens": 25, "temperature": 0.7, "top_k": 5, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0,
        "seed": 0, "stop": [],
    }  # fmt: skip
    assert document["tokens_per_s"] > 0
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert shown.out.rstrip("\n") == ("naïve" + written["generated"]).rstrip("\n")
    assert re.fullmatch(r"25 tokens, [0-9,.]+ tokens/s, the first after [0-9.]+ s\n", shown.err)


def test_control_characters_never_reach_the_terminal(
    trained_decoder: Trained,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dangerous = b"\x1b[2J\x07\xc2\x9b31m ok"
    monkeypatch.setattr("phalanx.evaluation.writing.generate", lambda *_: ([byte] for byte in dangerous))
    assert main(["generate", str(trained_decoder.directory), "--prompt", "\x1b[31m"]) == 0
    shown = capsys.readouterr().out
    assert shown == "␛[31m␛[2J␇�31m ok\n"
    assert main(["generate", str(trained_decoder.directory), "--json"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert json.loads(shown)["texts"][0]["generated"] == "\x1b[2J\x07\x9b31m ok"


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
            yield [byte]
            seen.append("asked for the next")

    def echo(message: object = None, **options: object) -> None:
        seen.append(f"shown {message}")
        real(message, **options)

    monkeypatch.setattr("phalanx.evaluation.writing.generate", slow_tokens)
    monkeypatch.setattr(generate.click, "echo", echo)
    assert main(["generate", str(trained_decoder.directory)]) == 0
    assert seen[:6] == [
        "shown a", "asked for the next", "shown b", "asked for the next", "shown c", "asked for the next",
    ]  # fmt: skip


def test_several_prompts_are_written_one_below_the_other_as_if_alone(
    trained_decoder: Trained, capsys: Captured, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("def \n\nthe rank \n")
    options = ["--max-tokens", "20", "--top-p", "0.8", "--min-p", "0.01", "--repetition-penalty", "1.1"]
    run = str(trained_decoder.directory)
    alone = []
    for seed, prompt in enumerate(["the worker ", "def ", "the rank "]):
        assert main(["generate", run, "--prompt", prompt, "--seed", str(seed), *options]) == 0
        alone.append(capsys.readouterr().out)
    together = ["generate", run, "--prompt", "the worker ", "--prompts", str(tmp_path / "prompts.txt"), *options]
    for batch in ("1", "2", "3"):
        assert main([*together, "--batch", batch]) == 0
        shown = capsys.readouterr()
        assert shown.out == "\n".join(alone)
        assert shown.err.startswith("60 tokens, ")
    assert main([*together, "--json"]) == 0
    texts = json.loads(capsys.readouterr().out)["texts"]
    written = [text["prompt"] + text["generated"] for text in texts]
    assert [text.rstrip("\n") for text in written] == [text.rstrip("\n") for text in alone]


def test_prompts_come_from_standard_input_too(
    trained_decoder: Trained, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("naïve \nthe ".encode())))
    assert main(["generate", str(trained_decoder.directory), "--prompts", "-", "--max-tokens", "3", "--json"]) == 0
    texts = json.loads(capsys.readouterr().out)["texts"]
    assert [text["prompt"] for text in texts] == ["naïve ", "the "]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "cannot be read"), (b"fine\n\xff\n", "prompts.txt:2: is not UTF-8"), (b"\n \n", "holds no prompt")],
)
def test_a_file_of_prompts_that_cannot_be_used_is_refused(
    content: bytes | None, complaint: str, trained_decoder: Trained, capsys: Captured, tmp_path: Path
) -> None:
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    assert main(["generate", str(trained_decoder.directory), "--prompts", str(path)]) == 2
    assert complaint in capsys.readouterr().err


def test_a_prompt_that_cannot_be_used_is_refused_before_any_is_written(
    trained_decoder: Trained, capsys: Captured
) -> None:
    arguments = ["generate", str(trained_decoder.directory), "--prompt", "the ", "--prompt", "\x1b" * (SEQUENCE + 1)]
    assert main([*arguments, "--batch", "1"]) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert "prompt '\\x1b" in shown.err


def test_a_text_ends_before_a_stop_string(trained_decoder: Trained, capsys: Captured) -> None:
    arguments = [
        "generate",
        str(trained_decoder.directory),
        "--prompt",
        "the ",
        "--temperature",
        "0",
        "--max-tokens",
        "30",
    ]
    assert main(arguments) == 0
    free = capsys.readouterr().out
    stop = free[9:12]
    assert main([*arguments, "--stop", stop, "--stop", "never there"]) == 0
    assert capsys.readouterr().out.removesuffix("\n") == free[: free.index(stop, 4)]
    assert main([*arguments, "--stop", stop, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["texts"][0]["ended_by"] == "stop"


def test_a_beam_search_shows_the_likeliest_texts(trained_decoder: Trained, capsys: Captured) -> None:
    arguments = ["generate", str(trained_decoder.directory), "--prompt", "the ", "--beams", "3", "--max-tokens", "12"]
    assert main([*arguments, "--returned", "2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    first, second = document["texts"]
    assert first["score"] >= second["score"]
    assert document["settings"]["beams"] == 3
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert shown.out == f"the {first['generated']}\n"
    assert re.fullmatch(r"12 tokens in [0-9.]+ s, [0-9,.]+ tokens/s, 3 beams\n", shown.err)
    assert main([*arguments, "--returned", "2"]) == 0
    lines = [f"{each['score']:.4f}\nthe {each['generated']}\n" for each in (first, second)]
    assert capsys.readouterr().out == "\n".join(lines)


def test_without_max_tokens_a_beam_search_goes_as_far_as_the_model_reads(
    trained_decoder: Trained, capsys: Captured
) -> None:
    arguments = ["generate", str(trained_decoder.directory), "--prompt", "the ", "--beams", "2"]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["max_tokens"] == SEQUENCE - 4
    assert main([*arguments, "--max-tokens", str(SEQUENCE)]) == 2
    assert f"at most {SEQUENCE - 4} tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--beams", "2", "--temperature", "0.5"], "no use for --temperature"),
        (["--beams", "2", "--top-k", "3", "--seed", "1"], "no use for --top-k, --seed"),
        (["--beams", "2", "--stop", "x"], "no use for --stop"),
        (["--beams", "2", "--returned", "3"], "--returned 3 texts of --beams 2"),
        (["--length-penalty", "0"], "--length-penalty without --beams"),
        (["--early-stopping", "--returned", "2"], "--early-stopping, --returned without --beams"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: list[str], complaint: str, trained_decoder: Trained, capsys: Captured
) -> None:
    assert main(["generate", str(trained_decoder.directory), *options]) == 2
    assert complaint in capsys.readouterr().err


def test_a_beam_search_may_be_told_that_nothing_is_drawn(trained_decoder: Trained, capsys: Captured) -> None:
    arguments = ["generate", str(trained_decoder.directory), "--beams", "2", "--temperature", "0", "--max-tokens", "3"]
    assert main(arguments) == 0
    assert capsys.readouterr().out


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
        ["--top-p", "0"],
        ["--top-p", "1.01"],
        ["--min-p", "-0.1"],
        ["--repetition-penalty", "0"],
        ["--repetition-penalty", "inf"],
        ["--stop", ""],
        ["--beams", "0"],
        ["--length-penalty", "nan"],
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
