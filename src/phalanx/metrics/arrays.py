"""What a metric is fed, as numpy arrays: lists, numpy, Arrow, pandas, polars and torch, none of the last four imported.

What cannot be meant is refused here, with its name, how often it occurs and where first.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics.errors import BadInput

ArrayLike = Any
"""A list, or an array or column of numpy, Arrow, pandas, polars or torch."""


def array(name: str, data: ArrayLike) -> NDArray[Any]:
    """As numpy, of any shape. Raises BadInput for what is missing in it (null, None), or is no array."""
    if hasattr(data, "detach"):  # torch: also on another device, with a gradient, or of a type that numpy lacks
        data = data.detach().cpu()
        if str(data.dtype) == "torch.bfloat16":
            data = data.float()
        return np.asarray(data.numpy())
    if hasattr(data, "null_count"):  # Arrow and polars keep what is missing apart
        nulls = data.null_count() if callable(data.null_count) else data.null_count
        if isinstance(nulls, int) and nulls:
            missing = data.is_null().to_numpy(zero_copy_only=False) if _is_arrow(data) else data.is_null().to_numpy()
            raise _refused(name, np.asarray(missing), "has no value (null)")
    if hasattr(data, "isna") and hasattr(data, "to_numpy"):
        missing = np.asarray(data.isna().to_numpy())
        if missing.any() and not _is_float(data):  # of floats it is NaN, for whoever minds
            raise _refused(name, missing, "has no value (NA)")
    if hasattr(data, "to_numpy"):
        found = np.asarray(_to_numpy(data))
    else:
        try:
            found = np.asarray(data)
        except ValueError as error:
            raise BadInput(f"{name} is no array: {error}", remedy="give rows of equal length") from None
    if found.dtype == object:
        return _of_objects(name, found)
    return found


def column(name: str, data: ArrayLike) -> NDArray[Any]:
    """As numpy, [n]; [n, 1] is taken for it."""
    found = array(name, data)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1:
        raise BadInput(f"{name} has the shape {found.shape}, not [n]", remedy="give one value for each example")
    return found


def scores(name: str, data: ArrayLike) -> NDArray[Any]:
    """Float32 or float64 [n], finite: how much of a needle each example is, higher is more."""
    found = column(name, data)
    return finite(name, floats(name, found))


def floats(name: str, found: NDArray[Any]) -> NDArray[Any]:
    """As float32 where it is that or narrower, else float64. Raises BadInput for what is no number."""
    if found.dtype in (np.float32, np.float64):
        return found
    if found.dtype == np.float16:
        return found.astype(np.float32)
    if found.dtype.kind not in "iubf":
        raise BadInput(f"{name} holds {_kind(found)}, not numbers")
    return found.astype(np.float64)


def finite(name: str, found: NDArray[Any]) -> NDArray[Any]:
    """Itself. Raises BadInput with the count of NaN and infinities and the first of them."""
    with np.errstate(over="ignore", invalid="ignore"):
        fine = np.isfinite(found.sum())  # one bad number spoils a sum, which costs less than looking at each
    if not fine and not np.isfinite(found).all():
        bad = ~np.isfinite(found)
        raise _refused(name, bad, f"is {found[bad].flat[0]}, not a finite number")
    return found


def weights(data: ArrayLike | None, length: int, name: str = "sample_weight") -> NDArray[np.float64] | None:
    """Float64 [length], finite and not negative; None for None. Their total is looked at when something is computed."""
    if data is None:
        return None
    found = finite(name, floats(name, column(name, data))).astype(np.float64, copy=False)
    same_length(**{"y_true": length, name: len(found)})
    if (found < 0).any():
        raise _refused(name, found < 0, f"is negative ({found[found < 0][0]:g})")
    return found


def weights_as_made(data: ArrayLike | None, length: int, weighted: bool) -> NDArray[np.float64] | None:
    """`weights` of a state that was made `weighted`, or None of one that was not. Raises BadInput for the other."""
    found = weights(data, length, "weights")
    if (found is not None) != weighted:
        raise BadInput(
            f"weights are {'given' if found is not None else 'missing'}, but this state was made "
            f"{'without' if found is not None else 'with'} them",
            remedy="make it with weighted=True, and give them with every batch, or give none",
        )
    return found


def needles(name: str, data: ArrayLike, positive: object = None) -> NDArray[np.bool_]:
    """Bool [n]: which examples are needles. `positive`: the label that says so; without it 1 and True do, beside 0
    (or -1) and False. Raises BadInput for other labels."""
    found = column(name, data)
    if positive is not None:
        return np.asarray(found == positive, np.bool_)
    if found.dtype == np.bool_:
        return found
    if found.dtype.kind not in "iuf":
        raise BadInput(f"{name} holds {_kind(found)}: which label is the needle?", remedy="name it: positive=...")
    yes: NDArray[np.bool_] = np.asarray(found == 1)
    strange = ~(yes | (found == 0) | (found == -1))
    if strange.any():
        raise _refused(
            name, strange, f"is {found[strange][0]!s}, neither 0 nor 1", remedy="name the needle: positive=..."
        )
    return yes


def labels(name: str, data: ArrayLike) -> NDArray[Any]:
    """Truths, signed integers, finite floats or words [n]: the class of each example. Raises BadInput for others."""
    found = column(name, data)
    if not len(found):
        return found
    if found.dtype.kind in "iu":
        high = np.iinfo(np.int64).max
        if found.dtype == np.uint64 and found.max() > high:
            raise _refused(name, found > high, f"is {found[found > high][0]}, beyond 64 bits with a sign")
        return found if found.dtype.kind == "i" else found.astype(np.int64)
    if found.dtype.kind == "f":
        return finite(name, found)
    if found.dtype.kind not in "bU":
        raise BadInput(f"{name} holds {_kind(found)}, not labels", remedy="give words or whole numbers, of one kind")
    return found


def indicators(name: str, data: ArrayLike) -> NDArray[np.bool_]:
    """Bool [n, labels]: which labels each example has, of 0 and 1 or truths; sparse matrices are filled up."""
    found = array(name, data.toarray() if hasattr(data, "toarray") else data)
    if found.ndim != 2:
        raise BadInput(f"{name} has the shape {found.shape}, not [n, labels]", remedy="give a 0 or 1 for each label")
    if found.dtype == np.bool_:
        return found
    if found.dtype.kind not in "iuf":
        raise BadInput(f"{name} holds {_kind(found)}, not 0 and 1")
    yes: NDArray[np.bool_] = np.asarray(found == 1)
    strange = ~(yes | (found == 0))
    if strange.any():
        raise _refused(name, strange, f"is {found[strange][0]!s}, neither 0 nor 1")
    return yes


def same_length(**lengths: int) -> None:
    """Raises BadInput when they differ."""
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"{name} has {length:,}" for name, length in lengths.items())
        raise BadInput(f"there must be as many of each: {each}")


def _refused(name: str, bad: NDArray[Any], what: str, remedy: str = "") -> BadInput:
    first = tuple(int(index[0]) for index in np.nonzero(bad))
    place = first[0] if len(first) == 1 else list(first)
    return BadInput(f"{name}[{place}] {what}; {int(bad.sum()):,} of {bad.size:,} do not do", remedy=remedy)


def _to_numpy(data: Any) -> Any:
    if _is_arrow(data) and not hasattr(data, "num_chunks") and not hasattr(data, "column_names"):
        return data.to_numpy(zero_copy_only=False)
    if hasattr(data, "column_names") and hasattr(data, "itercolumns"):  # Arrow's table
        return np.column_stack([column.to_numpy() for column in data.itercolumns()])
    return data.to_numpy()


def _is_arrow(data: object) -> bool:
    return type(data).__module__.partition(".")[0] == "pyarrow"


def _is_float(data: Any) -> bool:
    kind: Literal["f"] | Any = getattr(getattr(data, "dtype", None), "kind", "")
    return bool(kind == "f")


def _of_objects(name: str, found: NDArray[Any]) -> NDArray[Any]:
    """Objects that are all words, truths or numbers, as an array of these."""
    kinds = {type(each) for each in found.flat}
    if type(None) in kinds:
        raise _refused(name, np.vectorize(lambda each: each is None, otypes=[bool])(found), "has no value (None)")
    if kinds <= {str}:
        return found.astype(str)
    if kinds and all(issubclass(kind, (bool, np.bool_)) for kind in kinds):
        return found.astype(np.bool_)
    if kinds and all(issubclass(kind, (int, float, np.number, bool, np.bool_)) for kind in kinds):
        return np.array(found.tolist())
    if any(issubclass(kind, (list, tuple, np.ndarray)) for kind in kinds):
        raise BadInput(f"{name} has rows of different lengths, or rows in a column")
    return found


def _kind(found: NDArray[Any]) -> str:
    return {"U": "words", "S": "bytes", "b": "truths", "c": "complex numbers", "M": "times"}.get(
        found.dtype.kind, f"values of the type {found.dtype}"
    )
