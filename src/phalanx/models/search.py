"""The likeliest sentence that a `Seq2Seq` writes, token by token: greedily, or by a beam of several at once.

A hypothesis scores the mean log-probability of its tokens, the end mark included, so that long ones are not behind
because they are long (Wu et al. 2016, eq. 14, with exponent 1). The search for a sentence ends with as many finished
hypotheses as the beam is wide; with a beam of one it is the greedy search. Knows no tokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from phalanx.models.seq2seq import Seq2Seq


@dataclass(frozen=True)
class Hypothesis:
    """`tokens` without begin and end mark; `score` in nats a token; `finished`: it was ended by the end mark."""

    tokens: tuple[int, ...]
    score: float
    finished: bool


@dataclass
class _Sentence:
    """`beam`: (sum of log-probabilities, tokens), the likeliest first."""

    most: int
    beam: list[tuple[float, tuple[int, ...]]]
    done: list[Hypothesis]

    def best(self) -> Hypothesis:
        unfinished = [Hypothesis(tokens, total / max(1, len(tokens)), False) for total, tokens in self.beam]
        return max(self.done or unfinished, key=lambda hypothesis: hypothesis.score)

    def advance(self, candidates: list[tuple[float, int, int]], width: int, end: int) -> list[int]:
        """Take up (sum of log-probabilities, place in the beam, token), the likeliest first. Returns the places that
        the new beam goes on from; none when the search is over."""
        beam: list[tuple[float, tuple[int, ...]]] = []
        places: list[int] = []
        for total, place, token in candidates[: width + len(self.beam)]:
            tokens = self.beam[place][1]
            if token == end:
                self.done.append(Hypothesis(tokens, total / (len(tokens) + 1), True))
            elif len(beam) < width:
                beam.append((total, (*tokens, token)))
                places.append(place)
            if len(self.done) == width or len(beam) == width:
                break
        self.beam = beam
        return [] if len(self.done) >= width or len(beam[0][1]) >= self.most else places


@torch.inference_mode()
def translate(
    model: Seq2Seq, source: Tensor, lengths: Tensor, *, begin: int, end: int, beam: int = 1, most: int | None = None
) -> list[Hypothesis]:
    """The best hypothesis for each of `source` int64 [B, S] of `lengths` [B].

    `begin`, `end`: the marks' ids; `most` tokens are written at most (None: twice as many as the source has, and 10).
    Sentences of like lengths are quickest together. Raises ValueError for a beam of none.
    """
    if beam < 1:
        raise ValueError(f"a beam is at least 1 wide, not {beam}")
    sentences = [_Sentence(2 * length + 10 if most is None else most, [(0.0, ())], []) for length in lengths.tolist()]
    reading = model.read(source, lengths)
    state, active = reading.start, sentences
    tokens = torch.full((len(sentences),), begin)
    while active:
        logits, state = model.step(reading, state, tokens)
        chances, likeliest = logits.log_softmax(1).topk(min(2 * beam, logits.shape[1]))
        chosen, written, going_on, first = [], [], [], 0
        for sentence in active:
            size = len(sentence.beam)
            candidates = [
                (sentence.beam[place][0] + chance, place, token)
                for place, (some, ids) in enumerate(
                    zip(chances[first : first + size].tolist(), likeliest[first : first + size].tolist(), strict=True)
                )
                for chance, token in zip(some, ids, strict=True)
            ]
            candidates.sort(key=lambda candidate: -candidate[0])
            places = sentence.advance(candidates, beam, end)
            if places:
                going_on.append(sentence)
                chosen += [first + place for place in places]
                written += [sequence[-1] for _, sequence in sentence.beam]
            first += size
        active, tokens = going_on, torch.tensor(written)
        if chosen != list(range(first)):
            rows = torch.tensor(chosen, dtype=torch.int64)
            reading, state = reading.select(rows), state[rows]
    return [sentence.best() for sentence in sentences]
