"""SST-2: a small BERT, pretrained and fine-tuned from scratch here, beside a bag-of-words logistic regression.

Everything sees the 6,920 training sentences and nothing else: BERT-Tiny is pretrained on them as a masked language
model and then fine-tuned; the same without pretraining; and scikit-learn's logistic regression of words and pairs of
words, whose penalty is chosen on the development sentences. BERT's jobs are run by `phalanx run`, pretraining once and
fine-tuning with another seed each round, one thread; processor seconds are those of the whole job, with its planning
and its evaluation. Accuracy is of the 1,821 test sentences, and of the 872 for development. And how many sentences a
processor second trains on, packed side by side as the loader packs them, and each in a row of its own.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import Comparison, Elapsed, Options, Side, compare, stopwatch, table
from phalanx.data import Row, open_data
from phalanx.data.examples import ExampleRows
from phalanx.evaluation.labelled import judge_file
from phalanx.job import Job
from phalanx.metrics.intervals import wilson
from phalanx.training.beginning import build_model, model_config

PRETRAINED, FRESH, REGRESSION = "BERT-Tiny, pretrained here", "BERT-Tiny, fine-tuned only", "logistic regression"
STEPS, QUICK_STEPS = (2000, 324), (30, 30)  # of pretraining and of fine-tuning: 3 epochs of 64 sentences a step
LENGTH = 64
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)  # C
Progress = Callable[[str], None]
Splits = Mapping[str, Path]


def run(options: Options, progress: Progress) -> list[Comparison]:
    """Raises MissingData."""
    files = {split: options.outside(f"text/sst2_{split}.tsv") for split in ("train", "dev", "test")}
    pretraining, tuning = QUICK_STEPS if options.quick else STEPS
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # one core, here and in all children: one thread
    torch.set_num_threads(1)
    values: dict[str, list[float]] = {PRETRAINED: [], FRESH: [], REGRESSION: []}
    notes: dict[str, Any] = {name: [] for name in values}
    with tempfile.TemporaryDirectory(prefix="phalanx-bench-") as name:
        scratch = Path(name)
        (scratch / "sentences").mkdir()
        for number, sentence in enumerate(_texts(files["train"])):  # a document each
            (scratch / "sentences" / f"{number:04}.txt").write_text(sentence + "\n")
        run_dir, took = _run(scratch, "pretraining", _pretraining(scratch / "sentences", pretraining))
        notes["pretraining"] = {"cpu_seconds": took.cpu, "steps": pretraining, **_masked(run_dir)}
        progress(f"sst2: pretrained in {took.cpu:.0f} CPU s: {notes['pretraining']}")
        for seed in range(options.rounds):
            for side, start in ((PRETRAINED, {"weights": str(run_dir)}), (FRESH, {})):
                vocabulary = {"path": str(run_dir)}  # the same for both
                job = _tuning(files, tuning, seed, vocabulary, start)
                tuned, took = _run(scratch, f"tuning-{len(values[side])}-{bool(start)}".lower(), job)
                found = {split: _judge(tuned, files[split], scratch) for split in ("dev", "test")}
                values[side].append(found["test"]["value"])
                notes[side].append(found | {"cpu_seconds": took.cpu})
                progress(f"sst2: {side}, seed {seed}: {_words(notes[side][-1])}")
        with stopwatch() as took:
            found = _regression(files)
        values[REGRESSION] = [found["test"]["value"]] * options.rounds  # nothing in it is drawn at random
        notes[REGRESSION].append(found | {"cpu_seconds": took.cpu})
        progress(f"sst2: {REGRESSION}: {_words(notes[REGRESSION][-1])}")
        settings: dict[str, dict[str, object]] = {name: {} for name in values}
        scores = Comparison("SST-2, test accuracy", "share", values, settings, notes)
        spec = _tuning(files, tuning, 0, {"path": str(run_dir)}, {})
        return [scores, _speeds(spec, scratch, options, progress)]


def _speeds(spec: dict[str, Any], scratch: Path, options: Options, progress: Progress) -> Comparison:
    """Sentences of training steps a processor second: forward, backward, no update."""
    job = Job.model_validate({"metadata": {"name": "speed"}, "spec": spec})
    data = open_data(job.spec, scratch / "home" / "cache")
    rows = ExampleRows(data.corpus.train, data.vocabulary, data.spec)  # type: ignore[attr-defined]
    module = build_model(job.spec, model_config(job.spec, data))
    steps, at_once = (2 if options.quick else 10), job.spec.training.global_batch

    def side(packed: bool) -> float:
        with stopwatch() as took:
            for step in range(steps):
                examples = [rows.example(index) for index in range(step * at_once, (step + 1) * at_once)]
                batch = rows.collate(examples).arrays if packed else _padded(rows, examples)
                total, count = module.loss({name: torch.from_numpy(array) for name, array in batch.items()})  # type: ignore[operator]
                (total / count).backward()
        return steps * at_once / took.cpu

    sides = [Side("packed", lambda: side(True)), Side("padded", lambda: side(False))]
    return compare("SST-2, training", "sentences/CPU s", sides, rounds=options.rounds, progress=progress)


def _padded(rows: ExampleRows, examples: list[Row]) -> dict[str, NDArray[Any]]:
    """Each example in a row as long as the model reads."""
    each = [rows.collate([example]).arrays for example in examples]
    width = LENGTH
    whole = {
        name: np.concatenate([np.pad(arrays[name], ((0, 0), (0, width - arrays[name].shape[1]))) for arrays in each])
        for name in ("tokens", "document", "segments")
    }
    positions = np.arange(len(each)) * width
    return whole | {"positions": positions, "labels": np.concatenate([arrays["labels"] for arrays in each])}


def report(comparisons: list[Comparison]) -> str:
    """A table in Markdown: a line for each side, its rounds' mean and the interval of one."""
    found, speeds = comparisons
    lines = [
        "| | dev accuracy | test accuracy | 95 % interval of one run | CPU seconds |",
        "|---|---|---|---|---|",
    ]
    for side in found.values:
        each: list[dict[str, Any]] = found.notes[side]  # type: ignore[assignment]
        dev, test = (sum(run[split]["value"] for run in each) / len(each) for split in ("dev", "test"))
        first = each[0]["test"]
        seconds = sum(run["cpu_seconds"] for run in each) / len(each)
        before = found.notes["pretraining"]["cpu_seconds"] if side == PRETRAINED else 0  # type: ignore[index]
        spent = f"{seconds:.0f}" + (f" + {before:.0f} once" if before else "")
        lines.append(f"| {side} | {dev:.1%} | {test:.1%} | {first['low']:.1%} to {first['high']:.1%} | {spent} |")
    lines.append(f"rounds: {len(found.notes[PRETRAINED])}")  # type: ignore[arg-type]
    return "\n".join([*lines, "", table([speeds])])


def _rows(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.reader(opened, delimiter="\t", quoting=csv.QUOTE_NONE))


def _texts(file: Path) -> list[str]:
    return [text for text, _ in _rows(file)]


def _pretraining(source: Path, steps: int) -> dict[str, Any]:
    return {
        "model": {"name": "bert-tiny", "objective": "masked-lm"},
        "data": {
            "source": str(source),
            "sequenceLength": LENGTH,
            "heldOut": 0.02,
            "vocabulary": {"kind": "wordpiece", "size": 4096},
        },
        "training": {
            "steps": steps,
            "globalBatch": 32,
            "microBatch": 32,
            "precision": "fp32",
            "optimizer": {"lr": 2e-3},
            "schedule": {"name": "linear", "warmup": min(100, steps // 2)},
            "evaluateEvery": max(1, steps // 4),
            "checkpointEvery": steps,
        },
    }


def _tuning(
    files: Splits, steps: int, seed: int, vocabulary: dict[str, Any], start: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "model": {"name": "bert-tiny", "objective": "classify", **start},
        "data": {
            "source": str(files["train"]),
            "heldOutSource": str(files["dev"]),
            "sequenceLength": LENGTH,
            "vocabulary": vocabulary,
        },
        "training": {
            "steps": steps,
            "globalBatch": 64,
            "microBatch": 64,
            "precision": "fp32",
            "seed": seed,
            "optimizer": {"lr": 1e-3},
            "schedule": {"name": "linear", "warmup": min(50, steps // 2)},
            "evaluateEvery": max(1, steps // 3),
            "checkpointEvery": steps,
        },
    }


def _run(scratch: Path, name: str, spec: dict[str, Any]) -> tuple[Path, Elapsed]:
    """Run a job to its report; its run directory, and the processor seconds of all its processes."""
    document = {"apiVersion": "phalanx.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}, "spec": spec}
    file = scratch / f"{name}.json"  # which is YAML too
    file.write_text(json.dumps(document))
    argv = [sys.executable, "-m", "phalanx", "run", str(file), "--home", str(scratch / "home"), "--json"]
    with stopwatch() as took:
        done = subprocess.run(argv, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    return Path(json.loads(done.stdout)["run_dir"]), took


def _masked(run_dir: Path) -> dict[str, Any]:
    document = json.loads((run_dir / "evaluation.json").read_text())
    return {"right_guesses_at_mask": document["model"]["value"], "strongest_table": document["strongest"]}


def _judge(run_dir: Path, file: Path, scratch: Path) -> dict[str, float]:
    accuracy = judge_file(run_dir, file, scratch / "home" / "cache")["accuracy"]
    return {name: accuracy[name] for name in ("value", "low", "high")}


def _regression(files: Splits) -> dict[str, Any]:
    """scikit-learn's, of words and pairs of words that occur; the penalty that is best on the development sentences."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    rows = {split: _rows(file) for split, file in files.items()}
    texts = {split: [text for text, _ in rows[split]] for split in rows}
    labels = {split: [label for _, label in rows[split]] for split in rows}
    counts = CountVectorizer(binary=True, ngram_range=(1, 2), token_pattern=r"\S+").fit(texts["train"])
    features = {split: counts.transform(texts[split]) for split in rows}
    fitted = {
        penalty: LogisticRegression(C=penalty, max_iter=2000).fit(features["train"], labels["train"])
        for penalty in PENALTIES
    }
    best = max(PENALTIES, key=lambda penalty: fitted[penalty].score(features["dev"], labels["dev"]))
    found: dict[str, Any] = {"C": best}
    for split in ("dev", "test"):
        right = (fitted[best].predict(features[split]) == labels[split]).sum()
        interval = wilson(float(right), len(labels[split]))
        found[split] = {"value": interval.value, "low": interval.low, "high": interval.high}
    return found


def _words(found: Mapping[str, Any]) -> str:
    each = (f"{split} {found[split]['value']:.1%}" for split in ("dev", "test"))
    return f"{', '.join(each)}; {found['cpu_seconds']:.0f} CPU s"
