"""What is accepted: the same numbers from lists, numpy, Arrow, pandas, polars and torch, none of them imported."""

import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from phalanx.metrics import BadInput, Needles, arrays

NUMBERS = [0.5, -1.0, 3.0]


@pytest.mark.parametrize(
    "data",
    [
        NUMBERS,
        tuple(NUMBERS),
        np.array(NUMBERS, object),
        np.array(NUMBERS)[:, None],
        pa.array(NUMBERS),
        pa.chunked_array([NUMBERS[:1], NUMBERS[1:]]),
        pd.Series(NUMBERS),
        pd.Series(NUMBERS, dtype="Float64"),
        pd.DataFrame({"score": NUMBERS}),
        pl.Series(NUMBERS),
        pl.DataFrame({"score": NUMBERS}),
        pa.table({"score": NUMBERS}),
        torch.tensor(NUMBERS, requires_grad=True),
        torch.tensor(NUMBERS, dtype=torch.bfloat16),
        torch.tensor(NUMBERS, dtype=torch.float16),
    ],
    ids=lambda data: f"{type(data).__module__}.{type(data).__name__}",
)
def test_numbers_of_every_library(data: object) -> None:
    found = arrays.scores("scores", data)
    assert found.tolist() == NUMBERS
    assert found.dtype in (np.float32, np.float64)


@pytest.mark.parametrize(
    "data",
    [
        ["a", "b"],
        np.array(["a", "b"], object),
        pa.array(["a", "b"]),
        pa.array(["a", "b"]).dictionary_encode(),
        pd.Series(["a", "b"]),
        pd.Series(["a", "b"], dtype="category"),
        pl.Series(["a", "b"]),
        pl.Series(["a", "b"], dtype=pl.Categorical),
    ],
    ids=lambda data: f"{type(data).__module__}.{type(data).__name__}",
)
def test_words_of_every_library(data: object) -> None:
    found = arrays.column("labels", data)
    assert found.tolist() == ["a", "b"]
    assert found.dtype.kind == "U"
    assert arrays.needles("labels", data, "b").tolist() == [False, True]


@pytest.mark.parametrize(
    "data", [[0, 1], [False, True], [-1, 1], [0.0, 1.0], np.array([0, 1], np.uint8), pa.array([False, True])]
)
def test_labels_that_say_themselves_what_a_needle_is(data: object) -> None:
    assert arrays.needles("labels", data).tolist() == [False, True]


@pytest.mark.parametrize(
    "data",
    [
        pa.array([1, None, 3]),
        pa.chunked_array([[1, None], [3]]),
        pd.Series([1, None, 3], dtype="Int64"),
        pd.Series(["a", None, "b"]),
        pl.Series([1, None, 3]),
        [1, None, 3],
    ],
    ids=lambda data: f"{type(data).__module__}.{type(data).__name__}",
)
def test_what_is_missing_is_refused_with_its_place(data: object) -> None:
    with pytest.raises(BadInput, match=r"labels\[1\] has no value .*; 1 of 3 do not do"):
        arrays.column("labels", data)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: arrays.scores("s", [1.0, np.nan, np.inf, np.nan]),
            r"s\[1\] is nan, not a finite number; 3 of 4 do not",
        ),
        (lambda: arrays.scores("s", [1.0, -np.inf]), r"s\[1\] is -inf"),
        (lambda: arrays.scores("s", pd.Series([1.0, None])), r"s\[1\] is nan"),
        (lambda: arrays.scores("s", ["x"]), "s holds words, not numbers"),
        (lambda: arrays.scores("s", [[1.0, 2.0]]), r"shape \(1, 2\), not \[n\]"),
        (lambda: arrays.scores("s", [[1.0], [2.0, 3.0]]), "s is no array|different lengths"),
        (lambda: arrays.needles("y", [0, 1, 2]), r"y\[2\] is 2, neither 0 nor 1; 1 of 3 do not do"),
        (lambda: arrays.needles("y", ["no", "yes"]), "which label is the needle"),
        (lambda: arrays.weights([1.0, -0.5], 2), r"sample_weight\[1\] is negative \(-0.5\)"),
        (lambda: arrays.weights([1.0], 2), "y_true has 2, sample_weight has 1"),
        (lambda: Needles().update([0, 1], [0.5]), "labels has 2, scores has 1"),
        (lambda: Needles().update([0, 1], [0.5, 0.1], [1, 1]), "weights are given, but this state"),
        (lambda: Needles(weighted=True).update([0, 1], [0.5, 0.1]), "weights are missing, but this state"),
    ],
)
def test_what_cannot_be_meant_is_refused(call: object, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        call()  # type: ignore[operator]


def test_none_of_the_libraries_is_imported() -> None:
    code = (
        "import sys; import phalanx.metrics as m; [getattr(m, name) for name in m.__all__]; "
        "print(sorted({'torch', 'pandas', 'polars', 'pyarrow', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
