"""Python objects as bytes that every rank can read without running anything: JSON, and only what JSON gives back alike.

None, bool, int, float, str, and lists and dicts (with str keys) of these. Anything else is refused with the place
where it stands; nothing is pickled. Only the rank that has the object can see that, and the others are waiting for it:
so the refusal is sent in its stead, and raised by all.
"""

from __future__ import annotations

import json

import torch

from phalanx.collectives.errors import CollectiveError

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]


def encode(value: object, what: str) -> torch.Tensor:
    """As flat uint8: the object, or why it cannot be sent, naming `what` is done and the place and type of it."""
    try:
        _refuse_others(value, what, "the object")
        text = "+" + json.dumps(value)
    except CollectiveError as error:
        text = "-" + json.dumps([error.message, error.remedy])
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def decode(data: torch.Tensor) -> Plain:
    """Raises CollectiveError where the object could not be sent."""
    text = data.numpy().tobytes()
    value: Plain = json.loads(text[1:])
    if text[:1] == b"-" and isinstance(value, list):
        raise CollectiveError(str(value[0]), remedy=str(value[1]))
    return value


def _refuse_others(value: object, what: str, path: str) -> None:
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return
    if isinstance(value, list) and kind is list:
        for index, item in enumerate(value):
            _refuse_others(item, what, f"{path}[{index}]")
        return
    if isinstance(value, dict) and kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise CollectiveError(
                    f"{what}: a key of {path} is {key!r}, of type {type(key).__name__}", remedy="use str keys"
                )
            _refuse_others(item, what, f"{path}[{key!r}]")
        return
    raise CollectiveError(
        f"{what}: {path} is of type {kind.__module__}.{kind.__qualname__}",
        remedy="send None, bool, int, float, str, and lists and dicts of these; tensors by allgather or broadcast",
    )
