"""Parallel text from files to a corpus: which pairs there are, which are held out, and what is wrong with files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.data import Corpus, DataError, NotText, SourceEmpty, SourceMissing, TextTooSmall, check_pairs, prepare
from phalanx.data.errors import BadTable, UnfitVocabulary
from phalanx.data.parallel import pair_files, read_pairs
from phalanx.job import ColumnsSpec, DataSpec, VocabularySpec

GERMAN = [f"Der Hund {n} läuft über Straße {n * n}." for n in range(200)]
ENGLISH = [f"Dog {n} runs across street {n * n}." for n in range(200)]


def write_sides(directory: Path, german: list[str], english: list[str], name: str = "train") -> str:
    """As two files; gives what a job names them by."""
    (directory / f"{name}.de").write_text("".join(line + "\n" for line in german), "utf-8")
    (directory / f"{name}.en").write_text("".join(line + "\n" for line in english), "utf-8")
    return f"{directory}/{name}.{{de,en}}"


def corpus_of(directory: Path, source: str, **settings: object) -> Corpus:
    vocabulary = VocabularySpec(kind="bpe", size=400)
    spec = DataSpec(source=source, vocabulary=vocabulary, **settings)
    return prepare(spec, "translate", directory / "cache")


def pairs_of(corpus: Corpus, split: str) -> list[tuple[str, str]]:
    part = corpus.split(split)
    texts = [
        corpus.vocabulary.decode(part.tokens[part.offsets[place] : part.offsets[place + 1]])
        for place in range(part.documents)
    ]
    return list(zip(texts[::2], texts[1::2], strict=True))


def test_two_files_are_named_at_once(tmp_path):
    source = write_sides(tmp_path, GERMAN, ENGLISH)
    found = list(read_pairs(source))
    assert [(pair.source, pair.target) for pair in found] == list(zip(GERMAN, ENGLISH, strict=True))
    assert [pair.line for pair in found] == list(range(1, 201))
    assert [path.name for path in pair_files(f"{tmp_path}/train.{{en,de}}")] == ["train.en", "train.de"]


def test_files_may_be_compressed(tmp_path):
    for side, lines in (("de", GERMAN), ("en", ENGLISH)):
        with gzip.open(tmp_path / f"train.{side}.gz", "wt", encoding="utf-8") as file:
            file.write("\n".join(lines))
    found = list(read_pairs(f"{tmp_path}/train.{{de,en}}.gz"))
    assert (found[0].source, found[-1].target) == (GERMAN[0], ENGLISH[-1])
    (tmp_path / "train.en.gz").write_bytes((tmp_path / "train.en.gz").read_bytes()[:-20])
    with pytest.raises(BadTable, match="cut or altered"):
        list(read_pairs(f"{tmp_path}/train.{{de,en}}.gz"))


@pytest.mark.parametrize("kind", ["tsv", "jsonl", "csv"])
def test_a_table_has_a_pair_a_row(tmp_path, kind):
    file = tmp_path / f"pairs.{kind}"
    rows = list(zip(GERMAN[:5], ENGLISH[:5], strict=True))
    if kind == "jsonl":
        file.write_text("".join(json.dumps({"de": de, "en": en}) + "\n" for de, en in rows))
    else:
        between = "\t" if kind == "tsv" else ","
        file.write_text("".join(f"{de}{between}{en}\n" for de, en in [("de", "en"), *rows]))
    found = list(read_pairs(str(file), ColumnsSpec(text="de", pair="en")))
    assert [(pair.source, pair.target) for pair in found] == rows
    with pytest.raises(BadTable, match="one column of text") as caught:
        list(read_pairs(str(file), ColumnsSpec(text="de")))
    assert "data.columns.pair" in caught.value.remedy


def test_lines_with_another_number_of_fields_are_refused_or_left_out_and_counted(tmp_path):
    file = tmp_path / "pairs.tsv"
    rows = [f"{de}\t{en}" for de, en in zip(GERMAN[:40], ENGLISH[:40], strict=True)]
    file.write_text("\n".join(["text\tpair", *rows, "no translation", "a\tb\tc"]))
    columns = ColumnsSpec(text="text", pair="pair")
    with pytest.raises(BadTable, match="line 42 has 1 fields"):
        corpus_of(tmp_path, str(file), columns=columns)
    corpus = corpus_of(tmp_path, str(file), columns=columns.model_copy(update={"malformed": "leave-out"}))
    assert corpus.manifest.excluded == {"with another number of fields": (2, 0)}
    assert len(pairs_of(corpus, "train")) + len(pairs_of(corpus, "held_out")) == 40


@pytest.mark.parametrize("short", ["de", "en"])
def test_sides_of_unequal_length_are_refused_with_the_line(tmp_path, short):
    source = write_sides(tmp_path, GERMAN[: 7 if short == "de" else 9], ENGLISH[: 7 if short == "en" else 9])
    with pytest.raises(BadTable, match="has a line 8") as caught:
        list(read_pairs(source))
    assert f"train.{short} ends before it" in caught.value.message
    assert not caught.value.where.endswith(short)


def test_what_is_wrong_with_a_file_is_said(tmp_path):
    source = write_sides(tmp_path, GERMAN, ENGLISH)
    (tmp_path / "train.en").write_bytes(b"good\nb\xff\xfed\n")
    with pytest.raises(NotText, match="line 2"):
        list(read_pairs(source))
    (tmp_path / "train.en").unlink()
    with pytest.raises(SourceMissing, match="no such file") as caught:
        list(read_pairs(source))
    assert caught.value.where.endswith("train.en")
    with pytest.raises(SourceMissing, match="is a directory"):
        pair_files(str(tmp_path))
    (tmp_path / "pairs.doc").write_text("x")
    with pytest.raises(BadTable, match="the ending"):
        pair_files(str(tmp_path / "pairs.doc"))


def test_the_cheap_look_finds_what_reading_would(tmp_path):
    source = write_sides(tmp_path, GERMAN, ENGLISH)
    report = check_pairs(DataSpec(source=source))
    assert (report.files, report.problems) == (2, ())
    assert report.bytes == sum(len((line + "\n").encode()) for line in (*GERMAN, *ENGLISH))
    (problem,) = check_pairs(DataSpec(source=source, held_out_source=f"{tmp_path}/no.{{de,en}}")).problems
    assert (problem.rule, problem.severity) == ("data.missing", "high")


def test_a_corpus_holds_every_pair_once_and_spells_it_as_it_was(tmp_path):
    corpus = corpus_of(tmp_path, write_sides(tmp_path, GERMAN, [f"  {line} " for line in ENGLISH]), held_out=0.2)
    train, held_out = pairs_of(corpus, "train"), pairs_of(corpus, "held_out")
    assert sorted([*train, *held_out]) == sorted(zip(GERMAN, ENGLISH, strict=True))
    assert 15 < len(held_out) < 70
    lines = [int(line) for line in corpus.names("held_out")]
    assert held_out == [(GERMAN[line - 1], ENGLISH[line - 1]) for line in lines]
    assert corpus.manifest.texts == 2
    assert {corpus.vocabulary.pad_id, corpus.vocabulary.bos_id, corpus.vocabulary.eos_id}.isdisjoint({None})


def test_one_vocabulary_knows_the_words_of_both_sides(tmp_path):
    vocabulary = corpus_of(tmp_path, write_sides(tmp_path, GERMAN, ENGLISH)).vocabulary
    assert len(vocabulary.encode(" Straße")) <= 2
    assert len(vocabulary.encode(" street")) <= 2


def test_whether_a_pair_is_held_out_is_its_own_matter(tmp_path):
    """Not that of its place, of its file's name, or of how many others there are."""
    both = (tmp_path / "a", tmp_path / "b")
    for directory in both:
        directory.mkdir()
    first = corpus_of(both[0], write_sides(both[0], GERMAN, ENGLISH), held_out=0.3)
    half = write_sides(both[1], GERMAN[100:][::-1], ENGLISH[100:][::-1], name="other")
    second = corpus_of(both[1], half, held_out=0.3)
    kept = {pair for pair in pairs_of(first, "held_out") if pair[0] in GERMAN[100:]}
    assert set(pairs_of(second, "held_out")) == kept


def test_files_of_their_own_to_validate_on(tmp_path):
    source = write_sides(tmp_path, GERMAN[:150], ENGLISH[:150])
    held_out = write_sides(tmp_path, GERMAN[140:], ENGLISH[140:], name="val")
    corpus = corpus_of(tmp_path, source, held_out_source=held_out)
    assert pairs_of(corpus, "held_out") == list(zip(GERMAN[140:], ENGLISH[140:], strict=True))
    assert pairs_of(corpus, "train") == list(zip(GERMAN[:140], ENGLISH[:140], strict=True))
    assert corpus.manifest.excluded["that are held out too"][0] == 10


def test_pairs_with_an_empty_side_are_left_out_and_counted(tmp_path):
    german, english = [*GERMAN[:50], "", "Hund"], [*ENGLISH[:50], "dog", "  "]
    corpus = corpus_of(tmp_path, write_sides(tmp_path, german, english))
    assert len(pairs_of(corpus, "train")) + len(pairs_of(corpus, "held_out")) == 50
    assert corpus.manifest.excluded == {"with an empty side": (2, len("dogHund"))}


def test_at_least_one_pair_is_held_out_and_one_is_left(tmp_path):
    corpus = corpus_of(tmp_path, write_sides(tmp_path, GERMAN[:3], ENGLISH[:3]), held_out=1e-9)
    assert len(pairs_of(corpus, "held_out")) == 1
    with pytest.raises(TextTooSmall, match="no pairs to train on"):
        corpus_of(tmp_path, write_sides(tmp_path, GERMAN[:1], ENGLISH[:1]))
    blank = write_sides(tmp_path, [""], [""], name="blank")
    with pytest.raises(TextTooSmall, match="no pairs to validate on"):
        corpus_of(tmp_path, write_sides(tmp_path, GERMAN, ENGLISH), held_out_source=blank)
    with pytest.raises((TextTooSmall, SourceEmpty)):
        corpus_of(tmp_path, write_sides(tmp_path, [], []))


def test_a_corpus_is_another_when_its_text_changes(tmp_path):
    source = write_sides(tmp_path, GERMAN, ENGLISH)
    first, again = corpus_of(tmp_path, source), corpus_of(tmp_path, source)
    assert first.directory == again.directory
    write_sides(tmp_path, GERMAN, [*ENGLISH[:-1], "another"])
    assert corpus_of(tmp_path, source).digest != first.digest


def test_wordpiece_cannot_write_translations(tmp_path):
    spec = DataSpec(source=write_sides(tmp_path, GERMAN, ENGLISH), vocabulary=VocabularySpec(kind="wordpiece"))
    with pytest.raises(UnfitVocabulary, match="loses case"):
        prepare(spec, "translate", tmp_path / "cache")


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), max_size=20)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=12))
@settings(max_examples=60, deadline=None)
def test_any_text_comes_back_or_is_refused_as_data(tmp_path_factory, pairs):
    directory = tmp_path_factory.mktemp("any")
    source = write_sides(directory, [de for de, _ in pairs], [en for _, en in pairs])
    try:
        found = [(pair.source, pair.target) for pair in read_pairs(source)]
    except DataError:
        return
    pairs[:1] = [(de.removeprefix("\ufeff"), en.removeprefix("\ufeff")) for de, en in pairs[:1]]  # a byte order mark
    assert found == [(de.strip(), en.strip()) for de, en in pairs]
