"""From a description to a module with fresh weights."""

from __future__ import annotations

from torch import nn

from phalanx.models.bert import Bert
from phalanx.models.catalog import ModelConfig, UnknownModel
from phalanx.models.decoder import Decoder
from phalanx.models.gpt2 import Gpt2
from phalanx.models.llama import Llama
from phalanx.models.seq2seq import Seq2Seq

_MAKERS: dict[str, type[nn.Module]] = {
    "bert": Bert,
    "decoder": Decoder,
    "gpt2": Gpt2,
    "llama": Llama,
    "seq2seq": Seq2Seq,
}


def build(config: ModelConfig) -> nn.Module:
    """A model in training mode, float32, its weights drawn from torch's default generator.

    Has `loss(batch) -> (sum, count)`: what it costs in nats (or squared errors) to predict what is asked, and how much
    that was. Makes no tensor with data under FakeTensorMode or on the meta device. Raises UnknownModel for a hidden
    size that its heads cannot share.
    """
    if config.hidden % config.heads and config.head_width * config.heads != config.hidden:
        raise UnknownModel(
            f"{config.name}: hidden {config.hidden} cannot be shared by {config.heads} heads",
            remedy="use a hidden size that is a multiple of the heads",
        )
    return _MAKERS[config.family](config)
