"""Translation by recurrent networks with additive attention and without, after the same processor time: BLEU by length.

German to English, 29,000 pairs of Multi30k; scored greedily on its 1,014 pairs for validation, cased, as they are
written. Both models are the catalogue's and differ in nothing else; a round trains both anew, with another seed, on one
thread, for as many processor seconds of steps (loading and updates included, preparation and scoring not). Draws BLEU
by length, and alignments.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.harness import Comparison, Options
from benchmarks.picture import svg
from phalanx.data import Corpus, Loader, LoaderSpec, prepare
from phalanx.evaluation import translation
from phalanx.job import DataSpec, VocabularySpec
from phalanx.job.spec import OptimizerSpec
from phalanx.models import build, resolve
from phalanx.pages.chart import Line, chart
from phalanx.pages.heat import HeatMap
from phalanx.training.loop import tensors
from phalanx.training.optimizers import make_optimizer

SECONDS, QUICK_SECONDS = 200.0, 10.0
MODELS = {"with attention": "rnn-attention", "without attention": "rnn-encoder-decoder"}
VOCABULARY, LENGTH, BATCH, RATE, WARMUP, CLIP = 4000, 64, 32, 8e-3, 0.05, 1.0
FEWEST = 5  # pairs of a length that is shown: of fewer BLEU says little
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Round:
    """What one model came to: `scores` and `examples` of `evaluation.translation`."""

    steps: int
    epochs: float
    scores: Any
    examples: list[dict[str, Any]]

    @property
    def notes(self) -> dict[str, Any]:
        found = self.scores.translation
        return {"steps": self.steps, "epochs": self.epochs, "nats per token": self.scores.loss, **found}


def run(options: Options, progress: Progress) -> list[Comparison]:
    """Raises MissingData."""
    sources = []
    for split in ("train", "val"):
        first, _ = (options.outside(f"text/multi30k_{split}.{side}.gz") for side in ("de", "en"))
        sources.append(str(first).replace(".de.gz", ".{de,en}.gz"))
    torch.set_num_threads(1)
    seconds = QUICK_SECONDS if options.quick else SECONDS
    found: dict[str, list[Round]] = {name: [] for name in MODELS}
    with tempfile.TemporaryDirectory(prefix="phalanx-bench-") as scratch:
        vocabulary = VocabularySpec(kind="bpe", size=VOCABULARY)
        spec = DataSpec(source=sources[0], held_out_source=sources[1], vocabulary=vocabulary)
        corpus = prepare(spec, "translate", Path(scratch))
        for seed in range(options.rounds):
            for name, model in MODELS.items():
                found[name].append(_round(model, corpus, seconds, seed))
                last = found[name][-1]
                progress(f"translation: {name}, seed {seed}: {last.steps:,} steps, BLEU {last.scores.model.value:.1f}")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "translation.svg").write_text(lengths_svg(found), "utf-8")
        (options.out / "alignments.svg").write_text(alignments_svg(found["with attention"][0].examples), "utf-8")
    settings = {"batch": BATCH, "vocabulary": VOCABULARY, "precision": "bf16", "optimizer": f"adamw, lr {RATE:g}"}
    return [
        Comparison(
            f"German to English after {seconds:.0f} processor seconds",
            "BLEU",
            {name: [each.scores.model.value for each in rounds] for name, rounds in found.items()},
            {name: {"model": model, **settings} for name, model in MODELS.items()},
            {name: [each.notes for each in rounds] for name, rounds in found.items()},
        )
    ]


def report(comparisons: list[Comparison]) -> str:
    """The table of the whole and by length, of the first round."""
    lines = []
    for comparison in comparisons:
        first = {name: comparison.notes[name][0] for name in MODELS}  # type: ignore[index]
        lines += [f"{comparison.name}, BLEU (chrF), first seed of {len(comparison.values['with attention'])}:", ""]
        lines += ["| words of the source | pairs | with attention | without |", "|---|---|---|---|"]
        whole = [f"{each['bleu']:.1f} ({each['chrf']:.1f})" for each in first.values()]
        pairs = sum(each["pairs"] for each in first["with attention"]["lengths"])
        lines.append(f"| all | {pairs:,} | {whole[0]} | {whole[1]} |")
        for ours, theirs in zip(*(each["lengths"] for each in first.values()), strict=True):
            words = f"{ours['from']} to {ours['to']}"
            lines.append(f"| {words} | {ours['pairs']:,} | {_cell(ours)} | {_cell(theirs)} |")
        lines.append("")
        for name, values in comparison.values.items():
            lines.append(f"{name}: {', '.join(f'{value:.1f}' for value in values)} BLEU by seed; {_pace(first[name])}")
    return "\n".join(lines)


def _cell(bucket: Mapping[str, Any]) -> str:
    error = "" if bucket["standard_error"] is None else f" ± {bucket['standard_error']:.1f}"
    return f"{bucket['bleu']:.1f}{error} ({bucket['chrf']:.1f})"


def _pace(notes: Mapping[str, Any]) -> str:
    return f"{notes['steps']:,} steps, {notes['epochs']:.1f} epochs, {notes['nats per token']:.3f} nats a token"


def _round(model: str, corpus: Corpus, seconds: float, seed: int) -> Round:
    module, steps = train(model, corpus, seconds, seed)
    scores, examples = translation.score(module, corpus, lambda stage, share: None)
    return Round(steps, steps * BATCH / (corpus.train.documents // 2), scores, examples)


def train(model: str, corpus: Corpus, seconds: float, seed: int) -> tuple[nn.Module, int]:
    """The model after steps of so many processor seconds, in eval mode, and their number. The learning rate falls in a
    line to 0 at the end of the time."""
    torch.manual_seed(seed)
    module = build(resolve(model, corpus.vocabulary.size, LENGTH))
    optimizer = make_optimizer(module, OptimizerSpec(lr=RATE))
    loader = Loader(corpus, LoaderSpec("translate", LENGTH, BATCH, seed))
    spent, step = 0.0, 0
    while spent < seconds:
        start = time.process_time()
        share = spent / seconds
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (share + 1e-3) / WARMUP) * (1 - share)
        (batch,) = tensors(loader.micro_batches(step, 0, 1, BATCH))
        with torch.autocast("cpu", torch.bfloat16):
            loss, count = module.loss(batch)  # type: ignore[operator]
        optimizer.zero_grad()
        (loss / count).backward()
        nn.utils.clip_grad_norm_(module.parameters(), CLIP)
        optimizer.step()
        step += 1
        spent += time.process_time() - start
    return module.eval(), step


def lengths_svg(found: Mapping[str, list[Round]]) -> str:
    """Mean BLEU of the seeds by the length of the source, after figure 2 of the paper."""
    lines = []
    for tone, (name, rounds) in enumerate(found.items(), start=1):
        buckets = zip(*(each.scores.translation["lengths"] for each in rounds), strict=True)
        points = [
            (each[0]["words"], float(np.mean([bucket["bleu"] for bucket in each])))
            for each in buckets
            if each[0]["pairs"] >= FEWEST
        ]
        lines.append(Line(name, tuple(points), tone, dots=True))
    made = chart(
        "BLEU", "by words of the source; blue: with attention, orange: without", lines, x_name="words", from_zero=True
    )
    assert made is not None, "there are lengths"
    return svg(made)


def alignments_svg(examples: list[dict[str, Any]]) -> str:
    """The first examples' alignments side by side, after figure 3 of the paper: a column is a word of the source."""
    maps = [
        HeatMap("", tuple(each["rows"]), tuple(each["columns"]), np.array(each["weights"], np.float32))
        for each in (example["alignment"] for example in examples if "alignment" in example)
    ]
    parts, x, gap = [], 0.0, 24.0
    for m in maps:
        parts.append(f'<g transform="translate({x:.1f} 0)">')
        parts.append(
            f'<rect x="{m.left:.1f}" y="{m.top:.1f}" width="{m.width}" height="{m.height}" fill="#fff" stroke="#ccc"/>'
        )
        place = f'x="{m.left:.1f}" y="{m.top:.1f}" width="{m.width}" height="{m.height}"'
        parts.append(f'<image href="{m.uri}" {place} preserveAspectRatio="none" style="image-rendering: pixelated"/>')
        for label in m.row_labels:
            at = f'x="{m.left - 6:.1f}" y="{m.top + label.at:.1f}"'
            parts.append(f'<text class="row" {at} dy="0.34em">{escape(label.text)}</text>')
        for label in m.column_labels:
            turned = f"translate({m.left + label.at:.1f} {m.top - 6:.1f}) rotate(-90)"
            parts.append(f'<text transform="{turned}" dy="0.34em">{escape(label.text)}</text>')
        parts.append("</g>")
        x += m.left + m.width + gap
    height = max((m.top + m.height for m in maps), default=0.0)
    style = "text { font: 12px ui-monospace, monospace; fill: #1d2127 } .row { text-anchor: end }"
    box = f'viewBox="0 0 {x:.0f} {height + 4:.0f}" width="{x:.0f}" height="{height + 4:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="alignments">'
    ground = '<rect width="100%" height="100%" fill="#fbfbf9"/>'
    return "\n".join([head, f"<style>{style}</style>", ground, *parts, "</svg>", ""])
