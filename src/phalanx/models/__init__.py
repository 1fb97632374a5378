"""What is trained: models by name, their losses, text out of them, and Hugging Face's files in and out. Torch is loaded
with the first model built.

The catalogue alone, without torch even for a type checker: `phalanx.models.catalog`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phalanx.foundation import lazy_names
from phalanx.models.catalog import MODELS, Entry, ModelConfig, UnknownModel, resolve

if TYPE_CHECKING:
    from phalanx.models.beam import BeamSettings, Hypothesis, beam_search
    from phalanx.models.bert import Bert
    from phalanx.models.building import build
    from phalanx.models.decoder import Decoder
    from phalanx.models.generation import Generation, GenerationSettings, generate
    from phalanx.models.gpt2 import Gpt2
    from phalanx.models.layout import lay_out
    from phalanx.models.llama import Llama
    from phalanx.models.search import translate
    from phalanx.models.seq2seq import Seq2Seq

_HOMES = {
    "BeamSettings": "beam",
    "Bert": "bert",
    "Decoder": "decoder",
    "Generation": "generation",
    "GenerationSettings": "generation",
    "Gpt2": "gpt2",
    "Hypothesis": "beam",
    "Llama": "llama",
    "Seq2Seq": "seq2seq",
    "beam_search": "beam",
    "build": "building",
    "generate": "generation",
    "lay_out": "layout",
    "translate": "search",
}
__all__ = [
    "MODELS",
    "BeamSettings",
    "Bert",
    "Decoder",
    "Entry",
    "Generation",
    "GenerationSettings",
    "Gpt2",
    "Hypothesis",
    "Llama",
    "ModelConfig",
    "Seq2Seq",
    "UnknownModel",
    "beam_search",
    "build",
    "generate",
    "lay_out",
    "resolve",
    "translate",
]
__getattr__ = lazy_names(__name__, _HOMES)
