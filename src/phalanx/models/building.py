"""From a description to a module with fresh weights."""

from __future__ import annotations

from torch import nn

from phalanx.models.catalog import ModelConfig
from phalanx.models.decoder import Decoder
from phalanx.models.encoder import Encoder


def build(config: ModelConfig) -> nn.Module:
    """A model in training mode, float32, its weights drawn from torch's default generator.

    Has `loss(batch) -> (sum over predicted tokens in nats, their number)`. Makes no tensor with data under
    FakeTensorMode or on the meta device.
    """
    return Decoder(config) if config.family == "decoder" else Encoder(config)
