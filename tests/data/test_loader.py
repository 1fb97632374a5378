from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.data import Batch, Corpus, Loader, LoaderSpec, TextTooSmall, prepare
from phalanx.job import DataSpec, Job
from tests.data.conftest import MakeCorpus, sentences


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Corpus]:
    root = tmp_path_factory.mktemp("corpora")
    (root / "text").mkdir()
    for number in range(60):
        (root / "text" / f"{number:02}.txt").write_text(sentences(1 + number % 11, seed=number))
    kinds = {"causal-lm": "bytes", "masked-lm": "wordpiece"}
    return {
        objective: prepare(
            DataSpec.model_validate(
                {"source": str(root / "text"), "vocabulary": {"kind": kind, "size": 300}, "held_out": 0.2}
            ),
            objective,  # type: ignore[arg-type]
            root / "cache",
        )
        for objective, kind in kinds.items()
    }


OBJECTIVES = ["causal-lm", "masked-lm"]
objectives = st.sampled_from(OBJECTIVES)
worlds = st.integers(1, 8)


def loader(corpora: dict[str, Corpus], objective: str, batch: int = 6, length: int = 32, seed: int = 0) -> Loader:
    return Loader(corpora[objective], LoaderSpec(objective, length, batch, seed))  # type: ignore[arg-type]


def same(one: Batch, other: Batch) -> bool:
    return one.arrays.keys() == other.arrays.keys() and all(
        np.array_equal(one.arrays[key], other.arrays[key]) for key in one.arrays
    )


@settings(max_examples=40)
@given(objective=objectives, world=worlds, batch=st.integers(1, 9), seed=st.integers(0, 100))
def test_every_row_comes_once_an_epoch_over_all_ranks(
    corpora: dict[str, Corpus], objective: str, world: int, batch: int, seed: int
) -> None:
    data = loader(corpora, objective, batch, seed=seed)
    n = data.rows_per_epoch
    steps = -(-3 * n // batch)
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for step in range(steps):
        drawn = data.rows_of_step(step)
        for rank in range(world):
            for epoch, row in drawn[rank::world]:
                if epoch in seen:
                    seen[epoch].append(row)
    for rows in seen.values():
        assert sorted(rows) == list(range(n))
    assert seen[0] != seen[1]
    assert [len(data.batch(0, rank, world)) for rank in range(world)] == [
        len(range(rank, batch, world)) for rank in range(world)
    ]


@given(objective=objectives, world=worlds, micro=st.integers(1, 7), step=st.integers(0, 50))
def test_ranks_together_have_the_rows_of_one_worker(
    corpora: dict[str, Corpus], objective: str, world: int, micro: int, step: int
) -> None:
    """Row by row the same tokens and the same masks, whatever the world and the micro-batch."""
    data = loader(corpora, objective)
    alone = data.batch(step)
    for rank in range(world):
        mine = alone[rank::world]
        batches = data.micro_batches(step, rank, world, micro)
        assert [len(batch.arrays["tokens"]) for batch in batches] == [
            len(mine[start : start + micro]) for start in range(0, len(mine), micro)
        ]
        place = 0
        for batch in batches:
            for row in range(len(batch.arrays["tokens"])):
                expected = mine[place]
                assert np.array_equal(batch.arrays["tokens"][row][: len(expected.tokens)], expected.tokens)
                place += 1
        if objective == "masked-lm" and batches:
            targets = np.concatenate([batch.arrays["targets"] for batch in batches])
            assert np.array_equal(targets, np.concatenate([row.targets for row in mine]))
    total = sum(b.predicted_tokens for rank in range(world) for b in data.micro_batches(step, rank, world, micro))
    assert total == data.predicted_tokens_of_step(step)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_new_loader_at_a_later_step_goes_on_as_the_old_one(corpora: dict[str, Corpus], objective: str) -> None:
    through = loader(corpora, objective)
    everything = [through.micro_batches(step, 0, 2, 2) for step in range(30)]
    resumed = loader(corpora, objective)
    for step in range(17, 30):
        for one, other in zip(everything[step], resumed.micro_batches(step, 0, 2, 2), strict=True):
            assert same(one, other)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_another_seed_gives_other_batches(corpora: dict[str, Corpus], objective: str) -> None:
    first, second = (loader(corpora, objective, seed=seed).micro_batches(0, 0, 1, 6)[0] for seed in (0, 1))
    assert not same(first, second)


def test_causal_batches_are_text_with_each_byte_predicted_once(corpora: dict[str, Corpus]) -> None:
    data = loader(corpora, "causal-lm")
    corpus = corpora["causal-lm"]
    (batch,) = data.micro_batches(0, 0, 1, 6)
    tokens = batch.arrays["tokens"]
    assert tokens.shape == (6, 33)
    assert tokens.dtype == np.int64
    assert batch.real_tokens == batch.predicted_tokens == 6 * 32
    assert batch.predicted_bytes == (tokens[:, 1:] != corpus.vocabulary.eos_id).sum()
    everything = bytes(np.tile(np.where(corpus.train.tokens == 256, 0, corpus.train.tokens), 2).astype(np.uint8))
    for row in tokens:
        assert bytes(np.where(row == 256, 0, row).astype(np.uint8)) in everything


def test_masked_batches_say_what_to_predict_where(corpora: dict[str, Corpus]) -> None:
    data = loader(corpora, "masked-lm")
    vocabulary = corpora["masked-lm"].vocabulary
    originals = {tuple(data._train._packed.row(row)[0].tolist()) for row in range(data.rows_per_epoch)}  # type: ignore[attr-defined]
    for step in range(10):
        (batch,) = data.micro_batches(step, 0, 1, 6)
        tokens, document = batch.arrays["tokens"], batch.arrays["document"]
        positions, targets = batch.arrays["positions"], batch.arrays["targets"]
        assert tokens.shape == document.shape == (6, 32)
        assert (tokens.dtype, document.dtype, positions.dtype) == (np.int64, np.int32, np.int64)
        assert ((document == 0) == (tokens == vocabulary.pad_id)).all()
        assert batch.real_tokens == (document > 0).sum()
        assert batch.predicted_tokens == len(positions) == len(targets)
        assert (document.flat[positions] > 0).all()
        whole = tokens.copy()
        whole.flat[positions] = targets
        for row, ids in zip(whole, document, strict=True):
            assert tuple(row[ids > 0].tolist()) in originals
            for number in range(1, ids.max() + 1):
                piece = row[ids == number]
                assert (piece[0], piece[-1]) == (vocabulary.cls_id, vocabulary.sep_id)


def test_masks_change_from_epoch_to_epoch(corpora: dict[str, Corpus]) -> None:
    data = loader(corpora, "masked-lm", batch=1)
    n = data.rows_per_epoch
    by_row: dict[int, set[tuple[int, ...]]] = {}
    for step in range(3 * n):
        ((_, row),) = data.rows_of_step(step)
        by_row.setdefault(row, set()).add(tuple(data.batch(step)[0].positions.tolist()))
    assert sum(len(masks) for masks in by_row.values()) > 2 * n


@given(objective=objectives, world=worlds, micro=st.integers(1, 5), budget=st.integers(1, 4000))
def test_validation_is_the_same_whoever_does_it(
    corpora: dict[str, Corpus], objective: str, world: int, micro: int, budget: int
) -> None:
    data = loader(corpora, objective)
    alone = [row for batch in data.validation_batches(budget, 1) for row in batch.arrays["tokens"].tolist()]
    shared = [
        [
            row
            for batch in data.validation_batches(budget, micro, rank, world)
            for row in batch.arrays["tokens"].tolist()
        ]
        for rank in range(world)
    ]
    assert [shared[place % world][place // world] for place in range(len(alone))] == alone
    assert len(alone) == min(data.held_out_rows, max(1, budget // 32))


def test_validation_reads_held_out_text_only(corpora: dict[str, Corpus]) -> None:
    data = loader(corpora, "causal-lm")
    held_out = bytes(
        np.where(corpora["causal-lm"].held_out.tokens == 256, 0, corpora["causal-lm"].held_out.tokens).astype(np.uint8)
    )
    for batch in data.validation_batches(10**6, 4):
        for row in batch.arrays["tokens"]:
            assert bytes(np.where(row == 256, 0, row).astype(np.uint8))[:-1] in held_out


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_text_smaller_than_one_batch_is_refused(corpora: dict[str, Corpus], objective: str) -> None:
    rows = loader(corpora, objective).rows_per_epoch
    loader(corpora, objective, batch=rows)
    with pytest.raises(
        TextTooSmall, match=f"gives {rows:,} sequences of 32 tokens, fewer than one batch of {rows + 1:,}"
    ):
        loader(corpora, objective, batch=rows + 1)
    with pytest.raises(TextTooSmall, match="gives 0 sequences" if objective == "causal-lm" else "fewer"):
        loader(corpora, objective, batch=1000, length=10**6)


def test_held_out_text_shorter_than_a_window_is_still_read(make_corpus: MakeCorpus) -> None:
    corpus = make_corpus("causal-lm", held_out=1e-9)
    length = len(corpus.held_out.tokens) + 5
    data = Loader(corpus, LoaderSpec("causal-lm", length, 1))
    (batch,) = data.validation_batches(10**6, 4)
    assert batch.arrays["tokens"].tolist() == [corpus.held_out.tokens.tolist()]


def test_a_loader_of_a_job_takes_its_numbers_from_the_job() -> None:
    job = Job.model_validate(
        {
            "metadata": {"name": "a"},
            "spec": {
                "model": {"name": "m", "objective": "masked-lm"},
                "data": {"source": "x", "sequenceLength": 64, "maskProbability": 0.2},
                "training": {"steps": 1, "globalBatch": 12, "seed": 5},
            },
        }
    )
    assert LoaderSpec.of(job.spec) == LoaderSpec("masked-lm", 64, 12, 5, 0.2)


def test_a_corpus_of_another_objective_is_refused(corpora: dict[str, Corpus]) -> None:
    with pytest.raises(ValueError, match="prepared for causal-lm"):
        Loader(corpora["causal-lm"], LoaderSpec("masked-lm", 32, 4))


def test_the_data_room_loads_no_torch() -> None:
    import subprocess
    import sys

    program = "import sys, phalanx.data; print(sorted({'torch', 'duckdb', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("step", [0, 3, 40])
def test_rows_that_do_not_cross_documents_say_whose_each_token_is(corpora: dict[str, Corpus], step: int) -> None:
    """Against the end marks, which are the last token of a document and in no other place."""
    corpus = corpora["causal-lm"]
    spec = LoaderSpec("causal-lm", 48, 6, 3, cross_documents=False)
    plain, data = Loader(corpus, replace(spec, cross_documents=True)), Loader(corpus, spec)
    (expected,), (batch,) = (loader.micro_batches(step, 0, 1, 6) for loader in (plain, data))
    assert (batch.arrays["tokens"] == expected.arrays["tokens"]).all()
    ends = batch.arrays["tokens"][:, :-1] == corpus.vocabulary.eos_id
    document = 1 + np.concatenate([np.zeros((6, 1), int), np.cumsum(ends, 1)], 1)
    assert (batch.arrays["document"] == document).all()
    assert batch.predicted_tokens == data.predicted_tokens_of_step(step) == ends.size - ends.sum()
    held_out = list(data.validation_batches(10**6, 4))
    assert all("document" in each.arrays for each in held_out)
