"""Text out of GPT-2 and Llama shapes beside `transformers.generate`: the same weights, the same tokens.

Both sides write as many tokens after the same prompts, greedily or by beam search, with a cache, in float32, with one
thread, in one process that takes turns. Before anything is measured, all tokens must be equal. Speeds are given per
second of the wall and per second of processor time, which says more on a machine that others use too.
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Comparison, MissingData, NotEqual, Options, stopwatch
from phalanx.models import BeamSettings, GenerationSettings, ModelConfig, beam_search, generate, lay_out, resolve
from phalanx.models.building import build
from phalanx.models.catalog import Family
from phalanx.models.causal import CausalModel
from phalanx.models.huggingface import read_model, write_model

OURS, THEIRS = "phalanx", "transformers"
PROMPT = 32  # tokens
Texts = list[list[int]]


@dataclass(frozen=True)
class Case:
    """What is written: `rows` texts of `tokens` each, greedily (`beams` 1) or the best of a search."""

    name: str
    shape: str
    tokens: int
    rows: int = 1
    beams: int = 1


CASES = (
    Case("GPT-2 124M", "gpt2", 64),
    Case("GPT-2 124M, 8 texts", "gpt2", 32, rows=8),
    Case("GPT-2 124M, 4 beams", "gpt2", 32, beams=4),
    Case("4 layers x 128, 4,096 tokens", "small", 256),
    Case("4 layers x 128, 50,257 tokens", "small-50257", 256),
    Case("4 layers x 128, 8 texts", "small", 128, rows=8),
    Case("4 layers x 128, 4 beams", "small", 128, beams=4),
    Case("Llama, 4 layers x 128", "llama", 256),
)


def config_of(shape: str, quick: bool) -> ModelConfig:
    """GPT-2's smallest as published; 4 layers of 128 with 4 heads; the same as a Llama with 2 heads of keys."""
    if shape == "gpt2" and not quick:
        return resolve("gpt2", 50_257, 1024)
    family: Family = "llama" if shape == "llama" else "gpt2"
    return ModelConfig(
        shape,
        family,
        vocabulary_size=50_257 if shape == "small-50257" and not quick else 4096,
        sequence_length=1024,
        layers=4,
        hidden=128,
        heads=4,
        kv_heads=2 if family == "llama" else 4,
        feed_forward=352 if family == "llama" else 512,
        activation="silu" if family == "llama" else "gelu_tanh",
        tied=family == "gpt2",
    )


def models(config: ModelConfig, rows: int) -> tuple[CausalModel, Any]:
    """Ours with random weights, laid out for `rows`, and transformers' with the same."""
    import transformers

    with tempfile.TemporaryDirectory(prefix="phalanx-bench-") as scratch:
        directory = Path(scratch)
        torch.manual_seed(0)
        write_model(build(config), directory)
        theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(directory)
        ours = read_model(directory)
    assert isinstance(ours, CausalModel)
    lay_out(ours, rows)
    return ours, theirs.eval()


def ours_writes(model: CausalModel, prompts: Texts, case: Case) -> Texts:
    if case.beams > 1:
        found = beam_search(model, prompts, BeamSettings(beams=case.beams, max_tokens=case.tokens))
        return [list(hypotheses[0].tokens) for hypotheses in found]
    steps = list(generate(model, prompts, GenerationSettings(max_tokens=case.tokens, temperature=0)))
    return [[int(token) for token in text if token is not None] for text in zip(*steps, strict=True)]


def theirs_writes(model: Any, prompts: Texts, case: Case) -> Texts:
    tokens = torch.tensor(prompts)
    model.generation_config.eos_token_id = None  # no text ends early
    written = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=case.tokens,
        num_beams=case.beams,
        do_sample=False,
        pad_token_id=0,
    )
    texts: Texts = written[:, tokens.shape[1] :].tolist()
    return texts


def measure(case: Case, options: Options, progress: Callable[[str], None]) -> list[Comparison]:
    config = config_of(case.shape, options.quick)
    ours, theirs = models(config, case.rows * case.beams)
    draw = torch.Generator().manual_seed(1)
    prompts: Texts = torch.randint(config.vocabulary_size, (case.rows, PROMPT), generator=draw).tolist()
    sides: dict[str, Callable[[], Texts]] = {
        OURS: lambda: ours_writes(ours, prompts, case),
        THEIRS: lambda: theirs_writes(theirs, prompts, case),
    }
    if sides[OURS]() != sides[THEIRS]():  # the round that warms up
        raise NotEqual(f"{case.name}: the two sides wrote different tokens")
    wall: dict[str, list[float]] = {side: [] for side in sides}
    cpu: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(1 if options.quick else options.rounds):
        for side, write in sides.items():
            with stopwatch() as elapsed:
                write()
            wall[side].append(case.rows * case.tokens / elapsed.wall)
            cpu[side].append(case.rows * case.tokens / elapsed.cpu)
        progress(f"{case.name}: " + ", ".join(f"{side} {cpu[side][-1]:,.1f} tokens per CPU second" for side in sides))
    settings = {
        OURS: {"laid out for": case.rows * case.beams},
        THEIRS: {"cache": "DynamicCache", "attention": theirs.config._attn_implementation},
    }
    notes = {
        "parameters": f"{sum(parameter.numel() for parameter in theirs.parameters()):,}",
        "prompt": PROMPT,
        "written": case.tokens,
        "threads": 1,
        "equal tokens": True,
        "ms a step, ours and theirs": " and ".join(
            f"{1000 * case.rows / statistics.median(cpu[side]):.2f}" for side in sides
        ),
    }
    plain: dict[str, dict[str, object]] = {side: {} for side in sides}
    return [
        Comparison(case.name, "tokens per CPU second", cpu, settings, notes),
        Comparison(case.name, "tokens/s", wall, plain),
    ]


def run(options: Options, progress: Callable[[str], None]) -> list[Comparison]:
    if importlib.util.find_spec("transformers") is None:
        raise MissingData("needs transformers: `make bench` installs it")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cases = CASES[-3:] if options.quick else CASES
        return [comparison for case in cases for comparison in measure(case, options, progress)]
    finally:
        torch.set_num_threads(threads)
