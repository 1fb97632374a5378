"""Predictions are read alike from every kind of file, in batches, and what is no such file is refused in a sentence."""

import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from phalanx.evaluation import Columns, UnusablePredictions, open_predictions, predictions_of, reading, write_rows
from phalanx.metrics import BadInput
from tests.evaluation.haystack import write_csv

HEADS = ["label", "score", "note"]
ROWS: list[list[object]] = [[1, 0.5, "a, b"], [0, 0.25, 'say "c"'], [0, -1.0, "d\ne"], [1, 2.0, "ä"]]


def written(directory: Path, ending: str) -> Path:
    file = directory / f"predictions{ending}"
    if ending == ".parquet":
        pa.parquet.write_table(
            pa.table(dict(zip(HEADS, map(list, zip(*ROWS, strict=True)), strict=True))), file, row_group_size=2
        )
    elif ending == ".jsonl":
        file.write_text(
            "".join(json.dumps(dict(zip(HEADS, row, strict=True))) + "\n" for row in ROWS), encoding="utf-8"
        )
    elif ending == ".tsv":
        file.write_text(
            "label\tscore\tnote\n"
            + "".join(
                f'{a}\t{b}\t"{c}"\n' for a, b, c in [[1, 0.5, "a, b"], [0, 0.25, "x"], [0, -1.0, "y"], [1, 2.0, "ä"]]
            )
        )
    else:
        write_csv(file, ROWS, HEADS)
    return file


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_every_kind_of_file_gives_the_same_batches_as_often_as_asked(tmp_path: Path, ending: str) -> None:
    found = open_predictions([written(tmp_path, ending)], Columns(shown=("note",)))
    assert found.columns == {"label": "label", "score": "score"}
    for _ in range(2):
        batches = list(found.batches("label", "score", shown=True))
        labels, scores, notes, rows = (
            np.concatenate([batch[name] for batch in batches]).tolist()
            for name in ("label", "score", "shown note", "row")
        )
        assert labels == [1, 0, 0, 1]
        assert scores == [0.5, 0.25, -1.0, 2.0]
        assert rows == [0, 1, 2, 3]
        assert notes[0] == "a, b"
        assert notes[3] == "ä"
    assert 0.5 < found.share(batches[-1]) <= 1.0


def test_ranks_share_the_batches_of_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "ROWS", 2)
    (tmp_path / "other").mkdir()
    files = [written(tmp_path, ".parquet"), written(tmp_path / "other", ".parquet")]
    whole = open_predictions(files, Columns())
    seen = [
        (int(file), int(row))
        for part in range(3)
        for batch in whole.of(part, 3).batches("label")
        for file, row in zip(batch["file"], batch["row"], strict=True)
    ]
    assert sorted(seen) == [(file, row) for file in range(2) for row in range(4)]


TEXTS = {
    "plain.csv": "label,score,note\n" + "".join(f"{i % 2},{i / 8},n{i}\n" for i in range(200)),
    "windows.csv": "\r\nlabel,score,note\r\n\r\n" + "".join(f"{i % 2},{i / 8},n{i}\r\n\r\n" for i in range(200)),
    "quoted.csv": "label,score,note\n" + "".join(f'{i % 2},{i / 8},"n{i}\n,"\n' for i in range(200)),
    "cut.tsv": "label\tscore\tnote\n" + "\n".join(f"{i % 2}\t{i / 8}\tn{i}" for i in range(200)),
    "plain.jsonl": "".join(f'{{"label": {i % 2}, "score": {i / 8:g}, "note": "n{i}"}}\n\n' for i in range(200)),
}


@pytest.mark.parametrize("name", sorted(TEXTS))
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_readers_of_lines_skip_what_another_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, parts: int
) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 300)
    (tmp_path / name).write_bytes(TEXTS[name].encode())
    whole = open_predictions([tmp_path / name], Columns(shown=("note",)))
    seen = []
    for part in range(parts):
        mine = [
            (int(row), int(label), float(score), str(note).strip("\n,"))
            for batch in whole.of(part, parts).batches("label", "score", shown=True)
            for row, label, score, note in zip(
                batch["row"], batch["label"], batch["score"], batch["shown note"], strict=True
            )
        ]
        assert mine, "each has its share"
        seen += mine
    assert sorted(seen) == [(i, i % 2, i / 8, f"n{i}") for i in range(200)]


def test_scores_that_begin_as_whole_numbers_are_floats_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 64)
    csv = write_csv(tmp_path / "a.csv", [*([[1, 1]] * 40), [0, 0.25]], ["label", "score"])
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"label": 1, "score": 1}\n' * 40 + '{"label": 0, "score": 0.25, "note": "late"}\n')
    for file in (csv, lines):
        batches = list(open_predictions([file], Columns()).batches("score"))
        assert len(batches) > 1
        assert batches[-1]["score"][-1] == 0.25


def test_a_slice_without_a_name_is_one_and_decimals_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    table = {"label": [1, 0], "score": [Decimal("0.5"), Decimal("0.25")], "cut": pa.array([None, 7.0])}
    pa.parquet.write_table(pa.table(table), file)
    (batch,) = open_predictions([file], Columns(slice="cut")).batches("score", "slice")
    assert batch["slice"].tolist() == ["(no value)", "7.0"]
    assert batch["score"].tolist() == [0.5, 0.25]


def test_arrays_are_predictions_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "ROWS", 2)
    found = predictions_of([1, 0, 1], torch.tensor([0.5, 0.25, 1.0]), slices=["a", "b", "a"], text=["x", "y", "z"])
    batches = list(found.of(1, 2).batches("label", "score", "slice", shown=True))
    assert [batch["row"].tolist() for batch in batches] == [[2]]
    assert (batches[0]["slice"].tolist(), batches[0]["shown text"].tolist()) == (["a"], ["z"])
    assert found.share(batches[0]) == 1.0
    with pytest.raises(UnusablePredictions, match="nothing says what was predicted"):
        predictions_of([1, 0])
    with pytest.raises(BadInput, match="there must be as many of each: label has 2, score has 1"):
        predictions_of([1, 0], [0.5])
    with pytest.raises(BadInput, match=r"score\[1\] has no value"):
        predictions_of([1, 0], [0.5, None])


@pytest.mark.parametrize(
    ("name", "content", "columns", "words"),
    [
        (
            "a.csv",
            "label,score\n1,0.5\n",
            {"score": "scor"},
            r"there is no column 'scor'; there are 'label', 'score'\n.*--score score",
        ),
        ("a.csv", "x,score\n1,0.5\n", {}, "no column says what the examples are: there are 'x', 'score'"),
        ("a.csv", "label,x\n1,0.5\n", {}, "no column says what was predicted: there are 'label', 'x'"),
        ("a.csv", "label,label,score\n1,1,0.5\n", {}, "two columns have one name"),
        ("a.csv", "label,score\n1,0.5\n1\n", {}, "cannot be read as CSV: .*Expected 2 columns, got 1"),
        ("a.csv", "", {}, "is empty"),
        ("a.jsonl", '{"label": 1, "score": 0.5}\n{"label": \n', {}, "cannot be read as JSONL"),
        ("a.parquet", "PAR1 and no more", {}, "cannot be read as PARQUET"),
        ("a.xlsx", "what", {}, r"is of no known kind \(.xlsx\)"),
        ("a.csv", "label,score\n1,0.5\n0,\n", {}, r"score has no value in 1 rows of a batch, first in row 1 "),
    ],
)
def test_what_cannot_be_used_is_refused(
    tmp_path: Path, name: str, content: str, columns: dict[str, str], words: str
) -> None:
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(UnusablePredictions, match=words) as raised:
        for _ in open_predictions([file], Columns(**columns)).batches("label", "score"):
            pass
    assert str(raised.value).startswith(str(file))


def test_a_parquet_that_was_cut_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, ".parquet")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UnusablePredictions, match="cannot be read as PARQUET"):
        open_predictions([file], Columns())


def test_files_of_other_columns_are_not_taken_together(tmp_path: Path) -> None:
    other = write_csv(tmp_path / "other.csv", [[1, 0.5]], ["label", "chance"])
    with pytest.raises(UnusablePredictions, match="its columns are 'label', 'chance', those of"):
        open_predictions([written(tmp_path, ".csv"), other], Columns())
    for missing, words in ((tmp_path / "none.csv", "there is no such file"), (tmp_path, "is a directory")):
        with pytest.raises(UnusablePredictions, match=words):
            open_predictions([missing], Columns())


def test_a_label_that_was_typed_is_as_those_of_the_file(tmp_path: Path) -> None:
    numbers = open_predictions([written(tmp_path, ".csv")], Columns())
    assert numbers.like_label("1") == numbers.like_label("true") == 1
    with pytest.raises(UnusablePredictions, match="'spam' is no label: those of label are numbers"):
        numbers.like_label("spam")
    words = open_predictions([write_csv(tmp_path / "words.csv", [["spam", 0.5]], ["label", "score"])], Columns())
    assert words.like_label("spam") == "spam"
    assert words.like_label("1") == "1"


def test_rows_of_a_query_are_predictions_too(tmp_path: Path) -> None:
    file = write_rows(("label", "score"), [(True, 1.0), (False, 0.5)], tmp_path / "rows.parquet", "SELECT")
    (batch,) = open_predictions([file], Columns()).batches("label", "score")
    assert batch["label"].tolist() == [True, False]
    with pytest.raises(UnusablePredictions, match="SELECT 1: gives no rows"):
        write_rows(("label",), [], tmp_path / "none.parquet", "SELECT 1")
    with pytest.raises(UnusablePredictions, match="mixed types"):
        write_rows(("label",), [(1,), ("a",)], tmp_path / "none.parquet", "SELECT 1")
