"""Any metric by slices: against the same metric on each slice alone, and by the same bits from any parts."""

import itertools
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.metrics import (
    BadInput,
    Bleu,
    ConfusionMatrix,
    DifferentDefinition,
    MultilabelConfusion,
    Needles,
    Slices,
    State,
    TopK,
)

names = st.sampled_from([["en", "deutsch", "ä"], [0, 7, -3], [False, True]])


@st.composite
def rows(draw: st.DrawFn) -> tuple[list[Any], list[int], list[int], list[float]]:
    size = draw(st.integers(0, 25))
    of = draw(names)
    label = st.lists(st.integers(0, 2), min_size=size, max_size=size)
    slices = draw(st.lists(st.sampled_from(of), min_size=size, max_size=size))
    weights = draw(st.lists(st.floats(0.25, 4), min_size=size, max_size=size))
    return slices, draw(label), draw(label), weights


@settings(max_examples=30)
@given(rows(), st.booleans(), st.lists(st.integers(0, 25), max_size=3), st.booleans())
def test_each_slice_is_the_metric_of_its_examples_however_the_data_is_cut(
    data: tuple[list[Any], list[int], list[int], list[float]], weighted: bool, cuts: list[int], backwards: bool
) -> None:
    columns = data if weighted else data[:3]
    empty = ConfusionMatrix([0, 1, 2], weighted=weighted)
    whole = Slices(empty).update(*columns)
    for name in set(data[0]):
        alone = [[value for value, of in zip(column, data[0], strict=True) if of == name] for column in columns[1:]]
        assert whole.states[name] == ConfusionMatrix([0, 1, 2], weighted=weighted).update(*alone)
    assert list(whole.compute()) == sorted(set(data[0]))
    assert whole.together() == ConfusionMatrix([0, 1, 2], weighted=weighted).update(*columns[1:])
    edges = [0, *sorted(min(cut, len(data[0])) for cut in cuts), len(data[0])]
    parts = [tuple(column[a:b] for column in columns) for a, b in itertools.pairwise(edges)][:: -1 if backwards else 1]
    stream, merged = Slices(empty), Slices(empty)
    for part in parts:
        stream.update(*part)
        sent = State.from_bytes(Slices(empty).update(*part).to_bytes())
        assert isinstance(sent, Slices)
        merged.merge(sent)
    assert merged == stream == whole


def test_merging_leaves_the_other_as_it_is() -> None:
    one, other = Slices(ConfusionMatrix()), Slices(ConfusionMatrix()).update(["a"], [1], [1])
    one.merge(other).update(["a"], [1], [0])
    assert other == Slices(ConfusionMatrix()).update(["a"], [1], [1])
    assert one.compute()["a"].total == 2


@pytest.mark.parametrize(
    ("empty", "columns"),
    [
        (TopK(1), (np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]), np.array([1, 1, 1]))),
        (MultilabelConfusion(), (np.array([[0, 1], [1, 1], [0, 0]]), [[0, 1], [1, 0], [0, 0]])),
        (Bleu(), (["the cat sat on the mat", "a dog", "so it is"], ["the cat sat on a mat", "a dog", "so it was"])),
        (ConfusionMatrix(["x", "y"]), (pl.Series(["x", "y", "x"]), ("x", "x", "x"))),
        (ConfusionMatrix([0, 1], weighted=True), (torch.tensor([0, 1, 1]), [1, 1, 0], torch.tensor([0.5, 1.0, 2.0]))),
        (Slices(ConfusionMatrix([0, 1])), (["long", "short", "long"], [1, 0, 1], [1, 1, 1])),
    ],
)
def test_any_metric_and_columns_of_any_kind(empty: Any, columns: Any) -> None:
    found = Slices(empty).update(["a", "b", "a"], *columns)
    assert list(found.compute()) == ["a", "b"]
    assert State.from_bytes(found.to_bytes()) == found

    def of(*places: int) -> Any:
        fresh = type(empty).of_parts(empty.definition(), empty.parts())
        arrays = (hasattr(column, "dtype") for column in columns)
        return fresh.update(
            *(
                column[list(places)] if is_array else [column[place] for place in places]
                for column, is_array in zip(columns, arrays, strict=True)
            )
        )

    assert found.states["a"] == of(0, 2)
    assert found.states["b"] == of(1)


def test_needles_by_slices() -> None:
    found = Slices(Needles()).update(["a", "b", "a", "b"], [1, 1, 0, 0], [0.9, 0.2, 0.1, 0.3])
    assert found.states["a"] == Needles().update([1, 0], [0.9, 0.1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: s.update(["a"], [1, 2], [1, 2]), "slice_of_each has 1, column 0 has 2, column 1 has 2"),
        (lambda s: s.update([0.5], [1], [1]), "slice_of_each holds floats, not names"),
        (lambda s: s.update([None], [1], [1]), "slice_of_each.* has no value"),
        (lambda s: s.update(["a", 1], [1, 1], [1, 1]).update([1], [1], [1]), "slices are named by int and str"),
        (lambda s: s.update([True], [1], [1]).update([1], [1], [1]), "slices are named by bool and int"),
        (lambda s: s.update(["a", "b", "b"], [0, 0, 1], [0, 0, 9]), r"in the slice 'b', .* y_pred\[1\] is 9"),
    ],
)
def test_bad_input_leaves_no_trace(call: Any, words: str) -> None:
    state = Slices(ConfusionMatrix([0, 1]))
    with pytest.raises(BadInput, match=words):
        call(state)
    assert "b" not in state.states


def test_a_slice_without_weight_is_named() -> None:
    state = Slices(ConfusionMatrix(weighted=True)).update(["a", "b"], [1, 1], [1, 1], [1.0, 0.0])
    with pytest.raises(BadInput, match="in the slice 'b': the weights are 0 together"):
        state.compute()


def test_a_state_that_has_seen_something_is_no_beginning() -> None:
    with pytest.raises(BadInput, match="this ConfusionMatrix has seen something already"):
        Slices(ConfusionMatrix().update([1], [1]))


def test_slices_of_other_metrics_do_not_merge() -> None:
    with pytest.raises(DifferentDefinition, match="of is 'ConfusionMatrix' here and 'TopK' there"):
        Slices(ConfusionMatrix()).merge(Slices(TopK()))  # type: ignore[arg-type]
    with pytest.raises(DifferentDefinition, match="settings is"):
        Slices(TopK(1)).merge(Slices(TopK(5)))
