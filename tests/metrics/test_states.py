"""Means of models of text, and what all states have in common: bytes for other processes, and refusals to merge."""

import io
import math
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.metrics import BadInput, BitsPerByte, DifferentDefinition, MeanLoss, ScoreHistogram, State, TopK

losses = st.lists(st.tuples(st.floats(0, 1e6), st.integers(1, 1000)), min_size=1, max_size=20)


@given(losses, st.integers(0, 20))
def test_the_mean_of_parts_is_that_of_the_whole_bit_by_bit(parts: list[tuple[float, int]], cut: int) -> None:
    whole = MeanLoss().update([loss for loss, _ in parts], sum(count for _, count in parts))
    one, two = MeanLoss(), MeanLoss()
    for loss, count in parts[:cut]:
        one.update([loss], count)
    for loss, count in reversed(parts[cut:]):
        two.update([loss], count)
    assert two.merge(one) == whole
    assert two.compute() == math.fsum(loss for loss, _ in parts) / sum(count for _, count in parts)
    assert State.from_bytes(two.to_bytes()) == whole


def test_a_mean_weighs_by_count_and_not_by_part() -> None:
    merged = MeanLoss().update([1.0], 1).merge(MeanLoss().update([27.0], 9))
    assert merged.compute() == 2.8
    assert merged.perplexity == math.exp(2.8)
    assert merged.bits(14) == pytest.approx(2 / math.log(2), rel=1e-15)


def test_guessing_bytes_at_random_costs_eight_bits() -> None:
    assert BitsPerByte().update([1000 * math.log(256)], 1000).compute() == pytest.approx(8, rel=1e-15)


def test_a_perplexity_beyond_a_double_is_infinite() -> None:
    assert MeanLoss().update([1e6], 1).perplexity == math.inf


@given(
    st.lists(st.lists(st.sampled_from([-1.0, 0.0, 0.5, math.nan]), min_size=4, max_size=4), min_size=1, max_size=12),
    st.integers(1, 5),
    st.integers(0, 12),
    st.data(),
)
def test_top_k_is_what_sorting_gives(rows: list[list[float]], k: int, cut: int, data: st.DataObject) -> None:
    targets = np.array([data.draw(st.integers(0, 3)) for _ in rows])
    scores = np.array(rows)
    hits = 0
    for row, target in zip(rows, targets, strict=True):
        order = sorted(range(4), key=lambda i: (-row[i] if not math.isnan(row[i]) else math.inf, i))
        hits += int(target) in order[:k]
    whole = TopK(k).update(scores, targets)
    assert whole.compute() == hits / len(rows)
    assert TopK(k).update(scores[:cut], targets[:cut]).merge(TopK(k).update(scores[cut:], targets[cut:])) == whole


def test_nan_is_the_worst_guess() -> None:
    found = TopK().update(np.array([[math.nan, 1.0], [math.nan, -5.0]]), np.array([1, 0]))
    assert found.compute() == 0.5


def test_the_error_of_a_share_is_binomial() -> None:
    assert TopK(1).add(50, 100).standard_error == pytest.approx(0.05)


def test_of_nothing_all_is_undefined() -> None:
    empty = MeanLoss()
    for value in (empty.compute(), empty.perplexity, BitsPerByte().compute(), TopK().compute(), TopK().standard_error):
        assert math.isnan(value)


@pytest.mark.parametrize(("shape", "targets"), [((3,), 3), ((3, 2), 2), ((3, 2, 1), 3)])
def test_shapes_that_do_not_fit_are_refused(shape: tuple[int, ...], targets: int) -> None:
    with pytest.raises(BadInput, match=r"scores \[n, choices\]"):
        TopK().update(np.zeros(shape), np.zeros(targets, int))


def test_numbers_that_cannot_be_are_refused() -> None:
    for call in (lambda: MeanLoss().update([1.0], -1), lambda: BitsPerByte().update([1.0], -1), lambda: TopK(0)):
        with pytest.raises(ValueError, match=r"not negative|at least one"):
            call()


def test_states_of_other_definitions_do_not_merge() -> None:
    with pytest.raises(DifferentDefinition, match="k is 1 here and 2 there"):
        TopK(1).merge(TopK(2))
    with pytest.raises(DifferentDefinition, match="a MeanLoss does not merge with a BitsPerByte"):
        MeanLoss().merge(BitsPerByte())
    assert MeanLoss() != BitsPerByte()


def zipped(**files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name + ".npy", content)
    return out.getvalue()


def saved(array: object) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)  # type: ignore[arg-type]
    return out.getvalue()


def meaning(text: bytes) -> bytes:
    return saved(np.frombuffer(text, np.uint8))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive",
        MeanLoss().update([1.0], 1).to_bytes()[:-30],
        zipped(definition=meaning(b"{}")),
        zipped(definition=meaning(b'{"metric": "Nonsense"}')),
        zipped(definition=meaning(b'{"metric": "TopK", "k": 1, "other": 2}')),
        zipped(definition=meaning(b'{"metric": "TopK", "k": 1}'), hits=saved(np.array(1))),
        zipped(definition=meaning(b'{"metric": "TopK", "k": 1}'), hits=saved(np.array(-1)), count=saved(np.array(1))),
        zipped(definition=meaning(b"[1]")),
        zipped(definition=saved(np.array([print], object))),
        zipped(definition=meaning(b'{"metric": "ScoreHistogram", "bits": 90, "positive": null}')),
    ],
)
def test_bytes_that_are_no_state_are_refused_and_nothing_in_them_is_run(data: bytes) -> None:
    with pytest.raises(BadInput):
        State.from_bytes(data)


def test_every_kind_comes_back_from_its_bytes() -> None:
    seen = ScoreHistogram(12).update([0, 1, 1], [0.25, 0.5, -1.0])
    for state in (MeanLoss().update([1.5], 2), BitsPerByte().update([0.1, 2.0], 7), TopK(3).add(1, 2), seen):
        again = State.from_bytes(state.to_bytes())
        assert again == state
        assert type(again) is type(state)
        assert again.merge(state) != state
