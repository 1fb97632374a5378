"""Labelled examples from their files to batches: nothing lost, nothing doubled, the same whoever asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.data import Corpus, Loader, LoaderSpec, prepare
from phalanx.data.errors import BadTable, SourceMissing, TextTooSmall, UnfitVocabulary
from phalanx.data.examples import ExampleRows, shares_of_pair
from phalanx.data.learn import learn_vocabulary
from phalanx.data.vocabulary import Vocabulary
from phalanx.job import ColumnsSpec, DataSpec, VocabularySpec
from phalanx.job.spec import Objective

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "under",
    "mat",
    "tree",
    "happily",
    "sadly",
    "very",
    "old",
    "new",
    "red",
    "blue",
    "Ünïcode",
    "naïve",
    "it's",
    "42",
]


def sentence(number: int, longest: int = 9) -> str:
    random = np.random.default_rng(number)
    return " ".join(random.choice(WORDS, random.integers(1, longest + 1))) + f" {number}"


def write(path: Path, rows: list[str]) -> str:
    path.write_text("".join(row + "\n" for row in rows), "utf-8")
    return str(path)


def data(source: str, **more: Any) -> DataSpec:
    return DataSpec(
        source=source, vocabulary=VocabularySpec(kind="wordpiece", size=300), **{"sequence_length": 24, **more}
    )


def made(path: Path, objective: Objective, **more: Any) -> Corpus:
    return prepare(data(str(path), **more), objective, path.parent / "cache")


def text_of(vocabulary: Vocabulary, ids: Any) -> str:
    return vocabulary.decode([int(id_) for id_ in ids])


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    rows = [f"{sentence(number)}\t{'good' if number % 3 else 'bad'}" for number in range(200)]
    write(tmp_path / "reviews.tsv", ["sentence\tlabel", *rows])
    return tmp_path / "reviews.tsv"


def test_every_example_is_on_one_side_with_its_own_label(reviews: Path) -> None:
    corpus = made(reviews, "classify", held_out=0.2)
    assert corpus.manifest.labels == ("bad", "good")
    lines = reviews.read_text().splitlines()
    seen = []
    for split in ("train", "held_out"):
        part = corpus.split(split)
        names = corpus.names(split)
        assert part.labels is not None
        assert len(names) == part.documents == len(part.labels)
        for place, name in enumerate(names):
            text, label = lines[int(name) - 1].split("\t")
            assert corpus.manifest.labels[int(part.labels[place])] == label
            ids = corpus.vocabulary.encode(text)
            assert part.tokens[part.offsets[place] : part.offsets[place + 1]].tolist() == ids.tolist()
            seen.append(int(name))
    assert sorted(seen) == list(range(2, 202))
    assert 20 <= corpus.held_out.documents <= 60


def test_the_same_text_is_never_on_both_sides(tmp_path: Path) -> None:
    path = tmp_path / "twice.tsv"
    write(path, [f"{sentence(number % 50)}\t{number % 2}" for number in range(200)])
    corpus = made(path, "classify", held_out=0.3)
    sides = [
        {bytes(s.tokens[a:b]) for a, b in zip(s.offsets[:-1], s.offsets[1:], strict=True)}
        for s in (corpus.train, corpus.held_out)
    ]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]


def test_a_file_of_its_own_is_held_out_whole(reviews: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "dev.tsv", ["sentence\tlabel", "a cat\tgood", "a dog\tbad"])
    corpus = made(reviews, "classify", held_out_source=other)
    assert (corpus.train.documents, corpus.held_out.documents) == (200, 2)
    assert corpus.held_out.labels is not None
    assert corpus.held_out.labels.tolist() == [1, 0]


def test_what_decides_the_corpus_makes_another_one(reviews: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "dev.tsv", ["sentence\tlabel", "a cat\tgood", "a dog\tbad"])
    changes: list[dict[str, Any]] = [{}, {"held_out": 0.2}, {"held_out_source": other}, {"labels": ("good", "bad")}]
    digests = {made(reviews, "classify", **change).digest for change in changes}
    assert len(digests) == len(changes)
    with reviews.open("a") as file:
        file.write("one more\tgood\n")
    assert made(reviews, "classify").digest not in digests


def test_labels_keep_the_order_they_are_given_in_and_whole_numbers_their_size(tmp_path: Path) -> None:
    rows = [f"{sentence(number)}\t{(10, 9, -1)[number % 3]}" for number in range(60)]
    write(tmp_path / "stars.tsv", rows)
    assert made(tmp_path / "stars.tsv", "classify").manifest.labels == ("-1", "9", "10")
    given_ = made(tmp_path / "stars.tsv", "classify", labels=("10", "9", "-1", "7"))
    assert given_.manifest.labels == ("10", "9", "-1", "7")
    assert given_.train.labels is not None
    lines = (tmp_path / "stars.tsv").read_text().splitlines()
    for name, label in zip(given_.names("train"), given_.train.labels.tolist(), strict=True):
        assert given_.manifest.labels[label] == lines[int(name) - 1].split("\t")[1]


def test_numbers_to_learn_come_as_they_are(tmp_path: Path) -> None:
    write(tmp_path / "n.tsv", [f"{sentence(number)}\t{number / 7}" for number in range(60)])
    corpus = made(tmp_path / "n.tsv", "regress", held_out=0.1)
    assert corpus.manifest.labels == ()
    both = [s.labels for s in (corpus.train, corpus.held_out)]
    assert all(labels is not None and labels.dtype == np.float32 for labels in both)
    assert sorted(np.concatenate(both).tolist()) == pytest.approx([number / 7 for number in range(60)])  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "bytes"])
def test_every_word_of_a_sentence_has_its_tag_at_its_first_token(kind: str, tmp_path: Path) -> None:
    sentences = [
        [(word, "B-LONG" if len(word) > 4 else "O") for word in sentence(number).split()] for number in range(80)
    ]
    sentences[3] = [("\u0301", "O"), ("cat", "B-LONG")]  # BERT keeps nothing of a lone accent
    text = "\n\n".join("\n".join(f"{word}\t{tag}" for word, tag in rows) for rows in sentences)
    (tmp_path / "tags.conll").write_text(text, "utf-8")
    spec = data(str(tmp_path / "tags.conll"), held_out=0.2).model_copy(
        update={"vocabulary": VocabularySpec(kind=kind, size=300)}  # type: ignore[arg-type]
    )
    corpus = prepare(spec, "tag", tmp_path / "cache")
    found = []
    for split in (corpus.train, corpus.held_out):
        rows = ExampleRows(split, corpus.vocabulary, LoaderSpec("tag", 512, 1))
        for index in range(len(rows)):
            row = rows.example(index)
            assert len(row.positions) == len(row.targets) == rows.predicted(np.array([index]), np.array([0]))
            ends = [*row.positions[1:], len(row.tokens) - 1]
            words = [text_of(corpus.vocabulary, row.tokens[a:b]) for a, b in zip(row.positions, ends, strict=True)]
            found.append([corpus.manifest.labels[tag] for tag in row.targets])
            assert len(words) == len(found[-1])
    assert sorted(found) == sorted([tag for _, tag in rows] for rows in sentences)


@st.composite
def lengths(draw: st.DrawFn) -> tuple[int, int, int]:
    return draw(st.integers(0, 60)), draw(st.integers(0, 60)), draw(st.integers(1, 80))


@given(lengths())
def test_a_pair_is_cut_as_bert_cuts_it(given_: tuple[int, int, int]) -> None:
    first, second, room = given_
    one, two = [0] * first, [0] * second
    while len(one) + len(two) > room:  # google-research/bert, run_classifier.py, _truncate_seq_pair
        if len(one) > len(two):
            one.pop()
        else:
            two.pop()
    assert shares_of_pair(first, second, room) == (len(one), len(two))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = [
        json.dumps({"premise": sentence(n, 20), "hypothesis": sentence(1000 + n), "label": "yes" if n % 2 else "no"})
        for n in range(150)
    ]
    write(tmp_path / "pairs.jsonl", rows)
    return tmp_path / "pairs.jsonl"


def test_a_batch_holds_each_example_whole_wherever_it_is_packed(pairs: Path) -> None:
    corpus = made(pairs, "classify", sequence_length=32)
    vocabulary = corpus.vocabulary
    rows = ExampleRows(corpus.train, vocabulary, LoaderSpec("classify", 32, 4))
    some = [rows.example(index) for index in range(40)]
    batch = rows.collate(some)
    tokens, document, segments = (batch.arrays[name] for name in ("tokens", "document", "segments"))
    assert tokens.shape[1] <= 32
    assert tokens.shape[0] < len(some)  # several share a line
    assert batch.real_tokens == (document > 0).sum() == sum(len(row.tokens) for row in some)
    for row, position, label in zip(some, batch.arrays["positions"], batch.arrays["labels"], strict=True):
        line, start = divmod(int(position), tokens.shape[1])
        mine = np.flatnonzero(document[line] == document[line, start])
        assert mine[0] == start
        assert tokens[line, mine].tolist() == row.tokens.tolist()
        ids = tokens[line, mine]
        assert ids[0] == vocabulary.cls_id
        assert (ids == vocabulary.sep_id).sum() == 2
        assert segments[line, mine].tolist() == [0] * (row.document == 1).sum() + [1] * (row.document == 2).sum()
        assert label == row.targets[0]
    assert (tokens[document == 0] == vocabulary.pad_id).all()


@given(st.integers(1, 16), st.integers(1, 9), st.integers(0, 30))
def test_any_number_of_workers_sees_the_same_examples_once_an_epoch(
    shared: Corpus, world: int, micro: int, step: int
) -> None:
    loader = Loader(shared, LoaderSpec("classify", 24, 16, seed=3))
    one = loader.micro_batches(step, 0, 1, 16)[0]
    parts = [batch for rank in range(world) for batch in loader.micro_batches(step, rank, world, micro)]
    assert sorted(_examples(one)) == sorted(example for part in parts for example in _examples(part))
    assert loader.predicted_tokens_of_step(step) == 16 == sum(part.predicted_tokens for part in parts)
    feed = loader.feed(step, 0, 1, 16)
    assert _examples(feed.take().batches[0]) == _examples(one)


def _examples(batch: Any) -> list[tuple[Any, ...]]:
    tokens, document = batch.arrays["tokens"], batch.arrays["document"]
    found = []
    for position, label in zip(batch.arrays["positions"], batch.arrays["labels"], strict=True):
        line, start = divmod(int(position), tokens.shape[1])
        found.append((*tokens[line][document[line] == document[line, start]].tolist(), float(label)))
    return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path = tmp_path_factory.mktemp("shared") / "r.tsv"
    write(path, [f"{sentence(number)}\t{number % 3}" for number in range(120)])
    return made(path, "classify")


def test_an_epoch_has_every_example_once(shared: Corpus) -> None:
    loader = Loader(shared, LoaderSpec("classify", 24, 1))
    steps = range(loader.rows_per_epoch)
    seen = [row for step in steps for _, row in loader.rows_of_step(step)]
    assert sorted(seen) == list(range(loader.rows_per_epoch))


def test_examples_that_are_too_long_are_cut_and_counted(pairs: Path) -> None:
    corpus = made(pairs, "classify", sequence_length=12)
    loader = Loader(corpus, LoaderSpec("classify", 12, 4))
    sizes = np.diff(corpus.train.offsets).reshape(-1, 2).sum(1)
    cut = int((sizes > 9).sum())
    assert cut
    assert loader.notes == (
        f"{cut} of {len(sizes)} training examples are cut to 12 tokens, the longer text of a pair first",
    )
    rows = ExampleRows(corpus.train, corpus.vocabulary, loader.spec)
    assert max(len(rows.example(index).tokens) for index in range(len(rows))) == 12
    assert Loader(corpus, LoaderSpec("classify", 200, 4)).notes == ()


def test_words_beyond_the_model_s_length_are_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(
        "".join(
            json.dumps({"tokens": ["cat"] * n, "tags": [str(i % 2) for i in range(n)]}) + "\n" for n in range(1, 40)
        )
    )
    corpus = made(tmp_path / "t.jsonl", "tag", held_out_source=str(tmp_path / "t.jsonl"))
    rows = ExampleRows(corpus.train, corpus.vocabulary, LoaderSpec("tag", 12, 1))
    assert rows.cut == 29
    for index in range(len(rows)):
        assert (
            len(rows.example(index).positions) == rows.predicted(np.array([index]), np.array([0])) == min(index + 1, 10)
        )


MISTAKES: list[tuple[str, Objective, dict[str, Any], str, str]] = [
    (
        "a\tgood\nb\tbad\nc\tgodo\n",
        "classify",
        {"labels": ("good", "bad")},
        "line 3: the label 'godo' is none of",
        "good",
    ),
    ("a\t1\nb\tx\n", "regress", {}, "line 2: the label 'x' is no number", "classify"),
    ("a\t1\nb\tnan\n", "regress", {}, "line 2: the label 'nan' is no number", "classify"),
    ("a\t1\nb\t \nc\t2\n", "classify", {}, "line 2: there is no label", "data.labels"),
    ("a\t1\nb\t1\n", "classify", {}, "all examples have the label '1'", "data.columns.label"),
    ("a\t1\nb\t2\n", "classify", {"columns": ColumnsSpec(label=3)}, "there is no column 3", "data.columns.label"),
    ("x\ty\na\tb\n", "classify", {"columns": ColumnsSpec(label="z")}, "there is no column 'z'", "data.columns.label"),
    ("".join(f"a\t{n}\n" for n in range(1002)), "classify", {}, "line 1,001: there are more than 1,000", "regress"),
]


@pytest.mark.parametrize(("text", "objective", "more", "message", "remedy"), MISTAKES)
def test_a_mistake_in_the_labels_is_told_with_its_line(
    text: str, objective: Objective, more: dict[str, Any], message: str, remedy: str, tmp_path: Path
) -> None:
    (tmp_path / "x.tsv").write_text(text)
    with pytest.raises(BadTable) as caught:
        made(tmp_path / "x.tsv", objective, **more)
    assert message in caught.value.message
    assert remedy in caught.value.remedy
    assert caught.value.where == str(tmp_path / "x.tsv")


def test_a_held_out_label_must_be_one_of_the_training_examples(reviews: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "dev.tsv", ["sentence\tlabel", "a cat\tgoood"])
    with pytest.raises(
        BadTable, match=r"line 2: the label 'goood' is none of those of the training examples"
    ) as caught:
        made(reviews, "classify", held_out_source=other)
    assert caught.value.where == other
    assert "good" in caught.value.remedy


def test_a_vocabulary_without_the_special_tokens_is_refused(reviews: Path, tmp_path: Path) -> None:
    other = learn_vocabulary(VocabularySpec(kind="bpe", size=300), "causal-lm", ["some text"])
    (tmp_path / "tokenizer.json").write_text(other.to_json())
    spec = data(str(reviews)).model_copy(update={"vocabulary": VocabularySpec(path=str(tmp_path))})
    with pytest.raises(UnfitVocabulary, match=r"no \[PAD\], \[CLS\], \[SEP\], which classify needs"):
        prepare(spec, "classify", tmp_path / "cache")


def test_too_few_examples_a_directory_and_nothing_at_all_are_told(reviews: Path, tmp_path: Path) -> None:
    (tmp_path / "one.tsv").write_text("a\t1\n")
    with pytest.raises(TextTooSmall, match="too few examples"):
        made(tmp_path / "one.tsv", "classify", labels=("1", "2"))
    with pytest.raises(SourceMissing, match="is a directory"):
        made(tmp_path, "classify")
    with pytest.raises(SourceMissing, match="no such file"):
        made(tmp_path / "none.tsv", "classify")
    with pytest.raises(TextTooSmall, match=r"gives \d+ examples, fewer than one batch of 1,000"):
        Loader(made(reviews, "classify"), LoaderSpec("classify", 24, 1000))
