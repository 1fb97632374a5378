"""Bits per byte of a decoder on held-out text, beside byte n-gram tables that predict the very same tokens.

The text is one stream of documents with their end marks, after one end mark. It is cut into blocks of
three quarters of a window; the model reads the quarter before a block as well, so that no token is
predicted from less (at the text's beginning: from what there is). A table sees the text before a token
across every border. Documents run into one another for both, unless the model has learned each for itself:
then it reads none but the token's own, and the first token of a document, which follows from nothing, does
not count. The cost of end marks counts, their bytes do not, for both. Of much text a sample is taken:
blocks spread evenly over all of it, the same whatever the job's seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from phalanx.data import Corpus
from phalanx.data.corpus import Split
from phalanx.evaluation.guesses import Guess, Guesses
from phalanx.evaluation.ngram import symbols_of, witten_bell
from phalanx.evaluation.scores import MODEL, TABLE_SYMBOLS, Answers, Scores, beginning, by_cluster, compare, row_count
from phalanx.metrics import MeanLoss
from phalanx.models.causal import CausalModel, sight

ORDERS = {1: "byte frequencies", 4: "4-gram", 6: "6-gram"}
MAX_TOKENS = 150_000  # some ten seconds of two cores for the demo's model
CONTEXT_SHARE = 4  # of a window that is only read
Progress = Callable[[str, float], None]
Answer = tuple[NDArray[np.float64], Guess]


@dataclass(frozen=True)
class Blocks:
    """Which tokens are predicted, from which. `windows` int64 [n]: where each begins in the stream; `length` tokens
    are read in each. `first`, `last` int64 [n]: the stream places that it predicts, both included."""

    windows: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    length: int

    @property
    def targets(self) -> NDArray[np.int64]:
        """Stream places that are predicted, ascending, int64 [m]."""
        sizes = self.last - self.first + 1
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        places: NDArray[np.int64] = np.repeat(self.first, sizes) + within
        return places


def cut(tokens: int, sequence_length: int, max_tokens: int) -> Blocks:
    """Blocks of a stream whose places 1..`tokens` can be predicted, at most about `max_tokens` of them."""
    length = min(sequence_length, tokens)
    step = length - length // CONTEXT_SHARE
    count = -(-tokens // step)
    wanted = min(count, max(1, max_tokens // step))
    blocks = np.linspace(0, count - 1, wanted).round().astype(np.int64)
    last = np.minimum((blocks + 1) * step, tokens)
    return Blocks(np.maximum(last - length, 0), blocks * step + 1, last, length)


def answers(
    model: nn.Module,
    corpus: Corpus,
    sequence_length: int,
    max_tokens: int = MAX_TOKENS,
    *,
    cross: bool = True,
    part: int = 0,
    parts: int = 1,
) -> Iterator[Answer]:
    """Nats of the targets and what was guessed there, some windows at a time; every `parts`th time, from `part` on.

    `cross`: whether tokens are predicted from the documents before their own too.
    """
    vocabulary = corpus.vocabulary
    stream = _stream(corpus)
    blocks = cut(len(stream) - 1, sequence_length, max_tokens)
    rows = row_count(blocks.length * vocabulary.size)
    read = np.arange(blocks.length + 1)
    with torch.inference_mode():
        for start in range(part * rows, len(blocks.windows), parts * rows):
            windows = slice(start, start + rows)
            places = blocks.windows[windows, None] + read
            tokens = torch.from_numpy(stream[places])
            predicted = (places[:, 1:] >= blocks.first[windows, None]) & (places[:, 1:] <= blocks.last[windows, None])
            if cross:
                logits: torch.Tensor = model(tokens[:, :-1])
            else:
                owner = _owner(corpus.held_out, places)
                predicted &= owner[:, 1:] == owner[:, :-1]
                assert isinstance(model, CausalModel)
                seen = sight(tokens[:, :-1], None, None, torch.from_numpy(owner[:, :-1]))
                logits = model.judge(model.read(tokens[:, :-1], seen)).float()
            keep = torch.from_numpy(predicted)
            chosen, right = logits[keep].float(), tokens[:, 1:][keep]
            costs = F.cross_entropy(chosen, right, reduction="none").double().numpy()
            yield costs, Guess.of(chosen, right)


def _stream(corpus: Corpus) -> NDArray[np.int64]:
    """The held-out text after one end mark."""
    assert corpus.vocabulary.eos_id is not None, "a causal corpus has end marks"
    return np.concatenate([[corpus.vocabulary.eos_id], corpus.held_out.tokens]).astype(np.int64)


def _owner(text: Split, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The document of each stream place, from 1; 0: the mark before the text."""
    owner: NDArray[np.int64] = np.searchsorted(text.offsets, places - 1, side="right")
    return owner


def score(
    model: nn.Module,
    corpus: Corpus,
    sequence_length: int,
    progress: Progress,
    max_tokens: int = MAX_TOKENS,
    found: Iterable[Answer] | None = None,
    *,
    cross: bool = True,
) -> Scores:
    """Of `model` (tokens int64 [B, T] to logits [B, T, V]) on the corpus's held-out text. `found`: its `answers`, if
    others have them already; `cross`: as there.

    Raises NothingToPredict, NotFinite.
    """
    vocabulary, text = corpus.vocabulary, corpus.held_out
    stream = _stream(corpus)
    blocks = cut(len(text.tokens), sequence_length, max_tokens)
    targets = blocks.targets
    if not cross:
        targets = targets[_owner(text, targets) == _owner(text, targets - 1)]
    document = np.searchsorted(text.offsets, targets - 1, side="right") - 1
    sizes = by_cluster(document, vocabulary.byte_lengths[stream[targets]], text.documents).astype(np.int64)
    parts: list[NDArray[np.float64]] = []
    guesses: list[Guess] = []
    done = 0
    for cost, guess in found if found is not None else answers(model, corpus, sequence_length, max_tokens, cross=cross):
        parts.append(cost)
        guesses.append(guess)
        done += len(cost)
        progress("scoring", done / len(targets))
    costs = np.concatenate(parts)
    by_document = by_cluster(document, costs, text.documents)
    seen = sizes > 0
    names = np.array(corpus.names("held_out"))
    scores = compare(
        "bits_per_byte",
        Answers(MODEL, by_document),
        _tables(corpus, targets - 1, document, progress),
        sizes,
        loss=MeanLoss().update(by_document, len(targets)).compute(),
        tokens=len(targets),
        split={"files": len(set(names[seen])), "bytes": int(sizes.sum()), "tokens": len(targets)},
        method=(
            f"every token is predicted from the {blocks.length // CONTEXT_SHARE + 1} to {blocks.length} before it; "
            "end marks cost, and count no bytes; tables predict the same text, by bytes"
            + ("" if cross else "; the model reads each document for itself, and its first token does not count")
        ),
    )
    return replace(scores, guesses=Guesses.of(guesses, document, text.documents).to_dict())


def _tables(
    corpus: Corpus, targets: NDArray[np.int64], document: NDArray[np.int64], progress: Progress
) -> list[Answers]:
    """Count tables on the symbols of tokens `targets` of the held-out text; `document`: of each token."""
    vocabulary, text = corpus.vocabulary, corpus.held_out
    counted = beginning(corpus.train, TABLE_SYMBOLS)
    train = symbols_of(counted.tokens, vocabulary)[0][:TABLE_SYMBOLS]
    symbols, starts = symbols_of(text.tokens, vocabulary)
    sizes = np.diff(starts)[targets]
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    places = np.repeat(starts[targets], sizes) + within
    costs = witten_bell(train, symbols, places, list(ORDERS), lambda share: progress("counting", share))
    of_symbol = np.repeat(document, sizes)
    note = _note(counted, corpus.train, len(train))
    return [
        Answers(name, by_cluster(of_symbol, costs[order], text.documents), note=note) for order, name in ORDERS.items()
    ]


def _note(counted: Split, whole: Split, symbols: int) -> str:
    if counted is whole and symbols < TABLE_SYMBOLS:
        return ""
    return f"counted on the first {symbols / 1e6:.1f} MB of the training text"
