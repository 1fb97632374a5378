"""`phalanx translate`, `phalanx attention` and `phalanx evaluate` of a small translator."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from phalanx.cli.main import main
from phalanx.foundation import Home
from tests.evaluation.runs import Trained, train
from tests.evaluation.test_translation import make_translation_job, write_pairs

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory, trained_home: Home) -> Trained:
    text = write_pairs(tmp_path_factory.mktemp("pairs") / "text", count=300)
    return train(
        trained_home.run_dir("tests", "de-xx", 1), make_translation_job(text), trained_home.cache_dir, steps=25
    )


def test_a_sentence_is_translated_the_same_way_each_time(translator: Trained, capsys: Captured) -> None:
    shown = []
    for _ in range(2):
        assert main(["translate", str(translator.directory), "die alte Katze sieht Hund."]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert shown[0].count("\n") == 1


def test_lines_of_standard_input_are_translated_line_by_line(
    translator: Trained, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "die alte Katze sieht Hund.\n\ndie rote Frau mag Kind.\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    assert main(["translate", str(translator.directory), "--beam", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [each["source"] for each in document["translations"]] == lines.splitlines()
    assert document["translations"][1] == {"source": "", "translation": "", "score": 0.0, "finished": True}
    assert (document["beam"], document["step"]) == (1, 25)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"die \xff Katze\n")))
    assert main(["translate", str(translator.directory)]) == 2
    assert "not UTF-8" in capsys.readouterr().err


def test_a_decoder_does_not_translate(trained_decoder: Trained, capsys: Captured) -> None:
    assert main(["translate", str(trained_decoder.directory), "x"]) == 2
    shown = capsys.readouterr().err
    assert "was not made to translate" in shown
    assert "objective: translate" in shown


def test_attention_of_every_kind_of_model_goes_onto_a_page(
    translator: Trained, trained_decoder: Trained, trained_encoder: Trained, tmp_path: Path, capsys: Captured
) -> None:
    for number, (run, more) in enumerate(
        ((translator, ["--words"]), (trained_decoder, []), (trained_encoder, ["--pair", "a step"]))
    ):
        page = tmp_path / f"{number}.html"
        assert main(["attention", str(run.directory), "the worker reads", "--out", str(page), *more]) == 0
        assert str(page) in capsys.readouterr().out
        assert "data:image/png;base64," in page.read_text()


def test_attention_is_given_to_a_program_as_numbers(trained_decoder: Trained, tmp_path: Path, capsys: Captured) -> None:
    arguments = ["attention", str(trained_decoder.directory), "the worker", "--layer", "2", "--json"]
    assert main(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["kind"], document["layers"], document["page"]) == ("self", [2], None)
    assert len(document["weights"][0]) == len(document["heads"])
    for head in document["weights"][0]:
        for row in head:
            assert sum(row) == pytest.approx(1, abs=1e-4)
    page = tmp_path / "page.html"
    assert main([*arguments, "--out", str(page)]) == 0
    assert page.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["the worker", "--layer", "9"], "there is no layer 9"), (["  "], "empty"), (["x", "--pair", "y"], "one text")],
)
def test_what_cannot_be_shown_leaves_no_page(
    trained_decoder: Trained, tmp_path: Path, capsys: Captured, arguments: list[str], said: str
) -> None:
    page = tmp_path / "page.html"
    assert main(["attention", str(trained_decoder.directory), *arguments, "--out", str(page)]) == 2
    assert said in capsys.readouterr().err
    assert not page.exists()
    assert main(["attention", str(tmp_path / "nowhere"), "x"]) == 2


def test_a_translator_without_attention_has_nothing_to_show(
    translator: Trained, trained_home: Home, capsys: Captured
) -> None:
    job = make_translation_job(translator.job.spec.data.source, "rnn-encoder-decoder")
    run = train(trained_home.run_dir("tests", "plain", 1), job, trained_home.cache_dir)
    assert main(["attention", str(run.directory), "die Katze"]) == 2
    assert "rnn-encoder-decoder has no attention" in capsys.readouterr().err
    assert main(["translate", str(run.directory), "die Katze"]) == 0


def test_an_evaluated_translator_says_bleu_by_length_and_shows_alignments(
    translator: Trained, trained_home: Home, tmp_path: Path, capsys: Captured
) -> None:
    page = tmp_path / "page.html"
    assert main(["--home", str(trained_home.root), "evaluate", str(translator.directory), "--out", str(page)]) == 0
    shown = capsys.readouterr().out
    for words in ("BLEU of greedy translations, on", "nearest training sentence", "chrF", "1 to 5 words", "a person:"):
        assert words in shown
    text = page.read_text()
    assert "Does it fall with the length?" in text
    assert 'class="heat"' in text
    assert "img-src data:" in text
