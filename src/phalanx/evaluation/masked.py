"""Top-1 of an encoder at [MASK] positions of held-out text, beside tables of neighbouring tokens.

Rows and masks are those of the loader, with a seed of evaluation's own, so that every checkpoint meets
the same ones. Only places that show [MASK] count: of the others the model sees a token. The tables are
given the same masked rows; one more is shown the true neighbours, which the model is not: a reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from phalanx.data import Batch, Corpus, Loader, LoaderSpec
from phalanx.evaluation.guesses import Guess, Guesses
from phalanx.evaluation.neighbours import NeighbourTables
from phalanx.evaluation.scores import MODEL, TABLE_SYMBOLS, Answers, Scores, beginning, by_cluster, compare, row_count
from phalanx.metrics import MeanLoss

SEED = 20_181_011  # the day BERT's paper appeared: any fixed number does
MAX_TOKENS = 400_000
Progress = Callable[[str, float], None]
Answer = tuple[NDArray[np.int64], NDArray[np.float64], Guess]


@dataclass(frozen=True)
class Places:
    """[MASK] positions of one batch. `flat`: into the flattened tokens; neighbours as shown and as they are."""

    flat: NDArray[np.int64]
    targets: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    true_left: NDArray[np.int64]
    true_right: NDArray[np.int64]

    @classmethod
    def of(cls, arrays: dict[str, NDArray[np.int64]], mask_id: int) -> Places:
        """Every position has neighbours: a row begins with [CLS], and a document ends with [SEP]."""
        shown = arrays["tokens"].ravel()
        true = shown.copy()
        true[arrays["positions"]] = arrays["targets"]
        hidden = shown[arrays["positions"]] == mask_id
        at = arrays["positions"][hidden]
        return cls(at, arrays["targets"][hidden], shown[at - 1], shown[at + 1], true[at - 1], true[at + 1])


def score(
    model: nn.Module,
    corpus: Corpus,
    spec: LoaderSpec,
    progress: Progress,
    max_tokens: int = MAX_TOKENS,
    found: Iterable[Answer] | None = None,
) -> Scores:
    """Of `model` (`predict(tokens, document, positions)` to logits [M, V]) on the corpus's held-out text. `found`: its
    `answers`, if others have them already.

    Raises NothingToPredict, NotFinite; TextTooSmall when the training text is smaller than a batch.
    """
    loader = Loader(corpus, replace(spec, seed=SEED))
    total = min(loader.held_out_rows, max(1, max_tokens // spec.sequence_length))
    tables = _tables(corpus)
    hits: dict[str, list[NDArray[np.float64]]] = {name: [] for name in (MODEL, *_GUESSES)}
    sizes, losses, tokens, done = [], [], 0, 0
    made: list[Guess] = []
    rows_of: list[NDArray[np.int64]] = []
    answered = found if found is not None else answers(model, corpus, spec, max_tokens)
    for batch, (best, cost, guess) in zip(_batches(loader, corpus, spec, max_tokens), answered, strict=True):
        places = Places.of(batch.arrays, _mask_id(corpus))
        row = places.flat // spec.sequence_length
        count = len(batch.arrays["tokens"])
        made.append(guess)
        rows_of.append(row + done)
        guesses = {MODEL: best} | {name: guess(tables, places) for name, guess in _GUESSES.items()}
        for name, guessed in guesses.items():
            hits[name].append(by_cluster(row, guessed == places.targets, count))
        sizes.append(np.bincount(row, minlength=count))
        losses.append(by_cluster(row, cost, count))
        tokens, done = tokens + batch.real_tokens, done + count
        progress("scoring", done / total)
    by_row = {name: np.concatenate([*parts, np.empty(0)]) for name, parts in hits.items()}
    predicted = np.concatenate([*sizes, np.empty(0, np.int64)])
    note = "" if beginning(corpus.train, TABLE_SYMBOLS) is corpus.train else "counted on the first of the training text"
    held_out = corpus.manifest.held_out
    split = {"files": held_out.files, "tokens": tokens, "masked": int(predicted.sum())}
    scores = compare(
        "top1",
        Answers(MODEL, by_row.pop(MODEL)),
        [Answers(name, found, name == UNMASKED, note) for name, found in by_row.items()],
        predicted,
        loss=MeanLoss().update(np.concatenate([*losses, np.empty(0)]), int(predicted.sum())).compute(),
        tokens=int(predicted.sum()),
        split=split | ({"bytes": held_out.bytes} if done == loader.held_out_rows else {}),
        method=(
            f"{spec.mask_probability:.0%} of the tokens are chosen as in training and counted where [MASK] is shown; "
            "tables are given the same masked text"
        ),
    )
    return replace(scores, guesses=Guesses.of(made, np.concatenate(rows_of), done).to_dict())


def answers(
    model: nn.Module,
    corpus: Corpus,
    spec: LoaderSpec,
    max_tokens: int = MAX_TOKENS,
    *,
    part: int = 0,
    parts: int = 1,
) -> Iterator[Answer]:
    """Of each batch the best guesses, the nats of the truth and how the two compare; of every `parts`th, from `part`
    on."""
    loader = Loader(corpus, replace(spec, seed=SEED))
    for number, batch in enumerate(_batches(loader, corpus, spec, max_tokens)):
        if number % parts == part:
            yield _answers_of_model(model, batch.arrays, Places.of(batch.arrays, _mask_id(corpus)))


def _batches(loader: Loader, corpus: Corpus, spec: LoaderSpec, max_tokens: int) -> Iterator[Batch]:
    rows = row_count(round(spec.sequence_length * spec.mask_probability) * corpus.vocabulary.size)
    return loader.validation_batches(max_tokens, rows)


def _mask_id(corpus: Corpus) -> int:
    assert corpus.vocabulary.mask_id is not None, "a masked corpus has [MASK]"
    return corpus.vocabulary.mask_id


def _answers_of_model(model: nn.Module, arrays: dict[str, NDArray[np.int64]], places: Places) -> Answer:
    """The best guess, the nats of the truth, and how the two compare, at each place."""
    with torch.inference_mode():
        batch = {name: torch.from_numpy(arrays[name]) for name in ("tokens", "document")}
        logits: torch.Tensor = model.predict({**batch, "positions": torch.from_numpy(places.flat)})  # type: ignore[operator]
        targets = torch.from_numpy(places.targets)
        cost = F.cross_entropy(logits, targets, reduction="none")
        return logits.argmax(1).numpy(), cost.double().numpy(), Guess.of(logits, targets)


UNMASKED = "both neighbours, unmasked context"
_GUESSES: dict[str, Callable[[NeighbourTables, Places], NDArray[np.int64]]] = {
    "most frequent token": lambda tables, places: np.full(len(places.flat), tables.most_frequent),
    "left neighbour": lambda tables, places: tables.guess_left(places.left),
    "both neighbours": lambda tables, places: tables.guess_both(places.left, places.right),
    UNMASKED: lambda tables, places: tables.guess_both(places.true_left, places.true_right),
}


def _tables(corpus: Corpus) -> NeighbourTables:
    vocabulary = corpus.vocabulary
    assert vocabulary.cls_id is not None
    assert vocabulary.sep_id is not None
    special = np.array(sorted(vocabulary.special.values()), np.int64)
    counted = beginning(corpus.train, TABLE_SYMBOLS)
    return NeighbourTables(counted, vocabulary.size, vocabulary.cls_id, vocabulary.sep_id, special)
