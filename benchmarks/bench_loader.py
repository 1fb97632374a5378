"""Reading 10 GB for training beside torch's DataLoader: rows a CPU second, the time that a step waits, and memory.

The dataset is generated straight through the writer, 5 * 10^9 tokens in documents of 600 on average, in TMPDIR, and
deleted afterwards. Both sides read the same files, shuffled over all of them. Ours gives rows of whole documents with
end marks, the same for any number of ranks, from any place on; the peer gives windows.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.harness import Comparison, MissingData, Options, Side, compare, stopwatch
from benchmarks.side_loader import AHEAD, Orders, ask
from phalanx.data import Dataset, DatasetWriter, Vocabulary
from phalanx.data.vocabulary import SPECIALS

OURS, THEIRS, MASKED = "phalanx", "torch", "phalanx, masked"
BYTES, QUICK_BYTES = 10 * 10**9, 20 * 10**6
MEAN_TOKENS, ENTRIES = 600, 30_522
BLOCK = 1 << 24
Progress = Callable[[str], None]


def vocabulary() -> Vocabulary:
    """As many entries as BERT's, with the special tokens of both objectives."""
    from tokenizers import AddedToken, Tokenizer, models

    special = [*SPECIALS["masked-lm"], *SPECIALS["causal-lm"]]
    names = [*special, *(f"w{number}" for number in range(ENTRIES - len(special)))]
    tokenizer = Tokenizer(models.WordPiece(vocab={name: id_ for id_, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
    return Vocabulary(tokenizer)


def generate(directory: Path, size: int) -> Dataset:
    """Random tokens (a block of them over and over) in documents of random lengths."""
    draw, made = np.random.default_rng(0), vocabulary()
    block = draw.integers(len(SPECIALS["masked-lm"]) + 1, ENTRIES, BLOCK).astype(made.dtype)
    with DatasetWriter(directory, made) as writer:
        left = size // made.dtype.itemsize
        while left > 0:
            lengths = draw.geometric(1 / MEAN_TOKENS, max(1, min(left, BLOCK) // MEAN_TOKENS))
            lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), BLOCK))]
            writer.add_all("train", block[: lengths.sum()], lengths, 5 * lengths)
            left -= int(lengths.sum())
        writer.add("held_out", block[:1000], 5000)
        writer.finish()
    return Dataset.open(directory)


def run(options: Options, progress: Progress) -> list[Comparison]:
    """Raises MissingData when the disk has no room."""
    size = QUICK_BYTES if options.quick else BYTES
    with tempfile.TemporaryDirectory(prefix="phalanx-bench-") as scratch:
        if shutil.disk_usage(scratch).free < 1.5 * size:
            raise MissingData(f"needs {1.5 * size / 1e9:.0f} GB in {scratch}: set TMPDIR to where there is room")
        with stopwatch() as writing:
            data = generate(Path(scratch) / "data", size)
        tokens = data.train.tokens
        progress(f"loader: wrote {tokens:,} tokens in {writing.cpu:.0f} CPU s")
        with stopwatch() as opening:
            Dataset.open(data.directory)
        facts: dict[str, object] = {
            "documents": len(data.train),
            "tokens": tokens,
            "shards": len(data.train.shards),
            "written, GB a CPU second": round(size / 1e9 / writing.cpu, 3),
            "opened, CPU s": round(opening.cpu, 3),
        }
        steps = 20 if options.quick else 400
        orders = Orders("rows", OURS, str(data.directory), 128, 64, steps)
        return [
            _rows(orders, options, facts, progress),
            _rows(replace(orders, sequence_length=1024, global_batch=16), options, {}, progress),
            _wait(replace(orders, what="wait", sequence_length=1024, global_batch=32), options, progress),
            _memory(replace(orders, what="memory", sequence_length=1024, global_batch=64), data, options, progress),
        ]


def _rows(orders: Orders, options: Options, facts: dict[str, object], progress: Progress) -> Comparison:
    first: dict[str, float] = {}

    def measure(name: str, given: Orders) -> Side:
        def once() -> float:
            answer = ask(given)
            first[f"{name}: first batch, CPU s"] = round(answer["first batch, CPU s"], 2)
            return answer["rows"]

        return Side(name, once)

    sides = [
        measure(OURS, orders),
        measure(THEIRS, replace(orders, side=THEIRS)),
        measure(MASKED, replace(orders, objective="masked-lm")),
    ]
    name = f"loader, rows of {orders.sequence_length:,} tokens"
    found = compare(name, "rows/CPU s", sides, rounds=options.rounds, progress=progress)
    return replace(found, notes={**facts, **first})


def _wait(orders: Orders, options: Options, progress: Progress) -> Comparison:
    worst: dict[str, float] = {}

    def measure(name: str, given: Orders) -> Side:
        def once() -> float:
            answer = ask(given)
            worst[f"{name}: median"] = round(answer["p50"], 3)
            worst[f"{name}: longest"] = round(max(answer["max"], worst.get(f"{name}: longest", 0.0)), 3)
            return answer["p99"]

        return Side(name, once)

    sides = [
        measure(OURS, orders),
        measure(THEIRS, replace(orders, side=THEIRS)),
        measure(MASKED, replace(orders, objective="masked-lm")),
    ]
    name = f"loader, a step of {orders.step_ms:.0f} ms waits, 99th percentile"
    found = compare(name, "ms", sides, rounds=options.rounds, warmup=0, progress=progress)
    rows = f"{orders.global_batch} of {orders.sequence_length:,} tokens, {AHEAD} steps ahead, one process"
    return replace(found, notes={"rows": rows, "steps": orders.steps, **worst})


def _memory(orders: Orders, data: Dataset, options: Options, progress: Progress) -> Comparison:
    """Ours goes through a whole epoch as one rank of 64: past every document, and through a 64th of them."""
    whole = replace(orders, global_batch=64 * orders.global_batch, world=64)
    whole = replace(whole, steps=-(-data.train.tokens // (whole.global_batch * whole.sequence_length)))
    ours = ask(whole)
    progress(f"loader: memory: {ours}")
    theirs = ask(replace(orders, side=THEIRS))
    progress(f"loader: memory of the peer: {theirs}")
    values = {OURS: [ours["end"]], THEIRS: [theirs["end"]]}
    notes = {
        "early": round(ours["early"], 1),
        "epochs": round(ours["epochs"], 3),
        "torch": "its own part, about 150 MiB",
    }
    return Comparison("loader, memory of its own", "MiB RssAnon", values, {OURS: {}, THEIRS: {}}, notes)
