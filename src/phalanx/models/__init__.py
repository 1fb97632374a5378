"""What is trained: models by name, their losses, and text out of them. Torch is loaded with the first model built.

The catalogue alone, without torch even for a type checker: `phalanx.models.catalog`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phalanx.foundation import lazy_names
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
__getattr__ = lazy_names(__name__, _HOMES)
