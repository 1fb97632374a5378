"""Streams: one sequence for any number of ranks, kills and resizes; every document once an epoch, none twice."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.data import (
    Batch,
    Cursor,
    DataChanged,
    Dataset,
    DatasetWriter,
    LoaderSpec,
    TextTooSmall,
    TokenizersDiffer,
    UnfitVocabulary,
    stream_rows,
)
from phalanx.data.masking import mask_count
from phalanx.data.stream import StreamLoader, open_datasets
from phalanx.data.stream_order import DocumentOrder, Place
from phalanx.data.stream_rows import cut
from phalanx.job import DataSpec
from tests.data.streams import SPECIAL, made, make, vocabulary

PAD, UNK, CLS, SEP, MASK, EOS = range(len(SPECIAL))
OBJECTIVES = ["causal-lm", "masked-lm"]


sizes = st.lists(st.integers(1, 40), min_size=9, max_size=25).filter(lambda own: sum(own) > 128).map(tuple)
mixes = st.lists(st.tuples(sizes, st.sampled_from([0.3, 1.0, 2.5])), min_size=1, max_size=3)
specs = st.builds(
    LoaderSpec,
    st.sampled_from(OBJECTIVES),
    st.integers(8, 32),
    st.integers(1, 4),
    st.integers(0, 5),
    st.sampled_from([0.15, 0.5]),
    st.booleans(),
)


def loader(mix: list[tuple[tuple[int, ...], float]], spec: LoaderSpec) -> tuple[StreamLoader, list[list[list[int]]]]:
    datasets, documents = made(tuple(own for own, _ in mix), 100)
    return StreamLoader(datasets, [weight for _, weight in mix], spec), documents


def rows_of(batches: tuple[Batch, ...], objective: str) -> list[tuple[bytes, ...]]:
    """What each row shows and asks, whatever micro-batch it is in."""
    found = []
    for batch in batches:
        arrays = batch.arrays
        for place, tokens in enumerate(arrays["tokens"]):
            row = [tokens.tobytes()]
            if "document" in arrays:
                row.append(arrays["document"][place].tobytes())
            if objective == "masked-lm":
                mine = arrays["positions"] // len(tokens) == place
                row += [(arrays["positions"][mine] % len(tokens)).tobytes(), arrays["targets"][mine].tobytes()]
            found.append(tuple(row))
    return found


def global_step(feeds: list, objective: str, batch: int) -> tuple[list[tuple[bytes, ...]], Cursor, int]:
    """The rows of one global batch in order, from all ranks; where the next begins, and the announced count."""
    portions = [feed.take() for feed in feeds]
    assert len({json.dumps(portion.cursor) for portion in portions}) == 1
    (predicted,) = {portion.predicted for portion in portions}
    assert sum(batch.predicted_tokens for portion in portions for batch in portion.batches) == predicted
    mine = [rows_of(portion.batches, objective) for portion in portions]
    world = len(feeds)
    return [mine[row % world][row // world] for row in range(batch)], portions[0].cursor, predicted


lifetimes = st.lists(st.tuples(st.integers(1, 16), st.integers(0, 3), st.integers(0, 2)), max_size=5)


def check_lives(mix, spec: LoaderSpec, lives: list[tuple[int, int, int]]) -> None:
    """Each life: so many ranks do so many steps and checkpoint, then so many more that are lost with them."""
    data, _ = loader(mix, spec)
    feed = data.feed(None, 0, 1, 2)
    expected = [global_step([feed], spec.objective, spec.global_batch) for _ in range(12)]
    cursor, step = None, 0
    for world, kept, lost in lives:
        feeds = [data.feed(cursor, rank, world, 1 + world % 3) for rank in range(world)]
        for number in range(kept + lost):
            found = global_step(feeds, spec.objective, spec.global_batch)
            if step + number < len(expected):
                assert found == expected[step + number]
            if number < kept:
                cursor = json.loads(json.dumps(found[1]))
        step += kept


@settings(deadline=None, max_examples=15)
@given(mixes, specs, lifetimes)
def test_the_same_global_batches_for_any_number_of_ranks_through_kills_and_resizes(mix, spec, lives) -> None:
    with mock.patch.object(stream_rows, "PIECES", 7):
        check_lives(mix, spec, lives)


@pytest.mark.slow
@settings(deadline=None, max_examples=400)
@given(mixes, specs, lifetimes, st.integers(1, 30))
def test_the_same_global_batches_many_times(mix, spec, lives, pieces: int) -> None:
    with mock.patch.object(stream_rows, "PIECES", pieces):
        check_lives(mix, spec, lives)


def true_rows(data: StreamLoader, steps: int) -> Iterator[list[int]]:
    """Tokens of the text in each row in order, without marks; of a causal row those that the next does not repeat."""
    feed = data.feed(None, 0, 1, data.spec.global_batch)
    for _ in range(steps):
        (batch,) = feed.take().batches
        tokens = batch.arrays["tokens"].copy()
        if data.spec.objective == "masked-lm":
            tokens.ravel()[batch.arrays["positions"]] = batch.arrays["targets"]
        else:
            tokens = tokens[:, :-1]
        for row in tokens:
            yield [token for token in row.tolist() if token >= len(SPECIAL)]


@settings(deadline=None, max_examples=15)
@given(sizes, specs, st.integers(1, 30))
def test_every_document_once_an_epoch_and_none_twice(lengths, spec, pieces: int) -> None:
    with mock.patch.object(stream_rows, "PIECES", pieces):
        data, (documents,) = loader([(lengths, 1.0)], spec)
        total = sum(lengths)
        wanted = sorted(token for document in documents for token in document)
        steps = 1 + 3 * sum(-(-length // (spec.sequence_length - 2)) for length in lengths)
        found: list[int] = []
        orders = []
        for row in true_rows(data, steps):
            found += row
            while len(found) >= total:  # rows of a packed group never hold documents of two epochs
                assert sorted(found[:total]) == wanted
                orders.append(found[:total])
                found = found[total:]
            if len(orders) == 3:
                break
        assert len(orders) == 3
        if len(lengths) > 6:
            assert orders[0] != orders[1]


@settings(deadline=None, max_examples=12)
@given(mixes, specs, st.integers(2, 9))
def test_of_a_mix_no_dataset_begins_again_before_it_is_through(mix, spec, pieces: int) -> None:
    """Wherever a packed group ends, each token of a dataset was seen e or e + 1 times."""
    with mock.patch.object(stream_rows, "PIECES", pieces):
        data, documents = loader(mix, spec)
        rows = list(true_rows(data, 14))
        feed = data.feed(None, 0, 1, spec.global_batch)
        for step in range(1, 15):
            cursor = feed.take().cursor
            assert isinstance(cursor, dict)
            done = step * spec.global_batch - cursor.get("row", 0)
            if done < 0:
                continue
            seen = Counter(token for row in rows[:done] for token in row)
            for own, (epoch, _, _) in zip(documents, cursor["sources"], strict=True):
                times = {seen[token] for document in own for token in document}
                assert times <= {epoch, epoch + 1}


@settings(deadline=None, max_examples=15)
@given(mixes, st.integers(0, 9), st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_the_order_is_that_of_the_least_served_dataset_and_can_be_entered_anywhere(mix, seed: int, leaps) -> None:
    """Against a loop that chooses one document after the other."""
    datasets, documents = made(tuple(own for own, _ in mix), 100)
    sources, weights = [data.train for data in datasets], [weight for _, weight in mix]
    order = DocumentOrder(sources, weights, seed)
    given_so_far, counts = [0] * len(mix), [0] * len(mix)
    seen: list[list[int]] = [[] for _ in mix]
    for leap in leaps:
        coming = order.ahead(leap)[:leap].copy()
        for entry in coming:
            least = min(range(len(mix)), key=lambda n: (given_so_far[n] / weights[n], n))
            assert entry["source"] == least
            assert (entry["epoch"], entry["place"]) == divmod(counts[least], len(documents[least]))
            assert entry["tokens"] == len(documents[least][entry["document"]])
            assert entry["before"] == given_so_far[least]
            given_so_far[least] += int(entry["tokens"])
            counts[least] += 1
            seen[least].append(int(entry["document"]))
        order.advance(leap)
        places = [Place(*place) for place in json.loads(json.dumps(order.places()))]
        order = DocumentOrder(sources, weights, seed, places=places)
    for own, numbers in zip(documents, seen, strict=True):
        for start in range(0, len(numbers), len(own)):
            assert len(set(numbers[start : start + len(own)])) == len(numbers[start : start + len(own)])


def test_the_order_goes_across_shards_not_through_windows(tmp_path: Path) -> None:
    """Of 1,000 documents in some 60 shards, the first 200 lie as evenly among the shards as chance has it."""
    data, _ = make(tmp_path, [3] * 1000, shard_bytes=100)
    shards = len(data.train.shards)
    assert shards > 50
    first = DocumentOrder([data.train], [1.0], 1).ahead(200)[:200]["document"]
    counts = np.bincount(first * shards // 1000, minlength=shards)
    expected = 200 / shards
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert abs(statistic - shards) < 4 * np.sqrt(2 * shards)  # chi-square: mean `shards`, variance twice that


@settings(deadline=None, max_examples=12)
@given(mixes, specs)
def test_causal_rows_are_cut_from_documents_with_end_marks(mix, spec: LoaderSpec) -> None:
    """Against the stream as one long list."""
    spec = replace(spec, objective="causal-lm")
    data, documents = loader(mix, spec)
    length, need = spec.sequence_length, 5 * spec.global_batch * spec.sequence_length + 1
    order = DocumentOrder([dataset.train for dataset in data.datasets], data.weights, spec.seed)
    stream: list[int] = []
    owner: list[int] = []
    for number, entry in enumerate(order.ahead(need)):
        document = documents[entry["source"]][entry["document"]]
        stream += [*document, EOS]
        owner += [number] * (len(document) + 1)
    feed, at = data.feed(None, 0, 1, spec.global_batch), 0
    for _ in range(5):
        portion = feed.take()
        (batch,) = portion.batches
        counted = 0
        for place, row in enumerate(batch.arrays["tokens"].tolist()):
            assert row == stream[at : at + length + 1]
            owners = owner[at : at + length + 1]
            if spec.cross_documents:
                assert set(batch.arrays) == {"tokens"}
                counted += length
            else:
                assert batch.arrays["document"][place].tolist() == [number - owners[0] + 1 for number in owners]
                counted += sum(a == b for a, b in pairwise(owners))
            at += length
        assert portion.predicted == batch.predicted_tokens == counted


@settings(deadline=None, max_examples=12)
@given(mixes, specs)
def test_masked_rows_are_packed_pieces_with_the_announced_masks(mix, spec: LoaderSpec) -> None:
    spec = replace(spec, objective="masked-lm")
    data, documents = loader(mix, spec)
    whole = {document[0]: document for own in documents for document in own}
    first_of = {token: document[0] for own in documents for document in own for token in document}
    with mock.patch.object(stream_rows, "PIECES", 50):
        feed = data.feed(None, 0, 1, spec.global_batch)
        portions = [feed.take() for _ in range(3)]
    for portion in portions:
        (batch,) = portion.batches
        tokens, document = batch.arrays["tokens"], batch.arrays["document"]
        true = tokens.copy()
        true.ravel()[batch.arrays["positions"]] = batch.arrays["targets"]
        assert ((document == 0) == (tokens == PAD)).all()
        assert (np.diff(batch.arrays["positions"]) > 0).all()
        for place in range(len(tokens)):
            text = 0
            for number in range(1, document[place].max() + 1):
                mark, *piece, end = true[place][document[place] == number].tolist()
                assert (mark, end) == (CLS, SEP)
                own = whole[first_of[piece[0]]]
                assert piece == own[piece[0] - own[0] :][: len(piece)]
                text += len(piece)
            asked = (batch.arrays["positions"] // spec.sequence_length == place).sum()
            assert asked == mask_count(np.array([text]), spec.mask_probability)[0]
        assert (batch.arrays["targets"] >= len(SPECIAL)).all()


@given(st.integers(1, 200), st.integers(6, 30))
def test_long_documents_are_cut_without_loss(tokens: int, longest: int) -> None:
    pieces = -(-tokens // longest)
    starts, found = cut(np.full(pieces, tokens), np.arange(pieces), longest)
    assert (starts + found)[:-1].tolist() == starts[1:].tolist()
    assert (starts[0], starts[-1] + found[-1]) == (0, tokens)
    assert found.max() <= longest
    assert found.min() >= min(3, tokens)


def test_masks_have_the_published_shares(tmp_path: Path) -> None:
    data, _ = make(tmp_path, [30] * 150)
    feed = StreamLoader([data], [1.0], LoaderSpec("masked-lm", 32, 100, 0)).feed(None, 0, 1, 100)
    fates: Counter[str] = Counter()
    for _ in range(12):
        (batch,) = feed.take().batches
        seen, targets = batch.arrays["tokens"].ravel()[batch.arrays["positions"]], batch.arrays["targets"]
        fates["mask"] += int((seen == MASK).sum())
        fates["kept"] += int((seen == targets).sum())
        fates["all"] += len(targets)
    other = fates["all"] - fates["mask"] - fates["kept"]
    for share, wanted in ((fates["mask"], 0.8), (fates["kept"], 0.1), (other, 0.1)):
        assert abs(share / fates["all"] - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / fates["all"])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_little_padding(tmp_path: Path, objective: str) -> None:
    lengths = np.random.default_rng(1).integers(1, 60, 190).tolist()
    data, _ = make(tmp_path, lengths)
    feed = StreamLoader([data], [1.0], LoaderSpec(objective, 32, 50)).feed(None, 0, 1, 50)
    (batch,) = feed.take().batches
    assert batch.real_tokens > 0.93 * batch.arrays["tokens"][:, :32].size


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_validation_is_the_same_for_any_number_of_ranks_and_repeats_nothing(tmp_path: Path, objective: str) -> None:
    data, _ = make(tmp_path, [30] * 20, held_out=300)
    stream = StreamLoader([data], [1.0], LoaderSpec(objective, 16, 4))
    alone = [row for batch in stream.validation_batches(10**6, 2) for row in rows_of((batch,), objective)]
    ranks = [
        [row for batch in stream.validation_batches(10**6, 3, rank, 3) for row in rows_of((batch,), objective)]
        for rank in range(3)
    ]
    assert [ranks[place % 3][place // 3] for place in range(len(alone))] == alone
    assert len(set(alone)) == len(alone)
    few = list(stream.validation_batches(40, 8))
    assert sum(len(batch.arrays["tokens"]) for batch in few) == 2


def rebuilt(directory: Path) -> Dataset:
    return make(directory, [30] * 21)[0]


@pytest.mark.parametrize(
    "other",
    [
        lambda data, path: StreamLoader([rebuilt(path)], [1.0], data.spec),
        lambda data, path: StreamLoader(data.datasets, [1.0], replace(data.spec, seed=1)),
        lambda data, path: StreamLoader(data.datasets, [1.0], replace(data.spec, global_batch=5)),
        lambda data, path: StreamLoader(data.datasets * 2, [1.0, 1.0], data.spec),
    ],
)
def test_a_cursor_of_other_data_is_refused(tmp_path: Path, other) -> None:
    data = StreamLoader([make(tmp_path / "a", [30] * 20)[0]], [1.0], LoaderSpec("causal-lm", 16, 4))
    cursor = data.feed(None, 0, 1, 4).take().cursor
    with pytest.raises(DataChanged):
        other(data, tmp_path / "b").feed(cursor, 0, 1, 4)
    with pytest.raises(DataChanged):
        data.feed(7, 0, 1, 4)


def test_a_run_s_record_knows_its_datasets(tmp_path: Path) -> None:
    spec = LoaderSpec("causal-lm", 16, 4)
    data = StreamLoader([make(tmp_path / "a", [30] * 20)[0]], [1.0], spec)
    data.check_record(tmp_path / "run")
    data.describe_into(tmp_path / "run")
    data.check_record(tmp_path / "run")
    with pytest.raises(DataChanged, match="built again"):
        StreamLoader([rebuilt(tmp_path / "b")], [1.0], spec).check_record(tmp_path / "run")


def test_two_tokenizers_are_not_mixed(tmp_path: Path) -> None:
    make(tmp_path / "a", [30] * 20)
    with DatasetWriter(tmp_path / "b", vocabulary(("<eos>", "[UNK]"))) as writer:
        writer.add("train", [9] * 100, 100)
        writer.finish()
    spec = DataSpec.model_validate({"mix": [{"source": str(tmp_path / name)} for name in "ab"]})
    with pytest.raises(TokenizersDiffer) as caught:
        open_datasets(spec, "causal-lm")
    assert (caught.value.where, str(tmp_path / "a") in caught.value.remedy) == (str(tmp_path / "b"), True)


@pytest.mark.parametrize(("objective", "missing"), [("masked-lm", "MASK"), ("causal-lm", "eos"), ("classify", "")])
def test_a_vocabulary_that_cannot_serve_the_objective(tmp_path: Path, objective, missing: str) -> None:
    special = ("<eos>", "[UNK]") if objective == "masked-lm" else ("[PAD]", "[UNK]", "[CLS]", "[MASK]")
    with DatasetWriter(tmp_path, vocabulary(special)) as writer:
        writer.add("train", [9] * 100, 100)
        writer.finish()
    with pytest.raises(UnfitVocabulary, match=objective) as caught:
        open_datasets(DataSpec(source=str(tmp_path)), objective)
    assert caught.value.where == str(tmp_path)
    assert missing.lower() in caught.value.message.lower() or objective == "causal-lm"


def test_a_vocabulary_beside_a_dataset_is_refused(tmp_path: Path) -> None:
    make(tmp_path, [30] * 20)
    spec = DataSpec.model_validate({"source": str(tmp_path), "vocabulary": {"kind": "bpe"}})
    with pytest.raises(UnfitVocabulary, match="vocabulary already"):
        open_datasets(spec, "causal-lm")


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    data, _ = make(tmp_path / "a", [30] * 4)
    with pytest.raises(TextTooSmall, match="fewer than one batch"):
        StreamLoader([data], [1.0], LoaderSpec("causal-lm", 64, 4))
    data, _ = make(tmp_path / "b", [30] * 4, held_out=0)
    with pytest.raises(TextTooSmall, match="held out"):
        StreamLoader([data], [1.0], LoaderSpec("causal-lm", 16, 4))
