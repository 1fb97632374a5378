"""Tables of examples: what GLUE's, CSV, JSONL and CoNLL files say is read, and what does not fit is told with its line."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.data.errors import BadTable, DataError, NotText, SourceEmpty, SourceMissing
from phalanx.data.table import Example, TaggedExample, read_examples, read_tagged
from phalanx.job import ColumnsSpec

PRINTABLE = st.characters(exclude_categories=["Cs"])
FIELD = st.text(PRINTABLE, max_size=20).filter(lambda text: not set(text) & set("\t\r\n"))
ANY = st.text(PRINTABLE, max_size=20).filter(lambda text: "\r" not in text)


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@given(st.lists(st.tuples(FIELD, FIELD, FIELD), min_size=1, max_size=6), st.booleans())
def test_tsv_gives_back_what_lies_between_the_tabs(
    place: Path, rows: list[tuple[str, str, str]], windows: bool
) -> None:
    end = "\r\n" if windows else "\n"
    path = write(place / "t.tsv", end.join("\t".join(row) for row in rows))
    columns = ColumnsSpec(text=1, pair=2, label=3, header=False)
    expected = [Example(*row, line) for line, row in enumerate(rows, start=1)]
    if rows[0][0].startswith("\ufeff"):  # which is a mark of the encoding there
        expected[0] = Example(rows[0][0][1:], *rows[0][1:], 1)
    assert list(read_examples(path, columns)) == expected


@given(st.lists(st.tuples(ANY, ANY, ANY), min_size=1, max_size=6))
def test_csv_gives_back_what_python_wrote(place: Path, rows: list[tuple[str, str, str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("text", "pair", "label"), *rows])
    path = write(place / "c.csv", text.getvalue())
    columns = ColumnsSpec(text="text", pair="pair", label="label")
    found = [(example.first, example.second, example.label) for example in read_examples(path, columns)]
    assert found == rows
    starts = [example.line for example in read_examples(path, columns)]
    lines = text.getvalue().split("\n")
    for line, row in zip(starts, rows, strict=True):
        begins = row[0].split("\n")[0].replace('"', '""')
        assert lines[line - 1].startswith((begins, f'"{begins}'))


@given(st.lists(st.tuples(ANY, st.integers() | ANY), min_size=1, max_size=6))
def test_jsonl_gives_back_what_python_wrote(place: Path, rows: list[tuple[str, int | str]]) -> None:
    text = "".join(json.dumps({"id": 1, "text": text, "label": label}) + "\n" for text, label in rows)
    for ascii_ in (True, False):
        text = "".join(json.dumps({"text": a, "label": b}, ensure_ascii=ascii_) + "\n" for a, b in rows)
        found = list(read_examples(write(place / "j.jsonl", text)))
        assert [(example.first, example.label) for example in found] == [(a, str(b)) for a, b in rows]


def test_quotes_are_text_in_tsv_and_quotes_in_csv(tmp_path: Path) -> None:
    row = 'he said "hi{}"there\t1\n'
    assert next(read_examples(write(tmp_path / "a.tsv", row.format("")))).first == 'he said "hi"there'
    quoted = write(tmp_path / "b.csv", 'text,label\n"a\ttab, and ""quotes""\nover lines",x\nplain,y\n')
    assert list(read_examples(quoted)) == [
        Example('a\ttab, and "quotes"\nover lines', None, "x", 2),
        Example("plain", None, "y", 4),
    ]


def test_a_tab_inside_quotes_is_told_with_its_line_and_the_way_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'good film\t1\n"a\ttab inside"\t0\n')
    with pytest.raises(BadTable, match="line 2 has 3 fields, the first line 2") as caught:
        list(read_examples(path))
    assert caught.value.where == str(path)
    assert "save the table as .csv or .jsonl" in caught.value.remedy


def test_lines_that_do_not_fit_can_be_counted_instead(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "a\t1\nb\nc\t0\textra\nd\t1\n")
    said: list[BadTable] = []
    assert [example.first for example in read_examples(path, malformed=said.append)] == ["a", "d"]
    assert [error.message for error in said] == [
        "line 2 has 1 fields, the first line 2",
        "line 3 has 3 fields, the first line 2",
    ]


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("sentence\tlabel", "a\t1", ("a", None, "1")),
        ("index\tquestion\tsentence\tlabel", "0\tq\ts\tentailment", ("q", "s", "entailment")),
        ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "0\t1\t2\tq\tr\t1", ("q", "r", "1")),
        ("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "1\t7\t8\ta\tb", ("a", "b", "1")),
        ("premise\thypothesis\tlabel", "a\tb\tc", ("a", "b", "c")),
        ("a\t1", "b\t0", ("a", None, "1")),  # no names: the first line is an example
    ],
)
def test_columns_are_found_by_the_usual_names(
    header: str, row: str, expected: tuple[str, str | None, str], tmp_path: Path
) -> None:
    example = next(read_examples(write(tmp_path / "a.tsv", f"{header}\n{row}\n")))
    assert (example.first, example.second, example.label) == expected


def test_what_is_asked_for_goes_before_the_usual_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "label\tsentence\tother\nx\ty\tz\n")
    found = next(read_examples(path, ColumnsSpec(text="other", label=2)))
    assert (found.first, found.label, found.line) == ("z", "y", 2)
    with_header = list(read_examples(path, ColumnsSpec(text=3, label=2, header=False)))
    assert [example.first for example in with_header] == ["other", "z"]
    assert next(read_examples(path, labelled=False)).label is None


def test_compressed_files_are_read_and_cut_ones_are_told(tmp_path: Path) -> None:
    text = "".join(f"{number} some words\t{number % 2}\n" for number in range(5000))
    whole = gzip.compress(text.encode())
    path = write(tmp_path / "a.tsv.gz", whole)
    assert len(list(read_examples(path))) == 5000
    for damaged in (whole[:-20], whole[: len(whole) // 2], whole[:200] + b"\0\0\0\0" + whole[204:], b"not gzip"):
        with pytest.raises(BadTable, match="cut or altered after line") as caught:
            list(read_examples(write(path, damaged)))
        assert caught.value.where == str(path)


def test_invalid_utf_8_is_told_with_line_and_byte(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", b"fine\t1\ncaf" + b"\xe9\t0\n")
    with pytest.raises(NotText, match=r"line 2 is not UTF-8: byte 0xe9 at place 4 of the line") as caught:
        list(read_examples(path))
    assert "iconv" in caught.value.remedy


CONLL = "-DOCSTART- -X- O O\n\nEU NNP B-ORG\nrejects VBZ O\n\n\nPeter NNP B-PER\n"


def test_words_and_tags(tmp_path: Path) -> None:
    expected = [TaggedExample(("EU", "rejects"), ("B-ORG", "O"), 3), TaggedExample(("Peter",), ("B-PER",), 7)]
    assert list(read_tagged(write(tmp_path / "a.conll", CONLL))) == expected
    tabbed = CONLL.partition("\n\n")[2].replace(" ", "\t").replace("EU", "E U")
    assert next(read_tagged(write(tmp_path / "b.txt", tabbed))).words == ("E U", "rejects")
    objects = [{"tokens": list(e.words), "ner_tags": list(e.tags)} for e in expected]
    path = write(tmp_path / "c.jsonl", "\n".join(map(json.dumps, objects)))
    assert [(e.words, e.tags) for e in read_tagged(path)] == [(e.words, e.tags) for e in expected]
    middle = next(read_tagged(tmp_path / "a.conll", ColumnsSpec(label=2)))
    assert middle.tags == ("NNP", "VBZ")


BAD: list[tuple[str, str, str, type[DataError], str]] = [
    ("text", "a.conll", "EU B\nrejects\n", BadTable, "line 2 has 1 fields, the lines before 2"),
    ("tag", "a.conll", "EU\n", BadTable, "line 1 has 1 fields, a word and its tag are two"),
    ("tag", "a.jsonl", '{"tokens": ["a"], "tags": ["x", "y"]}', BadTable, "line 1 has 1 words and 2 tags"),
    ("tag", "a.jsonl", '{"tokens": "a", "tags": ["x"]}', BadTable, "line 1: 'tokens' is \"a\", not a list of words"),
    ("tag", "a.csv", "a,b\n", BadTable, "words and tags are read from"),
    ("example", "a.jsonl", '{"text": "a", "label": 1}\n{"text": 2, "label": 1}', BadTable, "line 2: 'text' is 2"),
    ("example", "a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}', BadTable, "line 2: 'label' is not there"),
    ("example", "a.jsonl", '{"text": "a", "label": true}', BadTable, "line 1: 'label' is true"),
    ("example", "a.jsonl", '{"text": ', BadTable, "line 1 is not JSON"),
    ("example", "a.jsonl", "[1]", BadTable, "line 1 is no object"),
    ("example", "a.jsonl", '{"text": "a", "label": 1}\n{"text": "\\uD800", "label": 1}', BadTable, "line 2 holds half of"),
    ("tag", "a.jsonl", '{"tokens": ["a\\udc01"], "tags": ["x"]}', BadTable, "line 1 holds half of a surrogate pair, U+DC01"),
    ("example", "a.csv", 'text,label\nok,1\n"open,1\n', BadTable, "the row from line 3 on is not CSV"),
    ("example", "a.tsv", "a\tb\tc\n", BadTable, "which column is the label? There are: 1, 2, 3"),
    ("example", "a.tsv", "id\tlabel\n1\t2\n", BadTable, "which column is the text? There are: id, label"),
    ("example", "a.conll", "a\tb\n", BadTable, "holds words and tags"),
    ("example", "a.xlsx", "a\tb\n", BadTable, "says not what the file is"),
    ("example", "a.tsv", "", SourceEmpty, "there are no examples in it"),
    ("example", "a.tsv", "sentence\tlabel\n", SourceEmpty, "there are no examples in it"),
    ("tag", "a.conll", "\n\n", SourceEmpty, "there are no examples in it"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "text", "error", "message"), BAD)
def test_what_does_not_fit_is_told(
    kind: str, name: str, text: str, error: type[DataError], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(error) as caught:
        list(read_examples(path) if kind == "example" else read_tagged(path))
    assert message in caught.value.message
    assert caught.value.where == str(path)
    assert caught.value.remedy


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="No such file"):
        list(read_examples(tmp_path / "none.tsv"))


def test_a_table_is_read_as_a_stream(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "a\t1\n" * 10 + "broken\n")
    examples = read_examples(path)
    assert [next(examples).line for _ in range(10)] == list(range(1, 11))  # the broken line is not met yet
    with pytest.raises(BadTable):
        next(examples)
