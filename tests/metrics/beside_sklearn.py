"""What both say to the same call: the answer, the warnings, the words of a refusal."""

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from sklearn.calibration import calibration_curve

import phalanx.metrics
from phalanx.metrics import BadInput

Call = Callable[[Any], Any]
SKLEARN = SimpleNamespace(**vars(sklearn.metrics), calibration_curve=calibration_curve)


def told(call: Call, module: Any) -> tuple[Any, list[tuple[str, str]]]:
    """The answer, and the kinds and words of warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = call(module)
    return answer, [(each.category.__name__, str(each.message)) for each in caught]


def same_answer(call: Call) -> None:
    """Within 1e-12, with the same warnings."""
    ours, words = told(call, phalanx.metrics)
    theirs, expected = told(call, SKLEARN)
    assert words == expected
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15)


def same_refusal(call: Call) -> None:
    """Our words begin with, or hold, theirs."""
    with pytest.raises(ValueError) as theirs:  # noqa: PT011
        call(SKLEARN)
    with pytest.raises(BadInput) as ours:
        call(phalanx.metrics)
    assert str(theirs.value) in ours.value.message
