"""What is trained: models by name, their losses, text out of them, and Hugging Face's files in and out. Torch is loaded
with the first model built.

The catalogue alone, without torch even for a type checker: `phalanx.models.catalog`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phalanx.foundation import lazy_names
from phalanx.models.catalog import MODELS, Entry, ModelConfig, UnknownModel, resolve

if TYPE_CHECKING:
    from phalanx.models.bert import Bert
    from phalanx.models.building import build
    from phalanx.models.decoder import Decoder
    from phalanx.models.generation import generate
    from phalanx.models.gpt2 import Gpt2
    from phalanx.models.llama import Llama

_HOMES = {
    "Bert": "bert",
    "Decoder": "decoder",
    "Gpt2": "gpt2",
    "Llama": "llama",
    "build": "building",
    "generate": "generation",
}
__all__ = [
    "MODELS",
    "Bert",
    "Decoder",
    "Entry",
    "Gpt2",
    "Llama",
    "ModelConfig",
    "UnknownModel",
    "build",
    "generate",
    "resolve",
]
__getattr__ = lazy_names(__name__, _HOMES)
