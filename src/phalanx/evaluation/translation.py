"""BLEU and chrF of a model's translations of pairs that it never saw, by length of the source, beside honest baselines.

Translated greedily, in float32, text against text as it was given. Standard errors are those of 1,000 bootstrap samples
of the pairs, the same ones for all contestants (Koehn 2004). Of many pairs a sample is taken, spread evenly. The
baselines need no learning: the translation of the training sentence that is most like the source, and the source as it
stands. How lengths are counted, and the fall with them, is after Bahdanau et al. 2015, figure 2: words between spaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from phalanx.data import Corpus, Split, Vocabulary
from phalanx.evaluation.attention import attention_of
from phalanx.evaluation.causal import Progress
from phalanx.evaluation.errors import NotFinite, NothingToPredict
from phalanx.evaluation.scores import Score, Scores
from phalanx.evaluation.translating import hypotheses, marks, padded
from phalanx.metrics import Bleu, Chrf
from phalanx.models.seq2seq import Seq2Seq
from phalanx.training import OpenedModel

MAX_PAIRS = 2000  # some ten seconds of a core
PART = 256  # pairs that a process takes at once
RESAMPLES = 1000
WORDS = 5  # a bucket of lengths: 1 to 5, 6 to 10, ...
MAX_REMEMBERED = 200_000  # training pairs that are looked through for the nearest
EXAMPLES, ALIGNED = 12, 4
NEAREST, COPIED = "nearest training sentence", "the source itself"


@dataclass(frozen=True)
class Answer:
    """Of the held-out pair `place`: its translation, what its reference costs in nats, and of how many tokens."""

    place: int
    text: str
    nats: float
    tokens: int


def answers(module: nn.Module, corpus: Corpus, *, part: int = 0, parts: int = 1) -> Iterator[list[Answer]]:
    """Of the pairs that are scored, some at a time; every `parts`th time, from `part` on."""
    assert isinstance(module, Seq2Seq), "a model that translates"
    vocabulary = corpus.vocabulary
    chosen = sorted(
        _chosen(corpus),
        key=lambda place: int(corpus.held_out.offsets[2 * place + 1]) - int(corpus.held_out.offsets[2 * place]),
    )
    for start in range(part * PART, len(chosen), parts * PART):
        places = chosen[start : start + PART]
        sources = [_ids(corpus.held_out, 2 * place, vocabulary) for place in places]
        targets = [_ids(corpus.held_out, 2 * place + 1, vocabulary) for place in places]
        best = hypotheses(module, vocabulary, sources)
        nats = _nats(module, vocabulary, sources, targets)
        yield [
            Answer(place, vocabulary.decode(found.tokens).strip(), cost, len(target))
            for place, found, cost, target in zip(places, best, nats, targets, strict=True)
        ]


def score(
    module: nn.Module, corpus: Corpus, progress: Progress, found: Iterable[list[Answer]] | None = None
) -> tuple[Scores, list[dict[str, Any]]]:
    """Scores, and examples for a person to read. `found`: the `answers`, if others have them already.

    Raises NothingToPredict when no pair is held out, NotFinite.
    """
    vocabulary, pairs = corpus.vocabulary, corpus.held_out
    wanted = len(_chosen(corpus))
    if not wanted:
        raise NothingToPredict("no pair is held out", remedy="use more text, or raise data.heldOut")
    every: list[Answer] = []
    for some in found if found is not None else answers(module, corpus):
        every += some
        progress("scoring", len(every) / wanted)
    every.sort(key=lambda answer: answer.place)
    nats, tokens = sum(answer.nats for answer in every), sum(answer.tokens for answer in every)
    if not np.isfinite(nats):
        raise NotFinite(
            "the model's answers are no numbers",
            remedy="train it again with a lower learning rate; an earlier checkpoint may be sound",
        )
    places = [answer.place for answer in every]
    sources, references = ([_text(pairs, 2 * place + side, vocabulary) for place in places] for side in (0, 1))
    mine = [answer.text for answer in every]
    progress("counting", 0.0)
    nearest = _nearest(corpus, places)
    remembered = [_text(corpus.train, 2 * place + 1, vocabulary) for place in nearest]
    progress("counting", 0.5)
    sums = {name: _sums(texts, references) for name, texts in ((None, mine), (NEAREST, remembered), (COPIED, sources))}
    samples = np.random.default_rng(0).multinomial(len(every), np.full(len(every), 1 / len(every)), RESAMPLES)
    spread = {name: np.array([_bleu(row) for row in samples @ each]) for name, each in sums.items()}
    values = {name: _bleu(each.sum(0)) for name, each in sums.items()}
    errors = {name: float(each.std(ddof=1)) if len(every) > 1 else None for name, each in spread.items()}
    progress("counting", 1.0)
    baselines = [Score(str(name), values[name], errors[name]) for name in (NEAREST, COPIED)]
    strongest = max(baselines, key=lambda baseline: baseline.value)
    whole, signature = Chrf().update(mine, references).compute(), Bleu().update(mine, references).signature
    scores = Scores(
        metric="bleu",
        model=Score("this model", values[None], errors[None]),
        baselines=tuple(baselines),
        strongest=strongest.name,
        margin=values[None] - strongest.value,
        margin_standard_error=float((spread[None] - spread[strongest.name]).std(ddof=1)) if len(every) > 1 else None,
        loss=nats / tokens,
        tokens=tokens,
        split={"pairs": len(every), "bytes": sum(len(text.encode()) for text in references), "tokens": tokens},
        method=(f"translated greedily; {signature}; standard errors of {RESAMPLES:,} bootstrap samples of the pairs"),
        translation={
            "bleu": values[None],
            "bleu_signature": signature,
            "chrf": whole.score,
            "chrf_signature": whole.signature,
            "lengths": by_length(sources, mine, references),
        },
    )
    return scores, _examples(module, corpus, places, sources, mine, references)


def by_length(sources: Sequence[str], texts: Sequence[str], references: Sequence[str]) -> list[dict[str, Any]]:
    """Of pairs whose source has `from` to `to` words: how many `pairs`, their mean `words`, `bleu` with its
    `standard_error` (None for one pair), and `chrf`; by rising length, without empty ones."""
    words = np.array([len(source.split()) for source in sources])
    found = []
    for bucket in np.unique((words - 1) // WORDS).tolist():
        at = np.flatnonzero((words - 1) // WORDS == bucket).tolist()
        some, right = [texts[place] for place in at], [references[place] for place in at]
        sums = _sums(some, right)
        samples = np.random.default_rng(0).multinomial(len(at), np.full(len(at), 1 / len(at)), RESAMPLES)
        error = float(np.std([_bleu(row) for row in samples @ sums], ddof=1)) if len(at) > 1 else None
        found.append(
            {
                "from": bucket * WORDS + 1,
                "to": (bucket + 1) * WORDS,
                "pairs": len(at),
                "words": float(words[at].mean()),
                "bleu": _bleu(sums.sum(0)),
                "standard_error": error,
                "chrf": Chrf().update(some, right).compute().score,
            }
        )
    return found


def _sums(texts: Sequence[str], references: Sequence[str]) -> NDArray[np.int64]:
    """What BLEU counts in each text, int64 [n, 10]."""
    pairs = zip(texts, references, strict=True)
    return np.stack([Bleu().update([text], [reference]).parts()["sums"] for text, reference in pairs])


def _bleu(sums: NDArray[np.int64]) -> float:
    """Of a corpus with these sums, [10]."""
    state = Bleu()
    return Bleu.of_parts(state.definition(), {"sums": sums, "texts": np.array([1, 1, 1])}).compute().score


def _chosen(corpus: Corpus) -> list[int]:
    """Held-out pairs that are scored: all, or a sample spread evenly over them."""
    pairs = corpus.held_out.documents // 2
    found: list[int] = np.unique(np.linspace(0, pairs - 1, min(pairs, MAX_PAIRS)).round().astype(np.int64)).tolist()
    return found


def _ids(split: Split, document: int, vocabulary: Vocabulary) -> NDArray[np.int64]:
    """Tokens of a document and the end mark, int64 [n]."""
    tokens = split.tokens[split.offsets[document] : split.offsets[document + 1]]
    return np.append(tokens, marks(vocabulary)[1]).astype(np.int64)


def _text(split: Split, document: int, vocabulary: Vocabulary) -> str:
    return vocabulary.decode(split.tokens[split.offsets[document] : split.offsets[document + 1]])


def _nats(
    module: Seq2Seq, vocabulary: Vocabulary, sources: Sequence[NDArray[Any]], targets: Sequence[NDArray[Any]]
) -> list[float]:
    """What each target costs, given its source and the tokens before each."""
    begin, _ = marks(vocabulary)
    source, lengths = padded(sources)
    target, _ = padded([np.concatenate([[begin], tokens[:-1]]) for tokens in targets])
    sizes = np.array([len(tokens) for tokens in targets])
    positions = torch.from_numpy(np.flatnonzero(np.arange(target.shape[1]) < sizes[:, None]))
    batch = {"source": source, "lengths": lengths, "target": target, "positions": positions}
    with torch.inference_mode():
        costs, _ = module.costs_and_ranks(batch | {"targets": torch.from_numpy(np.concatenate(targets))})
    found: list[float] = np.add.reduceat(costs.double().numpy(), np.cumsum(sizes) - sizes).tolist()
    return found


def _nearest(corpus: Corpus, places: Sequence[int]) -> list[int]:
    """Of each held-out source the training pair whose source is most like it: by the cosine of what tokens they have,
    weighted by how few training sentences have each (idf), the first of equals."""
    train, size = corpus.train, corpus.vocabulary.size
    pairs = min(train.documents // 2, MAX_REMEMBERED)
    offsets = train.offsets[: 2 * pairs + 1]
    lengths = np.diff(offsets)[::2]
    at = (
        np.repeat(offsets[:-1:2], lengths) + np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    )
    owner = np.repeat(np.arange(pairs), lengths)
    token, pair = np.divmod(np.unique(train.tokens[at].astype(np.int64) * pairs + owner), pairs)
    begins = np.searchsorted(token, np.arange(size + 1))
    weight = np.log((1 + pairs) / (1 + np.diff(begins))) ** 2
    norm = np.sqrt(np.maximum(np.bincount(pair, weight[token], pairs), 1e-12))
    held_out = corpus.held_out
    found = []
    for place in places:
        own = np.unique(held_out.tokens[held_out.offsets[2 * place] : held_out.offsets[2 * place + 1]])
        alike = np.zeros(pairs)
        for id_ in own.tolist():
            alike[pair[begins[id_] : begins[id_ + 1]]] += weight[id_]
        found.append(int((alike / norm).argmax()))
    return found


def _examples(
    module: nn.Module,
    corpus: Corpus,
    places: Sequence[int],
    sources: Sequence[str],
    texts: Sequence[str],
    references: Sequence[str],
) -> list[dict[str, Any]]:
    """`{"source", "translated", "reference"}`, spread evenly, not chosen by how good they are; the first few with
    their `alignment`, by words, where the model has attention."""
    assert isinstance(module, Seq2Seq), "a model that translates"
    opened = OpenedModel(module, module.config, corpus.vocabulary, corpus.directory, None)
    chosen = np.unique(np.linspace(0, len(places) - 1, min(len(places), EXAMPLES)).round().astype(int)).tolist()
    examples: list[dict[str, Any]] = []
    for at in chosen:
        example: dict[str, Any] = {"source": sources[at], "translated": texts[at], "reference": references[at]}
        if module.config.attention and len(examples) < ALIGNED:
            found = attention_of(opened, sources[at], texts[at] or None, words=True)
            weights = np.round(found.weights[0, 0].astype(np.float64), 3).tolist()
            example["alignment"] = {"rows": list(found.rows), "columns": list(found.columns), "weights": weights}
        examples.append(example)
    return examples
