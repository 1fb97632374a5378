"""A model of labelled examples on those held out: what it called what, or how far off it is, beside plain baselines.

classify and tag are scored in right labels, regress in mean absolute errors. Baselines are fitted on the training
examples: the most frequent label (or the median), and a linear model of the tokens; for tags the most frequent one of
each word. The words of one sentence are alike: standard errors are of sentences.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from phalanx.data import Corpus, DataChanged, LoaderSpec, Split, open_corpus, prepare
from phalanx.data.examples import ExampleRows
from phalanx.data.labelled import OBJECTIVES
from phalanx.evaluation import bag_of_words
from phalanx.evaluation.classes import classes_report
from phalanx.evaluation.entities import entity_scores
from phalanx.evaluation.errors import NothingToPredict
from phalanx.evaluation.guesses import Guess, Guesses
from phalanx.evaluation.numbers import numbers_report
from phalanx.evaluation.predictions import predictions_of
from phalanx.evaluation.scores import MODEL, Answers, Scores, by_cluster, compare
from phalanx.evaluation.words import number_sentences
from phalanx.foundation import UsageError
from phalanx.job import VocabularySpec
from phalanx.metrics import MeanLoss
from phalanx.training import load_model

MAX_TOKENS_AT_ONCE = 8192
MAX_EXAMPLES = 50_000  # held-out ones that are judged: the first
_SHOWN = 200  # characters of a text
Progress = Callable[[str, float], None]
Logits = NDArray[np.float32]


def score(
    model: nn.Module, corpus: Corpus, spec: LoaderSpec, progress: Progress, found: Iterable[Logits] | None = None
) -> Scores:
    """Of `model` (`predict(batch)` to logits [M, labels], or numbers [M, 1]) on the corpus's held-out examples.

    `found`: its `answers`, if others have them already. Raises NothingToPredict, NotFinite.
    """
    rows = ExampleRows(corpus.held_out, corpus.vocabulary, spec)
    count = min(len(rows), MAX_EXAMPLES)
    truths, outputs = [], []
    done = 0
    for examples, logits in zip(
        _batches(rows, spec), found if found is not None else answers(model, corpus, spec), strict=True
    ):
        truths += [rows.example(index).targets for index in examples]
        outputs.append(logits)
        done += len(examples)
        progress("scoring", done / count)
    if not truths:
        raise NothingToPredict("there are no held-out examples", remedy="use more, or raise data.heldOut")
    sentence = np.repeat(np.arange(count), [len(each) for each in truths])
    judge = _judge_numbers if spec.objective == "regress" else _judge_labels
    return judge(corpus, spec, np.concatenate(truths), np.concatenate(outputs), sentence, progress)


def judge_file(
    run_dir: Path, file: Path, cache_dir: Path, progress: Progress = lambda stage, share: None
) -> dict[str, Any]:
    """What the newest good checkpoint of a run says of the examples in another file, labelled like those that it was
    trained on: the report that `evaluate` calls `labelled`.

    Raises UsageError for a model of another objective, DataChanged when the training examples are no longer those of
    the run, and what `load_model`, `prepare` and `score` raise.
    """
    loaded = load_model(run_dir)
    spec = loaded.job.spec
    if spec.model.objective not in OBJECTIVES:
        raise UsageError(
            f"a model that learned {spec.model.objective} knows no labels",
            where=str(run_dir),
            remedy=f"name a run with objective: {', '.join(OBJECTIVES)}",
        )
    trained = open_corpus(spec, cache_dir, progress, loaded.path.parent.parent / "data")
    if trained.vocabulary.to_json() != loaded.vocabulary.to_json():
        raise DataChanged(
            "the training examples have changed since the run", where=spec.data.source, remedy="train it again"
        )
    changes = {
        "held_out_source": str(file.absolute()),
        "vocabulary": VocabularySpec(path=str(loaded.path / "tokenizer.json")),
        "labels": trained.manifest.labels or None,
    }
    other = prepare(spec.data.model_copy(update=changes), spec.model.objective, cache_dir, progress)
    corpus = replace(other, train=trained.train)
    found = score(loaded.module, corpus, LoaderSpec.of(spec), progress).labelled
    assert found is not None, "labelled examples give a report"
    return {**found, "source": [str(file)]}


def answers(model: nn.Module, corpus: Corpus, spec: LoaderSpec, *, part: int = 0, parts: int = 1) -> Iterator[Logits]:
    """What the model says of each batch of held-out examples; of every `parts`th, from `part` on."""
    rows = ExampleRows(corpus.held_out, corpus.vocabulary, spec)
    for number, examples in enumerate(_batches(rows, spec)):
        if number % parts == part:
            batch = rows.collate([rows.example(index) for index in examples])
            with torch.inference_mode():
                arrays = {name: torch.from_numpy(array) for name, array in batch.arrays.items()}
                yield model.predict(arrays).float().numpy()  # type: ignore[operator]


def _batches(rows: ExampleRows, spec: LoaderSpec) -> Iterator[range]:
    size = max(1, MAX_TOKENS_AT_ONCE // spec.sequence_length)
    count = min(len(rows), MAX_EXAMPLES)
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def _judge_labels(
    corpus: Corpus, spec: LoaderSpec, truth: NDArray[Any], logits: Logits, sentence: NDArray[np.int64], report: Progress
) -> Scores:
    names = np.array(corpus.manifest.labels)
    count = int(sentence[-1]) + 1
    called = logits.argmax(1)
    sizes = np.bincount(sentence, minlength=count)
    report("counting", 0.0)
    guessed = _guesses_of_tags(corpus, spec) if spec.objective == "tag" else _guesses_of_labels(corpus, count)
    report("counting", 1.0)
    guess = Guess.of(torch.from_numpy(logits), torch.from_numpy(truth))
    costs = _costs(logits, truth)
    scores = compare(
        "accuracy",
        Answers(MODEL, by_cluster(sentence, called == truth, count)),
        [
            Answers(name, by_cluster(sentence, each[: len(truth)] == truth, count), note=note)
            for name, each, note in guessed
        ],
        sizes,
        loss=MeanLoss().update(costs, len(costs)).compute(),
        tokens=len(truth),
        split=_split(corpus, count, len(truth)),
        method=_method(corpus, spec, count),
    )
    sure = np.exp(-_costs(logits, called))
    found = classes_report(predictions_of(names[truth], sure, names[called], **_shown(corpus, spec, sentence)), ranks=1)
    document = found.to_dict() | {"words": found.sentences()}
    if spec.objective == "tag":
        document["entities"] = entity_scores(names[truth], names[called], sentence)
    return replace(scores, guesses=Guesses.of([guess], sentence, count).to_dict(), labelled=document)


def _judge_numbers(
    corpus: Corpus, spec: LoaderSpec, truth: NDArray[Any], outputs: Logits, example: NDArray[np.int64], report: Progress
) -> Scores:
    forecast, truth = outputs[:, 0].astype(np.float64), truth.astype(np.float64)
    train = corpus.train
    assert train.labels is not None
    report("counting", 0.0)
    linear, note = _linear(corpus, 0, len(truth))
    report("counting", 1.0)
    rivals = (("median of the training examples", np.median(train.labels), ""), ("bag of words", linear[:, 0], note))
    scores = compare(
        "mae",
        Answers(MODEL, np.abs(forecast - truth)),
        [Answers(name, np.abs(each - truth), note=note) for name, each, note in rivals],
        np.ones(len(truth), np.int64),
        loss=float(np.mean((forecast - truth) ** 2)),
        tokens=len(truth),
        split=_split(corpus, len(truth), len(truth)),
        method=_method(corpus, spec, len(truth)),
    )
    found = numbers_report(predictions_of(truth, prediction=forecast, **_shown(corpus, spec, example)))
    document = found.to_dict()
    return replace(scores, labelled=document | {"words": number_sentences(document)})


def _guesses_of_labels(corpus: Corpus, count: int) -> list[tuple[str, NDArray[np.int64], str]]:
    labels = corpus.train.labels
    assert labels is not None
    often = int(np.bincount(labels, minlength=len(corpus.manifest.labels)).argmax())
    linear, note = _linear(corpus, len(corpus.manifest.labels), count)
    return [("most frequent label", np.full(count, often), ""), ("bag of words", linear.argmax(1), note)]


def _linear(corpus: Corpus, classes: int, count: int) -> tuple[NDArray[np.float64], str]:
    """What the linear model says of the first `count` held-out examples, and on how few examples it was fitted."""
    train, texts, size = corpus.train, corpus.manifest.texts, corpus.vocabulary.size
    assert train.labels is not None
    some = min(len(train.labels), bag_of_words.MAX_EXAMPLES)
    features = bag_of_words.features_of(train, texts, size, some)
    fitted = bag_of_words.fit(features, np.asarray(train.labels[:some]), classes)
    note = f"fitted on the first {some:,} training examples" if some < len(train.labels) else ""
    return fitted.predict(bag_of_words.features_of(corpus.held_out, texts, size, count)), note


def _guesses_of_tags(corpus: Corpus, spec: LoaderSpec) -> list[tuple[str, NDArray[np.int64], str]]:
    """The most frequent tag, and that of each word by its tokens (the former for a word that training has not)."""
    counts: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    every: Counter[int] = Counter()
    for word, tag in _words(corpus.train, None):
        counts[word][tag] += 1
        every[tag] += 1
    often = min(every, key=lambda tag: (-every[tag], tag))
    best = {word: min(tags, key=lambda tag: (-tags[tag], tag)) for word, tags in counts.items()}
    room = spec.sequence_length - 2
    words = [best.get(word, often) for word, _ in _words(corpus.held_out, room)]
    alone = "most frequent tag of the word"
    return [("most frequent tag", np.full(len(words), often), ""), (alone, np.array(words, np.int64), "")]


def _words(split: Split, room: int | None) -> Iterator[tuple[tuple[int, ...], int]]:
    """Tokens and tag of each word that begins within the first `room` tokens of its sentence."""
    assert split.labels is not None
    for start, end in pairwise(split.offsets.tolist()):
        tokens, labels = split.tokens[start:end], np.asarray(split.labels[start:end])
        begins = np.flatnonzero(labels >= 0).tolist()
        for begin, until in pairwise([*begins, len(tokens)]):
            if room is None or begin < room:
                yield tuple(tokens[begin:until].tolist()), int(labels[begin])


def _shown(corpus: Corpus, spec: LoaderSpec, sentence: NDArray[np.int64]) -> dict[str, list[str]]:
    """Columns for the worst examples: where each is, and what it says."""
    vocabulary, split, texts = corpus.vocabulary, corpus.held_out, corpus.manifest.texts
    lines = corpus.names("held_out")
    said = []
    for example in range(int(sentence[-1]) + 1):
        parts = [
            vocabulary.decode(split.tokens[split.offsets[at] : split.offsets[at + 1]][: spec.sequence_length])
            for at in range(example * texts, (example + 1) * texts)
        ]
        said.append(" | ".join(part if len(part) <= _SHOWN else f"{part[:_SHOWN]} ..." for part in parts))
    return {"line": [lines[at] for at in sentence], "text": [said[at] for at in sentence]}


def _costs(logits: Logits, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """-log softmax(logits)[label] of each row, in nats."""
    wide = logits.astype(np.float64)
    wide -= wide.max(1, keepdims=True)
    costs: NDArray[np.float64] = np.log(np.exp(wide).sum(1)) - np.take_along_axis(wide, labels[:, None], 1)[:, 0]
    return costs


def _split(corpus: Corpus, examples: int, labels: int) -> dict[str, int]:
    held_out = corpus.manifest.held_out
    return {"files": held_out.files, "examples": examples, "labels": labels, "bytes": held_out.bytes}


def _method(corpus: Corpus, spec: LoaderSpec, examples: int) -> str:
    every = len(corpus.names("held_out"))
    which = "every held-out example" if examples == every else f"the first {examples:,} of {every:,} held-out examples"
    return f"{which}, cut to {spec.sequence_length} tokens as in training; baselines see the same training examples"


def more_numbers(document: Mapping[str, Any] | None) -> dict[str, float]:
    """What the report of labelled examples says beside the score, by the names of metrics; undefined ones left out."""
    if document is None:
        return {}
    if document["kind"] == "numbers":
        found = {name: document["numbers"][name]["value"] for name in ("rmse", "r2", "pearson", "spearman")}
    else:
        found = {"mcc": document["mcc"], "f1_macro": document["macro"]["f1"]}
        found["balanced_accuracy"] = document["balanced_accuracy"]
        if document.get("entities"):
            found["entity_f1"] = document["entities"]["f1"]
    return {name: value for name, value in found.items() if value is not None}
