"""One checkpoint, scored beside its baselines on the held-out text of the corpus it was trained on.

Always in float32. Knows what an evaluation consists of; how each kind of model is scored is `causal` and
`masked`, what a run directory is told `__main__`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.data import Corpus, DataChanged, LoaderSpec, open_corpus
from phalanx.data.labelled import OBJECTIVES as LABELLED
from phalanx.evaluation import causal, examples, labelled, masked, translation
from phalanx.evaluation.causal import Progress
from phalanx.evaluation.opening import check_directory
from phalanx.evaluation.ranks import answers_of_ranks
from phalanx.evaluation.scores import UNITS, Scores, as_dict
from phalanx.metrics import MeanLoss
from phalanx.training import LoadedModel, load_model

SCHEMA = 1
CHECKPOINTS, RECORD = "checkpoints", "data"


@dataclass(frozen=True)
class Evaluation:
    """`examples`: as `examples.py` makes them; `seconds`: it took."""

    loaded: LoadedModel
    scores: Scores
    examples: tuple[dict[str, Any], ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The document that the report reads; JSON-safe. `margin` is positive when the model is ahead."""
        scores = self.scores
        perplexity = math.inf if scores.metric == "mae" else MeanLoss().update([scores.loss], 1).perplexity
        return {
            "schema": SCHEMA,
            "job": self.loaded.job.metadata.model_dump(mode="json"),
            "checkpoint": {"path": str(self.loaded.path), "step": self.loaded.manifest.step},
            "objective": self.loaded.job.spec.model.objective,
            "metric": scores.metric,
            "split": dict(scores.split),
            "model": as_dict(scores.model) | {"name": self.loaded.job.spec.model.name, "loss": scores.loss},
            "baselines": [as_dict(score) for score in scores.baselines],
            "strongest": scores.strongest,
            "beats_strongest": scores.beats_strongest,
            "margin": scores.margin,
            "margin_standard_error": scores.margin_standard_error,
            "method": scores.method,
            "perplexity": perplexity if math.isfinite(perplexity) else None,
            "guesses": scores.guesses,
            "translation": scores.translation,
            "labelled": scores.labelled,
            "examples": list(self.examples),
            "seconds": self.seconds,
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows of the table `scores`."""
        scores = self.scores
        common = {"tokens": scores.tokens}
        own = common | {"model": self.loaded.job.spec.model.name, "is_baseline": False}
        metric = {"metric": scores.metric, "unit": UNITS[scores.metric]}
        yield own | metric | {"value": scores.model.value}
        yield own | {"metric": "loss", "unit": "nats/token", "value": scores.loss}
        for name, value in labelled.more_numbers(scores.labelled).items():
            yield own | {"metric": name, "unit": "", "value": value}
        if scores.translation is not None:
            yield own | {"metric": "chrf", "unit": "chrF", "value": scores.translation["chrf"]}
        if scores.guesses is not None:
            for name in ("top1", "top5"):
                if scores.metric not in (name, "accuracy"):
                    yield own | {"metric": name, "unit": "share", "value": scores.guesses[name]["value"]}
            calibration = {"metric": "expected_calibration_error", "value": scores.guesses["expected_error"]}
            yield own | calibration | {"unit": "share"}
        for score in scores.baselines:
            yield common | metric | {"model": score.name, "value": score.value, "is_baseline": True}


def evaluate(path: Path, cache_dir: Path, progress: Progress | None = None, ranks: int = 1) -> Evaluation:
    """Score a checkpoint, or the newest good one of a run directory; `cache_dir` holds prepared corpora. `ranks`:
    processes that the model is run on.

    `progress(stage, share)`: the stages of `data.prepare`, then `scoring`, `counting`, `writing`. Raises
    NotACheckpoint, DataChanged when the text is no longer that of the training, and the errors of
    `training.load_model`, `data.open_corpus`, `causal.score` and `masked.score`.
    """
    start = time.perf_counter()
    report = progress or (lambda stage, share: None)
    loaded = open_checkpoint(path)
    corpus = _corpus(loaded, cache_dir, report)
    spec = loaded.job.spec
    found = answers_of_ranks(find_answers, loaded.path, cache_dir, ranks, report) if ranks > 1 else None
    if spec.model.objective == "causal-lm":
        scores = causal.score(
            loaded.module, corpus, spec.data.sequence_length, report, found=found, cross=spec.data.cross_documents
        )
        shown = examples.continuations(loaded, corpus, report)
    elif spec.model.objective in LABELLED:
        scores, shown = labelled.score(loaded.module, corpus, LoaderSpec.of(spec), report, found=found), []
    elif spec.model.objective == "translate":
        scores, shown = translation.score(loaded.module, corpus, report, found=found)
    else:
        scores = masked.score(loaded.module, corpus, LoaderSpec.of(spec), report, found=found)
        shown = examples.masked_guesses(loaded, corpus, report)
    return Evaluation(loaded, scores, tuple(shown), time.perf_counter() - start)


def find_answers(path: Path, cache_dir: Path, part: int, parts: int) -> list[Any]:
    """Of every `parts`th piece of the held-out text, from `part` on, what `causal` or `masked` calls the answers."""
    loaded = open_checkpoint(path)
    corpus = _corpus(loaded, cache_dir, lambda stage, share: None)
    spec = loaded.job.spec
    if spec.model.objective == "causal-lm":
        cross = spec.data.cross_documents
        length = spec.data.sequence_length
        return list(causal.answers(loaded.module, corpus, length, cross=cross, part=part, parts=parts))
    if spec.model.objective in LABELLED:
        return list(labelled.answers(loaded.module, corpus, LoaderSpec.of(spec), part=part, parts=parts))
    if spec.model.objective == "translate":
        return list(translation.answers(loaded.module, corpus, part=part, parts=parts))
    return list(masked.answers(loaded.module, corpus, LoaderSpec.of(spec), part=part, parts=parts))


def open_checkpoint(path: Path) -> LoadedModel:
    """The model of a checkpoint, or of the newest good one of a run or checkpoints directory.

    Damaged newer ones are logged and passed over. Raises NotACheckpoint when `path` is no directory,
    TrainingError when it holds no checkpoint, CheckpointDamaged for a damaged one named by itself.
    """
    check_directory(path)
    return load_model(path)


def _corpus(loaded: LoadedModel, cache_dir: Path, progress: Progress) -> Corpus:
    """The corpus that the run began with; of a checkpoint away from its run, the one its job describes."""
    spec = loaded.job.spec
    record = loaded.path.parent.parent / RECORD
    corpus = open_corpus(spec, cache_dir, progress, record)
    if corpus.vocabulary.to_json() != loaded.vocabulary.to_json():
        raise DataChanged(
            "the text is not that of the training: it gives another vocabulary than the checkpoint's",
            where=spec.data.name,
            remedy="bring the text back as it was, or evaluate where the run lies",
        )
    return corpus
