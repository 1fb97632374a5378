"""Learning rate schedules: properties that hold for every one, and values that can be reckoned by hand."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.job.spec import ScheduleSpec
from phalanx.training.schedules import lr_at

NAMES = ("constant", "linear", "cosine", "trapezoid")

specs = st.builds(
    ScheduleSpec,
    name=st.sampled_from(NAMES),
    warmup=st.integers(0, 60),
    decay=st.floats(0.01, 1.0),
    floor=st.floats(0.0, 1.0),
)


def curve(steps: int, **spec: object) -> list[float]:
    return [lr_at(index, steps, ScheduleSpec(**spec)) for index in range(steps)]


@given(specs, st.integers(1, 200))
def test_every_factor_is_above_zero_and_at_most_one(spec, steps):
    for index in range(steps):
        assert 0 < lr_at(index, steps, spec) <= 1 + 1e-12


@given(specs, st.integers(1, 200))
def test_it_rises_until_the_end_of_warmup_and_never_after(spec, steps):
    factors = [lr_at(index, steps, spec) for index in range(steps)]
    top = min(spec.warmup, steps)
    assert factors[:top] == sorted(factors[:top])
    fall = factors[max(0, top - 1) :]
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(fall))


@given(specs, st.integers(2, 200))
def test_it_never_falls_below_the_floor_after_warmup(spec, steps):
    assert all(lr_at(index, steps, spec) >= spec.floor - 1e-12 for index in range(spec.warmup, steps))


@given(specs, st.integers(61, 200))
def test_warmup_is_a_straight_line_that_ends_at_the_full_rate(spec, steps):
    for index in range(spec.warmup):
        assert lr_at(index, steps, spec) == pytest.approx((index + 1) / spec.warmup)


@given(st.sampled_from(["linear", "cosine", "trapezoid"]), st.floats(0.0, 0.9), st.integers(20, 300))
def test_the_curve_would_meet_the_floor_one_step_after_the_last(name, floor, steps):
    spec = ScheduleSpec(name=name, warmup=10, floor=floor)
    assert lr_at(steps, steps, spec) == pytest.approx(floor)


def test_constant_stays():
    assert curve(5, name="constant", warmup=2) == [0.5, 1, 1, 1, 1]


def test_linear_falls_in_equal_steps():
    assert curve(6, name="linear", warmup=2) == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25])


def test_cosine_is_half_way_down_in_the_middle_and_flat_at_both_ends():
    factors = curve(100, name="cosine", warmup=0, floor=0.1)
    assert factors[0] == 1.0
    assert factors[50] == pytest.approx(0.55)
    assert factors[25] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert factors[0] - factors[1] < 0.001 > factors[98] - factors[99] - 0.001


def test_a_trapezoid_is_full_until_the_last_share_of_the_steps():
    factors = curve(10, name="trapezoid", warmup=2, decay=0.4)
    assert factors == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def test_a_warmup_longer_than_the_job_is_all_there_is():
    assert curve(3, name="cosine", warmup=6) == pytest.approx([1 / 6, 2 / 6, 3 / 6])
