"""Small causal models with random weights that transformers made, and the same read by us."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers

from phalanx.models.causal import CausalModel
from phalanx.models.huggingface import read_model

VOCABULARY, LENGTH, PAD = 61, 64, 1
FAMILIES = ("gpt2", "gpt2-untied", "llama")


def _config(family: str) -> tuple[Any, Any]:
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": PAD}
    if family.startswith("gpt2"):
        sizes = {
            "n_positions": LENGTH,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "tie_word_embeddings": family == "gpt2",
        }
        return transformers.GPT2LMHeadModel, transformers.GPT2Config(vocab_size=VOCABULARY, **sizes, **ids)
    sizes = {"max_position_embeddings": LENGTH, "hidden_size": 32, "intermediate_size": 72, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return transformers.LlamaForCausalLM, transformers.LlamaConfig(vocab_size=VOCABULARY, **sizes, **heads, **ids)


@cache
def both(family: str) -> tuple[Any, CausalModel]:
    """transformers' model, and ours of its files; sure enough of themselves that rounding decides nothing."""
    kind, config = _config(family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = kind(config).eval()
        with torch.no_grad():
            for parameter in theirs.parameters():
                parameter.mul_(5)
    with TemporaryDirectory() as directory:
        theirs.save_pretrained(directory)
        ours = read_model(Path(directory))
    assert isinstance(ours, CausalModel)
    return theirs, ours


def written_by_transformers(
    family: str, prompts: list[list[int]], stop: tuple[int, ...], **options: Any
) -> list[tuple[int, ...]]:
    """What `transformers.generate` writes after the prompts, padded on the left: without what ends it."""
    theirs, _ = both(family)
    longest = max(map(len, prompts))
    missing = [longest - len(prompt) for prompt in prompts]
    tokens = torch.tensor([[PAD] * few + prompt for few, prompt in zip(missing, prompts, strict=True)])
    mask = torch.tensor([[0] * few + [1] * (longest - few) for few in missing])
    # An end that no token is, where there is to be none: the configuration's would be taken.
    ends = list(stop) or [VOCABULARY]
    with torch.no_grad():
        rows = theirs.generate(
            tokens, attention_mask=mask, do_sample=False, eos_token_id=ends, pad_token_id=PAD, **options
        )
    return [_until(row, stop) for row in rows[:, longest:].tolist()]


def _until(row: list[int], stop: tuple[int, ...]) -> tuple[int, ...]:
    ends = [place for place, token in enumerate(row) if token in stop]
    return tuple(row[: min(ends, default=len(row))])
