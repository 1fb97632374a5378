"""Batches of parallel text: nothing lost, nothing twice, the same for any number of ranks, and little padding."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.data import Corpus, Loader, LoaderSpec, TextTooSmall, prepare
from phalanx.data.pairs import Buckets
from phalanx.job import DataSpec, VocabularySpec

SPEC = LoaderSpec("translate", sequence_length=40, global_batch=8, seed=3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    """300 pairs of 1 to 30 words, the translations a little shorter."""
    directory = tmp_path_factory.mktemp("pairs")
    draw = np.random.default_rng(0)
    words = [f"wort{n}" for n in range(60)]
    sides: dict[str, list[str]] = {"de": [], "en": []}
    for number in range(300):
        length = int(draw.integers(1, 31))
        sides["de"].append(" ".join([f"n{number}", *draw.choice(words, length)]))
        sides["en"].append(" ".join([f"n{number}", *draw.choice(words, max(1, length - 1))]).upper())
    for side, lines in sides.items():
        (directory / f"train.{side}").write_text("\n".join(lines), "utf-8")
    vocabulary = VocabularySpec(kind="bpe", size=700)
    spec = DataSpec(source=f"{directory}/train.{{de,en}}", vocabulary=vocabulary, held_out=0.1)
    return prepare(spec, "translate", directory / "cache")


def pair_at(corpus: Corpus, place: int) -> tuple[list[int], list[int]]:
    train = corpus.train
    sides = (train.tokens[train.offsets[2 * place + side] : train.offsets[2 * place + side + 1]] for side in (0, 1))
    first, second = (side.tolist() for side in sides)
    return first, second


def test_a_batch_spells_its_pairs(corpus):
    """Source with the end mark; the target begins with the begin mark, and each token is to be predicted from those
    before it, the end mark too."""
    loader, vocabulary = Loader(corpus, SPEC), corpus.vocabulary
    (batch,) = loader.micro_batches(5, 0, 1, 8)
    arrays = batch.arrays
    expected = []
    for row, length in enumerate(arrays["lengths"].tolist()):
        *source, end = arrays["source"][row, :length].tolist()
        assert end == vocabulary.eos_id
        assert (arrays["source"][row, length:] == vocabulary.pad_id).all()
        begin, *target = arrays["target"][row].tolist()
        assert begin == vocabulary.bos_id
        target = [token for token in target if token != vocabulary.pad_id]
        expected += [*target, vocabulary.eos_id]
        assert (source, target) in [pair_at(corpus, place) for place in range(corpus.train.documents // 2)]
    assert arrays["targets"].tolist() == expected
    inputs = arrays["target"].flatten()[arrays["positions"]]
    starts = np.flatnonzero(inputs == vocabulary.bos_id)
    assert len(starts) == 8
    np.testing.assert_array_equal(np.delete(inputs, starts), np.delete(arrays["targets"], [*(starts[1:] - 1), -1]))
    assert batch.predicted_tokens == loader.predicted_tokens_of_step(5) == len(expected)
    assert batch.real_tokens == arrays["lengths"].sum() + len(expected)
    text = "".join(vocabulary.decode([token for token in expected if token != vocabulary.eos_id]))
    assert batch.predicted_bytes == len(text.encode())


@given(st.integers(0, 50), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_every_pair_comes_once_an_epoch(corpus, seed, global_batch):
    loader = Loader(corpus, replace(SPEC, seed=seed, global_batch=global_batch))
    rows = loader.rows_per_epoch
    bucket = Buckets(rows, global_batch, seed).batches
    steps = -(-3 * rows // (bucket * global_batch)) * bucket  # whole buckets with at least three epochs in them
    seen = Counter(pair for step in range(steps) for pair in loader.rows_of_step(step))
    assert max(seen.values()) == 1
    whole = steps * global_batch // rows
    assert {pair for pair in seen if pair[0] < whole} == {(epoch, row) for epoch in range(whole) for row in range(rows)}


@pytest.mark.parametrize("world", [1, 2, 3, 8, 11])
def test_ranks_share_a_step_and_see_the_same_rows(corpus, world):
    loader = Loader(corpus, SPEC)
    alone = {tuple(row.tokens.tolist()) for row in loader.batch(7)}
    parts = [loader.batch(7, rank, world) for rank in range(world)]
    assert Counter(tuple(row.tokens.tolist()) for part in parts for row in part) == Counter(alone)
    predicted = [batch.predicted_tokens for rank in range(world) for batch in loader.micro_batches(7, rank, world, 3)]
    assert sum(predicted) == loader.predicted_tokens_of_step(7)


def test_little_of_a_batch_is_padding(corpus):
    loader = Loader(corpus, SPEC)

    def padding(rows) -> float:
        lengths = np.array([[len(row.tokens), len(row.targets)] for row in rows])
        return 1 - lengths.sum() / (lengths.max(0) * len(rows)).sum()

    bucketed = np.mean([padding(loader.batch(step)) for step in range(30)])
    rows = [row for step in range(30) for row in loader.batch(step)]
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = np.mean([padding([rows[place] for place in order[at : at + 8]]) for at in range(0, len(rows), 8)])
    assert bucketed < 0.5 * shuffled


def test_batches_do_not_come_by_length(corpus):
    """Or the last steps of a bucket would all be long ones."""
    loader = Loader(corpus, SPEC)
    bucket = Buckets(loader.rows_per_epoch, 8, 3).batches
    sizes = [loader.predicted_tokens_of_step(step) for step in range(bucket)]
    assert sizes not in (sorted(sizes), sorted(sizes, reverse=True))


def test_pairs_that_are_too_long_are_left_out_and_counted(corpus):
    loader = Loader(corpus, replace(SPEC, sequence_length=12))
    lengths = [max(map(len, pair_at(corpus, place))) + 1 for place in range(corpus.train.documents // 2)]
    assert loader.rows_per_epoch == sum(length <= 12 for length in lengths)
    (note,) = loader.notes
    assert f"{sum(length > 12 for length in lengths):,} of {len(lengths):,} training pairs" in note
    assert Loader(corpus, replace(SPEC, sequence_length=100)).notes == ()
    with pytest.raises(TextTooSmall, match="longer than 2 tokens"):
        Loader(corpus, replace(SPEC, sequence_length=2))
    with pytest.raises(TextTooSmall, match="fewer than one batch of 4,096"):
        Loader(corpus, replace(SPEC, global_batch=4096))


def test_no_micro_batch_is_larger_than_the_one_that_memory_is_planned_by(corpus):
    loader = Loader(corpus, SPEC)
    planned = loader.largest_batch(4)
    for step in range(40):
        for batch in loader.micro_batches(step, 0, 1, 4):
            assert batch.arrays["target"].size <= planned.arrays["target"].size


def test_validation_is_the_same_for_any_number_of_ranks(corpus):
    loader = Loader(corpus, SPEC)
    counts = [
        sum(b.predicted_tokens for rank in range(world) for b in loader.validation_batches(2000, 4, rank, world))
        for world in (1, 2, 5)
    ]
    assert len(set(counts)) == 1
    assert counts[0] > 0
