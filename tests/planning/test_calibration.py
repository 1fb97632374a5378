"""What calibration adds to a trace, on traces whose numbers are known."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from phalanx.planning.calibration import FIRST_TOUCH_BYTES, Circumstances, predicted_memory
from phalanx.planning.trace import StepTrace


def trace(activations: int) -> StepTrace:
    return StepTrace(
        parameters=10, gradients=20, optimizer=30, activations=activations, largest=1, micro_batch_flops=1.0,
        update_flops=1.0, count=5, buffers=20, kept=40,
    )  # fmt: skip


precisions = st.sampled_from(["fp32", "bf16"])


@given(st.integers(0, 1 << 40), precisions, st.booleans())
def test_what_was_counted_is_kept_and_more_is_added(activations: int, precision: Any, varying: bool) -> None:
    memory = predicted_memory(trace(activations), Circumstances(precision, varying))
    assert (memory.parameters, memory.gradients, memory.optimizer, memory.activations) == (10, 20, 30, activations)
    assert memory.total == 60 + activations + memory.other
    assert memory.other >= FIRST_TOUCH_BYTES[precision]


@given(precisions)
def test_shapes_that_vary_cost_more(precision: Any) -> None:
    steady, varying = (predicted_memory(trace(1 << 27), Circumstances(precision, v)) for v in (False, True))
    assert varying.other > steady.other
