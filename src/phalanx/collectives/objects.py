"""Python objects as bytes that every rank can read without running anything: JSON, and only what JSON gives back alike.

None, bool, int, float, str, and lists and dicts (with str keys) of these. Anything else is refused with the place
where it stands; nothing is pickled.
"""

from __future__ import annotations

import json

import torch

from phalanx.collectives.errors import CollectiveError

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]


def encode(value: object, what: str) -> torch.Tensor:
    """As flat uint8. Raises CollectiveError naming `what` is done, and the place and type of what cannot be sent."""
    _refuse_others(value, what, "the object")
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def decode(data: torch.Tensor) -> Plain:
    value: Plain = json.loads(data.numpy().tobytes())
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
