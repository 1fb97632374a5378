import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.data import Split
from phalanx.evaluation.errors import NotFinite, NothingToPredict
from phalanx.evaluation.scores import Answers, Scores, beginning, by_cluster, compare, ratio_error, row_count

SIZES = np.array([10, 20, 30, 40])


def compared(
    metric: str, model: list[float], loss: float = 1.0, sizes: np.ndarray = SIZES, **tables: list[float]
) -> Scores:
    baselines = [Answers(name, np.array(amounts, float), name == "peeks") for name, amounts in tables.items()]
    answers = Answers("this model", np.array(model, float))
    return compare(metric, answers, baselines, sizes, loss=loss, tokens=1, split={}, method="")


def test_bits_per_byte_is_nats_over_bytes_of_all_documents_together() -> None:
    scores = compared("bits_per_byte", [7, 14, 21, 28], table=[14, 28, 42, 56])
    assert scores.model.value == pytest.approx(0.7 / math.log(2))
    assert scores.model.standard_error == pytest.approx(0, abs=1e-12), "every document costs the same"
    assert scores.margin == pytest.approx(0.7 / math.log(2))
    assert scores.beats_strongest


def test_top1_counts_hits_and_more_is_better() -> None:
    scores = compared("top1", [5, 5, 5, 5], left=[4, 4, 4, 4], both=[6, 6, 6, 6])
    assert scores.model.value == 0.2
    assert (scores.strongest, scores.margin) == ("both", pytest.approx(-0.04))
    assert not scores.beats_strongest


def test_a_reference_that_sees_more_is_shown_and_is_no_opponent() -> None:
    scores = compared("top1", [5, 5, 5, 5], left=[4, 4, 4, 4], peeks=[9, 9, 9, 9])
    assert scores.strongest == "left"
    assert scores.beats_strongest
    assert [score.name for score in scores.baselines if score.sees_more] == ["peeks"]


def test_a_tie_does_not_beat() -> None:
    assert not compared("top1", [5, 5, 5, 5], left=[5, 5, 5, 5]).beats_strongest


def test_the_error_of_the_margin_is_of_paired_differences() -> None:
    """Documents differ much, model and table by the same everywhere: the margin is sure though neither score is."""
    table = np.array([1.0, 90.0, 5.0, 200.0])
    scores = compared("bits_per_byte", (table - 0.1 * SIZES).tolist(), table=table.tolist())
    assert scores.model.standard_error > 0.5
    assert scores.margin_standard_error == pytest.approx(0, abs=1e-9)


def test_the_standard_error_is_how_much_the_ratio_varies_over_fresh_samples() -> None:
    draw = np.random.default_rng(0)

    def sample() -> tuple[np.ndarray, np.ndarray]:
        sizes = draw.integers(50, 500, 60)
        return sizes * draw.normal(2, 0.4, 60), sizes

    samples = [sample() for _ in range(2000)]
    spread = np.std([amounts.sum() / sizes.sum() for amounts, sizes in samples])
    told = np.mean([ratio_error(amounts, sizes) for amounts, sizes in samples])
    assert told == pytest.approx(spread, rel=0.05)


def test_one_document_alone_gives_no_standard_error() -> None:
    assert ratio_error(np.array([3.0, 0.0]), np.array([5, 0])) is None


@pytest.mark.parametrize("amount", [math.nan, math.inf])
def test_a_model_that_answers_with_no_numbers_is_named(amount: float) -> None:
    with pytest.raises(NotFinite, match="no numbers"):
        compared("bits_per_byte", [1, amount, 1, 1], table=[1, 1, 1, 1])
    with pytest.raises(NotFinite):
        compared("top1", [1, 1, 1, 1], loss=amount, table=[1, 1, 1, 1])


def test_text_with_nothing_to_predict_is_named() -> None:
    with pytest.raises(NothingToPredict):
        compared("top1", [0.0], sizes=np.array([0]), table=[0.0])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(1, 60))
def test_the_beginning_of_a_split_ends_inside_a_document_if_it_must(sizes: list[int], tokens: int) -> None:
    split = Split(np.arange(sum(sizes), dtype=np.uint16), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
    part = beginning(split, tokens)
    assert part.tokens.tolist() == list(range(min(tokens, sum(sizes))))
    assert part.offsets[0] == 0
    assert part.offsets[-1] == len(part.tokens)
    assert (np.diff(part.offsets) > 0).all()
    assert set(part.offsets[:-1]) <= set(split.offsets)


def test_sums_by_cluster_are_those_of_a_loop() -> None:
    assert by_cluster(np.array([2, 0, 2]), np.array([1.5, 2, 3]), 4).tolist() == [2, 0, 4.5, 0]
    assert by_cluster(np.array([], np.int64), np.array([]), 2).dtype == np.float64


def test_few_rows_at_once_for_large_vocabularies_but_always_one() -> None:
    assert row_count(1) == 64
    assert row_count(1 << 20) == 8
    assert row_count(1 << 30) == 1
    assert row_count(0) == 64
