"""`phalanx data build` and `inspect`, as a person types them."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from phalanx.cli.data import SizeType, _bar
from phalanx.cli.main import main
from tests.data.build.corpora import document, in_process, write_files

assert in_process


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    documents = [document(random.Random(seed)) for seed in range(80)]
    write_files(tmp_path / "texts", [*documents, documents[3]])
    return tmp_path / "texts"


def test_builds_with_processes_of_its_own_and_inspects(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "dataset"
    arguments = ["data", "build", str(texts), "--out", str(out), "--vocabulary-size", "400", "--license", "CC0-1.0"]
    assert main([*arguments, "--held-out", "0.2"]) == 0
    said = capsys.readouterr()
    assert "for training" in said.out
    assert "1 documents" in said.out
    assert "equal to one before" in said.out
    assert "licence      CC0-1.0" in said.out
    assert "MiB in a process at the most" in said.out
    assert "... tokenizing" in said.err
    assert main([*arguments, "--held-out", "0.2"]) == 0
    assert "is there already, whole" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert main(["data", "inspect", str(out), "--verify", "--sources", "--html", str(page)]) == 0
    said = capsys.readouterr()
    assert "every byte is as it was written" in said.out
    assert "All 81 sources are what they were." in said.out
    assert re.search(r"64 to 127 +█+", said.out) or re.search(r"128 to 255 +█+", said.out)
    assert "one document a row" in said.out
    assert "<h2>How long are the documents?</h2>" in page.read_text()


@pytest.mark.usefixtures("in_process")
class TestBuild:
    def test_prints_json_for_a_program(self, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ["data", "build", str(texts), "--out", str(tmp_path / "d"), "--train-tokenizer", "bytes", "--json"]
        assert main(arguments) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["excluded"]["equal to one before"]["documents"] == 1
        assert found["splits"]["train"]["documents"] + found["splits"]["held_out"]["documents"] == 80
        assert found["tokenizer"] == {"kind": "bytes", "size": 257, "sha256": found["tokenizer"]["sha256"]}
        assert found["peak_bytes"] > 0
        assert found["resumed_tasks"] == 0

    def test_wordpiece_is_for_masked_models(self, texts: Path, tmp_path: Path) -> None:
        arguments = ["data", "build", str(texts), "--train-tokenizer", "wordpiece", "--vocabulary-size", "300"]
        assert main([*arguments, "--out", str(tmp_path / "d")]) == 0
        assert "[MASK]" in (tmp_path / "d" / "tokenizer.json").read_text()

    def test_a_vocabulary_of_another_dataset_may_be_used(
        self, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["data", "build", str(texts), "--out", str(tmp_path / "a"), "--vocabulary-size", "300"]) == 0
        again = ["data", "build", f"{texts}/000[0-4]*.txt", "--tokenizer", str(tmp_path / "a")]
        assert main([*again, "--out", str(tmp_path / "b")]) == 0
        assert (tmp_path / "a" / "tokenizer.json").read_bytes() == (tmp_path / "b" / "tokenizer.json").read_bytes()
        assert main([*again, "--out", str(tmp_path / "c"), "--train-tokenizer", "bpe"]) == 2
        assert "name a tokenizer or have one learned, not both" in capsys.readouterr().err

    def test_every_filter_is_an_option(self, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (texts / "odd.jsonl").write_text(
            "\n".join(
                json.dumps({"body": body})
                for body in ("ab", "c" * 2000 + "!", "d " * 60, "line\n" * 12 + "end", "a b c d e f g " * 5, "x\0" * 50)
            )
        )
        arguments = ["data", "build", str(texts / "odd.jsonl"), str(texts), "--include", "*.txt", "--field", "body"]
        arguments += ["--out", str(tmp_path / "d"), "--json", "--train-tokenizer", "bytes", "--keep-duplicates"]
        arguments += ["--min-characters", "10", "--max-characters", "1900", "--max-word", "300"]
        arguments += ["--max-repeated-lines", "0.3", "--max-repeated-ngrams", "0.7", "--max-non-text", "0.4"]
        assert main(arguments) == 0
        excluded = json.loads(capsys.readouterr().out)["excluded"]
        assert {reason: each["documents"] for reason, each in excluded.items()} == {
            "shorter than 10 characters": 1,
            "longer than 1,900 characters": 1,
            "more than 40% is no text": 1,
            "more than 30% repeated lines": 1,
            "more than 70% repeated sequences of 5 words": 2,
        }

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["nowhere.txt"], "nowhere.txt: there is no such file, and nothing that fits"),
            (["{texts}", "--memory", "64MiB"], "--memory: 64.0 MiB are too little"),
            (["{texts}", "--memory", "lots"], "'lots' is no size"),
            (["{texts}", "--near-duplicates", "0.1"], "--near-duplicates: 0.1 is no threshold"),
            (
                ["{texts}", "--train-tokenizer", "wordpiece", "--objective", "causal-lm"],
                "--train-tokenizer: a wordpiece",
            ),
            (["{texts}", "--vocabulary-size", "257"], "--vocabulary-size: a bpe vocabulary of 257 has no room"),
            (["{texts}", "--tokenizer", "nowhere"], "nowhere"),
            (["{texts}", "--format", "parquet"], "not a whole parquet file"),
            (["{texts}", "--format", "jsonl"], "line 1 (byte 0): is not JSON"),
        ],
    )
    def test_what_is_wrong_is_one_message(
        self, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
    ) -> None:
        given = [argument.format(texts=texts) for argument in arguments]
        assert main(["data", "build", *given, "--out", str(tmp_path / "d"), "--quiet"]) == 2
        said = capsys.readouterr().err
        assert says in said
        assert "Traceback" not in said
        assert not (tmp_path / "d").exists()


class TestInspect:
    def test_what_is_no_dataset_is_said(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["data", "inspect", str(tmp_path)]) == 2
        assert "dataset.json: the manifest cannot be read" in capsys.readouterr().err

    def test_hostile_text_does_not_reach_the_terminal(
        self, tmp_path: Path, in_process: None, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_files(tmp_path / "texts", ["\x1b[31mred text that goes on and on", "another text, and long enough"])
        build = ["data", "build", str(tmp_path / "texts"), "--train-tokenizer", "bytes", "--held-out", "0"]
        assert main([*build, "--license", "\x1b[2J", "--out", str(tmp_path / "d")]) == 0
        assert main(["data", "inspect", str(tmp_path / "d"), "--html", str(tmp_path / "page.html")]) == 0
        assert "\x1b" not in capsys.readouterr().out
        assert "\x1b" not in (tmp_path / "page.html").read_text()

    def test_a_page_that_cannot_be_written_is_refused_first(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["data", "inspect", str(tmp_path), "--html", str(tmp_path / "no" / "page.html")]) == 2
        assert "its directory cannot be written to, or is not there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "size"),
    [("512MiB", 512 << 20), ("1.5 GiB", 3 << 29), ("2GB", 2 * 10**9), ("64k", 64_000), ("100", 100), (7, 7)],
)
def test_sizes_as_people_write_them(written: object, size: int) -> None:
    assert SizeType().convert(written, None, None) == size


def test_a_bar_shows_what_is_not_nothing() -> None:
    assert (_bar(0), _bar(1), _bar(0.5), _bar(1e-9)) == ("", "█" * 40, "█" * 20, "▏")
