"""Whether our models are those of transformers: random weights written by either, the same logits from both.

    python -m benchmarks parity [--write docs/parity.md] [--largest MILLIONS]

For every family, size and head: a model that transformers made and saved is read by us, and one of ours is read by
transformers; the table has the largest difference of any logit, in float32, on two texts of 64 tokens (two segments
for BERT). Sizes beyond `--largest` are named as left out.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from phalanx.models import MODELS, ModelConfig, resolve
from phalanx.models.huggingface import read_model, write_model
from phalanx.models.published import settings_of

TOLERANCE = 1e-5
LENGTH, ROWS = 64, 2
VOCABULARIES = {"bert": 30_522, "gpt2": 50_257, "llama": 32_000}
LABELS = ("a", "b", "c")
BERT_HEADS = {
    "masked-lm": transformers.AutoModelForMaskedLM,
    "pretraining": transformers.AutoModelForPreTraining,
    "next-sentence": transformers.AutoModelForNextSentencePrediction,
    "classify": transformers.AutoModelForSequenceClassification,
    "regress": transformers.AutoModelForSequenceClassification,
    "tag": transformers.AutoModelForTokenClassification,
}


@dataclass(frozen=True)
class Line:
    """One model and head. `there`: read by us what transformers wrote; `back`: the other way."""

    model: str
    head: str
    parameters: int
    there: float
    back: float

    @property
    def equal(self) -> bool:
        return max(self.there, self.back) <= TOLERANCE


def cases() -> Iterator[tuple[ModelConfig, Any]]:
    """Every published size with every head, beside the class of transformers that opens it."""
    for name, entry in MODELS.items():
        if entry.family not in VOCABULARIES:
            continue
        length = {"bert": 512, "gpt2": 1024, "llama": 2048}[entry.family]
        if entry.family != "bert":
            yield resolve(name, VOCABULARIES[entry.family], length, 0.0), transformers.AutoModelForCausalLM
            continue
        for head, kind in BERT_HEADS.items():
            base = resolve(name, VOCABULARIES["bert"], length, 0.0)
            labels = LABELS if head in ("classify", "tag") else ()
            yield ModelConfig(**{**base.to_dict(), "objective": head, "labels": labels}), kind


def parameters_of(config: ModelConfig) -> int:
    from phalanx.models import build

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(config).parameters())


@torch.no_grad()
def compared(config: ModelConfig, kind: Any, directory: Path) -> Line:
    settings = transformers.AutoConfig.for_model(**settings_of(config))
    torch.manual_seed(0)
    theirs = kind.from_config(settings).float().eval()
    theirs.save_pretrained(directory / "theirs")
    expected = their_logits(config, theirs)
    del theirs
    ours = read_model(directory / "theirs")
    parameters = sum(parameter.numel() for parameter in ours.parameters())
    there = float((our_logits(config, ours) - expected).abs().max())
    for parameter in ours.parameters():  # no longer what transformers wrote, norms and biases included
        parameter.add_(torch.empty_like(parameter).uniform_(-0.01, 0.01))
    write_model(ours, directory / "ours")
    expected = our_logits(config, ours)
    del ours
    gc.collect()
    again = kind.from_pretrained(directory / "ours").eval()
    back = float((their_logits(config, again) - expected).abs().max())
    return Line(config.name, config.objective, parameters, there, back)


def some_tokens(config: ModelConfig) -> Tensor:
    return torch.randint(config.vocabulary_size, (ROWS, LENGTH), generator=torch.Generator().manual_seed(2))


def segments() -> Tensor:
    return (torch.arange(LENGTH) >= LENGTH // 2).long().expand(ROWS, -1)


def our_logits(config: ModelConfig, model: Any) -> Tensor:
    tokens = some_tokens(config)
    if config.family != "bert":
        return model(tokens)  # type: ignore[no-any-return]
    everywhere = config.objective in ("masked-lm", "pretraining", "tag")
    places = torch.arange(ROWS * LENGTH) if everywhere else torch.arange(ROWS) * LENGTH
    batch = {"tokens": tokens, "document": torch.ones_like(tokens, dtype=torch.int32), "segments": segments()}
    found: Tensor = model.predict(batch | {"positions": places})
    if config.objective == "pretraining":
        second = model.next_sentence(batch | {"positions": torch.arange(ROWS) * LENGTH})
        return torch.cat([found.flatten(), second.flatten()])
    return found


def their_logits(config: ModelConfig, model: Any) -> Tensor:
    tokens = some_tokens(config)
    if config.family != "bert":
        return model(tokens).logits  # type: ignore[no-any-return]
    found = model(tokens, token_type_ids=segments())
    if config.objective == "pretraining":
        return torch.cat([found.prediction_logits.flatten(), found.seq_relationship_logits.flatten()])
    return found.logits.flatten(0, -2)  # type: ignore[no-any-return]


def document(lines: list[Line], left_out: list[str], command: str) -> str:
    rows = "\n".join(
        f"| {line.model} | {line.head} | {line.parameters:,} | {line.there:.1e} | {line.back:.1e} |" for line in lines
    )
    unequal = [f"{line.model} ({line.head})" for line in lines if not line.equal]
    verdict = f"All are within {TOLERANCE:.0e}." if not unequal else f"Beyond {TOLERANCE:.0e}: {', '.join(unequal)}."
    missing = f"\nLeft out as too large for the machine: {', '.join(dict.fromkeys(left_out))}." if left_out else ""
    return f"""# Parity with transformers

Random weights, the same tokens, the same logits: the largest difference of any logit in float32. *There*: written by
transformers {transformers.__version__}, read by us. *Back*: written by us, after every weight, norm and bias was
moved, and read by transformers.
{verdict}{missing}

```console
$ {command}
```

| model | head | parameters | there | back |
|---|---|---|---|---|
{rows}
"""


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks parity", description=__doc__)
    parser.add_argument("--write", type=Path, help="where the table goes [default: the terminal]")
    parser.add_argument("--largest", type=int, default=1600, help="millions of parameters [default: 1600]")
    options = parser.parse_args(given)
    transformers.utils.logging.disable_progress_bar()
    lines, left_out = [], []
    for config, kind in cases():
        if parameters_of(config) > options.largest * 1_000_000:
            left_out.append(config.name)
            continue
        with tempfile.TemporaryDirectory() as directory:
            line = compared(config, kind, Path(directory))
        lines.append(line)
        print(f"{line.model} {line.head}: {line.there:.1e} {line.back:.1e}", file=sys.stderr, flush=True)
    command = " ".join([".venv/bin/python -m benchmarks parity", *given])
    text = document(lines, left_out, command)
    if options.write:
        options.write.write_text(text, "utf-8")
    else:
        print(text)
    return 0 if all(line.equal for line in lines) else 1
