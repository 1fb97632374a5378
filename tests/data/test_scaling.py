"""Scalers against scikit-learn's, fitted at once, by batches and by ranks; edges; saved and damaged."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn
from sklearn.preprocessing import MinMaxScaler, Normalizer, StandardScaler

from phalanx.data import DataError, FeatureMoments, MinMax, Scaler, Standardize, UnitNorm, Unscalable
from phalanx.metrics import Moments, State

GENERATOR = np.random.default_rng(7)
TABLE = np.stack(
    [
        GENERATOR.normal(3, 2, 500),
        GENERATOR.normal(-100, 1, 500),
        GENERATOR.exponential(1e-3, 500),
        GENERATOR.integers(0, 2, 500),
        np.full(500, 0.1),  # whose sum is not exact
    ],
    axis=1,
)
NEW = TABLE[:40] * 1.5 - 1


def moments_of(table: Any, batches: int = 1) -> Moments:
    """As of a stream: batch by batch."""
    state = Moments(table.shape[1])
    for batch in np.array_split(table, batches):
        state.update(batch)
    return state


FITTED: list[tuple[Any, Any]] = [
    (Standardize.fitted, StandardScaler()),
    (MinMax.fitted, MinMaxScaler()),
    (lambda moments: MinMax.fitted(moments, -2, 5), MinMaxScaler((-2, 5))),
    (lambda moments: MinMax.fitted(moments, 1, 3, clip=True), MinMaxScaler((1, 3), clip=True)),
]
each_fitted = pytest.mark.parametrize(("fit", "theirs"), FITTED)


@each_fitted
@pytest.mark.parametrize("batches", [1, 2, 17])
def test_fitted_by_batches_they_are_scikit_learns(fit, theirs, batches):
    scaler = fit(moments_of(TABLE, batches))
    for batch in np.array_split(TABLE, batches):
        theirs.partial_fit(batch)
    for rows in (TABLE, NEW):
        close(scaler.transform(rows), theirs.transform(rows))
        close(scaler.inverse(scaler.transform(rows)), theirs.inverse_transform(theirs.transform(rows)))
    theirs._reset()


@each_fitted
def test_fitted_by_ranks_they_are_those_of_one(fit, theirs):
    """What a rank saw travels as bytes."""
    whole = Moments(TABLE.shape[1])
    for rank in (2, 0, 1):
        part = State.from_bytes(moments_of(TABLE[rank::3], 2).to_bytes())
        assert isinstance(part, Moments)
        whole.merge(part)
    close(fit(whole).transform(NEW), fit(moments_of(TABLE)).transform(NEW))


def close(found: Any, expected: Any) -> None:
    """To 1e-12 of the size of the column."""
    size = np.maximum(1, np.abs(expected).max(axis=0))
    np.testing.assert_allclose(found / size, expected / size, rtol=0, atol=1e-12)


def test_standardised_features_have_mean_0_and_variance_1_and_normalised_ones_fill_their_range():
    standard = Standardize.fitted(moments_of(TABLE)).transform(TABLE)
    np.testing.assert_allclose(standard.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(standard.var(0), [1, 1, 1, 1, 0], rtol=1e-9)
    normal = MinMax.fitted(moments_of(TABLE)).transform(TABLE)
    assert normal.min(0).tolist() == [0, 0, 0, 0, 0]
    assert normal.max(0).tolist() == [1, 1, 1, 1, 0]


@pytest.mark.parametrize("fit", [Standardize.fitted, MinMax.fitted])
def test_a_feature_that_never_varied_is_not_divided_by_nothing(fit):
    table = np.array([[0.1, 1e9, 7.0]] * 9)
    table[4, 0] = np.nextafter(0.1, 1)  # rounding, as of 0.3 - 0.2
    scaler = fit(moments_of(table))
    assert np.abs(scaler.transform(table)).max() < 1e-16
    assert scaler.transform([[0.1, 1e9, 9.0]])[0, 2] == 2.0
    np.testing.assert_allclose(scaler.inverse(scaler.transform(table)), table, rtol=1e-15)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=20).filter(lambda some: len(set(some)) > 1))
def test_far_from_0_a_small_spread_keeps_its_digits(offsets):
    """Against exact arithmetic; scikit-learn, which multiplies before it subtracts, has 10 digits here."""
    table = np.array([[1e6 + offset / 1024] for offset in offsets])
    low, width = min(offsets), max(offsets) - min(offsets)
    exact = [float(Fraction(offset - low, width)) for offset in offsets]
    assert MinMax.fitted(moments_of(table)).transform(table)[:, 0].tolist() == pytest.approx(exact, rel=1e-15)
    mean = Fraction(sum(offsets), len(offsets))
    deviation = math.sqrt(sum((offset - mean) ** 2 for offset in offsets) / len(offsets))
    found = Standardize.fitted(moments_of(table)).transform(table)[:, 0].tolist()
    assert found == pytest.approx([float(offset - mean) / deviation for offset in offsets], rel=1e-6, abs=1e-6)


def test_tiny_units_are_no_constant():
    """scikit-learn takes what varies by less than 2e-15 for constant, whatever its unit."""
    table = np.array([[1e-20], [2e-20], [4e-20]])
    assert MinMax.fitted(moments_of(table)).transform(table)[:, 0].tolist() == pytest.approx([0, 1 / 3, 1])
    assert Standardize.fitted(moments_of(table)).transform(table).std() == pytest.approx(1)


@given(
    drawn.arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.integers(-(10**9), 10**9)),
    st.sampled_from(["l1", "l2", "max"]),
)
def test_rows_of_unit_norm_are_scikit_learns(whole, norm):
    """Which takes rows shorter than 2e-15 for zeros, so there are none."""
    rows = whole / 1024
    np.testing.assert_allclose(UnitNorm(norm).transform(rows), Normalizer(norm).transform(rows), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("norm", "order"), [("l1", 1), ("l2", 2), ("max", math.inf)])
@pytest.mark.parametrize("size", [5e-324, 1e-200, 1.0, 1e308])
def test_a_row_has_length_1_whatever_its_size_unless_it_is_0(norm, order, size):
    rows = np.array([[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]]) * size
    found = UnitNorm(norm).transform(rows)
    assert np.linalg.norm(found[0], order) == pytest.approx(1)
    assert found[1].tolist() == [0, 0, 0]


def test_new_data_lies_outside_the_range_unless_it_is_clipped():
    moments = moments_of(np.array([[0.0], [10.0]]))
    assert MinMax.fitted(moments).transform([[-5], [20]]).tolist() == [[-0.5], [2.0]]
    assert MinMax.fitted(moments, clip=True).transform([[-5], [20]]).tolist() == [[0.0], [1.0]]


def test_moments_may_come_from_elsewhere():
    """Anything with the four names; it is asked once, and what is fitted does not change with it."""
    moments = SimpleNamespace(mean=[1.0], variance=[4.0], minimum=[-1.0], maximum=[3.0])
    scalers = [Standardize.fitted(moments), MinMax.fitted(moments)]
    moments.mean[0] = 9
    assert [scaler.transform([[3]]).item() for scaler in scalers] == [1.0, 1.0]


def test_what_moments_say_later_does_not_leak_in():
    moments = moments_of(TABLE)
    scalers = [Standardize.fitted(moments), MinMax.fitted(moments)]
    before = [scaler.to_json() for scaler in scalers]
    moments.update(NEW * 100)
    assert [scaler.to_json() for scaler in scalers] == before


# ---- refused


@pytest.mark.parametrize("fit", [Standardize.fitted, MinMax.fitted])
def test_nothing_is_fitted_on_nothing(fit):
    with pytest.raises(Unscalable, match="nothing was seen") as error:
        fit(Moments(3))
    assert "training data first" in error.value.remedy
    assert isinstance(error.value, DataError)


@pytest.mark.parametrize(
    "scaler", [Standardize.fitted(moments_of(TABLE)), MinMax.fitted(moments_of(TABLE)), UnitNorm()]
)
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([1.0, 2.0], r"shape \(2,\)"),
        ([["a"] * 5], "no numbers"),
        (
            [[1.0, 2, 3, 4, 5], [1, math.nan, 3, math.inf, 5]],
            "2 of 10 numbers are not; the first is nan in row 1, feature 1",
        ),
    ],
)
def test_what_cannot_be_scaled_is_refused(scaler, rows, message):
    with pytest.raises(Unscalable, match=message):
        scaler.transform(rows)


def test_other_features_than_those_fitted_on_are_refused():
    with pytest.raises(Unscalable, match=r"shape \(1, 2\), not \[n, 5\]"):
        Standardize.fitted(moments_of(TABLE)).transform([[1.0, 2.0]])


def test_numbers_that_no_double_holds_are_refused():
    extremes = SimpleNamespace(mean=[0.0], variance=[1.0], minimum=[-1e308], maximum=[1e308])
    with pytest.raises(Unscalable, match="widths of the features must be finite"):
        MinMax.fitted(extremes)
    with pytest.raises(Unscalable, match="its variance is lost"):
        Standardize.fitted(moments_of(np.array([[1e-200], [2e-200]])))
    with pytest.raises(Unscalable, match="what it becomes must be finite"):
        Standardize.fitted(moments_of(np.array([[0.0], [1e-9]]))).transform([[1e308]])


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, math.nan), (-math.inf, 0)])
def test_a_range_without_width_is_refused(low, high):
    with pytest.raises(Unscalable, match="has no width"):
        MinMax.fitted(moments_of(TABLE), low, high)


def test_an_unknown_norm_is_refused():
    with pytest.raises(Unscalable, match="no norm 'l3'"):
        UnitNorm("l3")  # type: ignore[arg-type]


# ---- saved with the model

SCALERS = [
    Standardize.fitted(moments_of(TABLE)),
    MinMax.fitted(moments_of(TABLE), -1, 1, clip=True),
    UnitNorm("l1"),
]


@pytest.mark.parametrize("scaler", SCALERS)
def test_saved_and_loaded_it_gives_the_same_bits(scaler, tmp_path):
    scaler.save(tmp_path / "scaling.json")
    again = Scaler.load(tmp_path / "scaling.json")
    assert type(again) is type(scaler)
    assert again == scaler
    assert again.transform(NEW).tobytes() == scaler.transform(NEW).tobytes()
    assert all(again != other for other in SCALERS if other is not scaler)


DOCUMENT = Standardize.fitted(moments_of(TABLE)).to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "it has schema 2, this version reads 1"),
        ({"kind": "robust"}, "'robust' is missing or unknown"),
        ({"mean": [0.0]}, "not equally many"),
        ({"mean": [], "scale": []}, "not equally many"),
        ({"scale": [0.0] * 5}, "a scale is not positive"),
        ({"scale": [math.inf] * 5}, "not finite"),
        ({"scale": None}, "not equally many"),
        ({"kind": "min-max"}, "'least' is missing or unknown"),
        ({"kind": "min-max", "least": [2.0], "greatest": [1.0], "low": 0, "high": 1, "clip": False}, "ends before"),
        ({"kind": "min-max", "least": [0.0], "greatest": [1.0], "low": 0, "high": 1, "clip": "no"}, "true or false"),
    ],
)
def test_a_file_that_is_no_scaler_is_refused(change, message, tmp_path):
    path = tmp_path / "scaling.json"
    path.write_text(json.dumps(DOCUMENT | change))
    with pytest.raises(Unscalable, match=message) as error:
        Scaler.load(path)
    assert error.value.where == str(path)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "3", '"standardize"', "\udcff"])
def test_a_missing_or_torn_file_is_refused(content, tmp_path):
    path = tmp_path / "scaling.json"
    if content is not None:
        path.write_text(content, "utf-8", errors="surrogateescape")
    with pytest.raises(Unscalable, match=r"cannot be read|no scaler"):
        Scaler.load(path)


def test_a_checkpoint_carries_it_and_knows_when_it_was_altered(tmp_path: Path):
    from phalanx.training import Checkpoint, CheckpointDamaged
    from phalanx.training.checkpoint import write
    from tests.training.values import make_manifest

    file = tmp_path / "scaling.json"
    SCALERS[0].save(file)
    made = write(tmp_path / "checkpoints", make_manifest(1), [], {"scaling.json": file}, keep=1)
    assert Scaler.load(Checkpoint.open(made.path).path / "scaling.json") == SCALERS[0]
    SCALERS[1].save(made.path / "scaling.json")
    with pytest.raises(CheckpointDamaged, match=r"scaling\.json was altered"):
        Checkpoint.open(made.path)


def test_moments_are_what_a_scaler_asks_for():
    moments: FeatureMoments = Moments(1).update([1.0]).compute()
    assert Standardize.fitted(moments) == Standardize.fitted(Moments(1).update([1.0]))
