"""What is trained: models by name, their losses, and text out of them. Torch is loaded with the first model built.

The catalogue alone, without torch even for a type checker: `phalanx.models.catalog`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from phalanx.models.catalog import MODELS, Entry, ModelConfig, UnknownModel, resolve

if TYPE_CHECKING:
    from phalanx.models.building import build
    from phalanx.models.decoder import Decoder
    from phalanx.models.encoder import Encoder
    from phalanx.models.generation import generate

_HOMES = {"build": "building", "Decoder": "decoder", "Encoder": "encoder", "generate": "generation"}
__all__ = [
    "MODELS",
    "Decoder",
    "Encoder",
    "Entry",
    "ModelConfig",
    "UnknownModel",
    "build",
    "generate",
    "resolve",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
