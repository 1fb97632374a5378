"""How much each token looks at each other one, in every head of a model; of a translator, its alignment.

The weights are asked of the model anew: the fused kernels that it runs on give none. Knows no pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phalanx.data import Vocabulary
from phalanx.evaluation.errors import NoSuchHead, UnusablePrompt
from phalanx.evaluation.translating import encoded, hypotheses, marks, source_ids
from phalanx.models.bert import Bert
from phalanx.models.causal import CausalModel
from phalanx.models.seq2seq import Seq2Seq
from phalanx.training import OpenedModel


@dataclass(frozen=True)
class Attention:
    """`weights` float32 [layers, heads, rows, columns]: how much the token of a row looks at that of a column; rows sum
    to 1. `rows`, `columns`: the tokens as people read them. `kind`: `self`, or `alignment` of a translation's tokens
    (rows), which are `written` as text, to those of its source (columns). `layers`, `heads`: their numbers, from 1."""

    kind: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    weights: NDArray[np.float32]
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    model: str
    written: str = ""

    def looks(self) -> dict[str, NDArray[np.float32]]:
        """Of self-attention, what share of each head's looks goes where, float32 [layers, heads] (Clark et al. 2019,
        section 3): a head that is no more than a habit is seen at once. Empty for an alignment."""
        if self.kind != "self":
            return {}
        size = len(self.rows)
        diagonals = {"itself": 0, "the token before": -1, "the token after": 1}
        found = {name: np.trace(self.weights, offset, axis1=-2, axis2=-1) / size for name, offset in diagonals.items()}
        found["the first token"] = self.weights[..., 0].mean(-1)
        return {name: share.astype(np.float32) for name, share in found.items()}

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe; weights to six decimals."""
        return {
            "kind": self.kind,
            "model": self.model,
            "written": self.written,
            "rows": list(self.rows),
            "columns": list(self.columns),
            "layers": list(self.layers),
            "heads": list(self.heads),
            "looks": {name: np.round(share.astype(np.float64), 6).tolist() for name, share in self.looks().items()},
            "weights": np.round(self.weights.astype(np.float64), 6).tolist(),
        }


def attention_of(
    opened: OpenedModel,
    text: str,
    pair: str | None = None,
    *,
    layer: int | None = None,
    head: int | None = None,
    words: bool = False,
) -> Attention:
    """Of `text`. `pair`: of an encoder the second text; of a translator the translation that is aligned (None: its own,
    greedy one). `layer`, `head`: only this one, from 1. `words`: tokens of a word together.

    Raises UnusablePrompt for a text that is empty, too long for the model, or one that it takes no pair with;
    NoSuchHead; NoAttention for a translator without it.
    """
    if not text.strip() or (pair is not None and not pair.strip()):
        raise UnusablePrompt("the text is empty: there is nothing to look at", remedy="give a sentence")
    module = opened.module
    if isinstance(module, Seq2Seq):
        kind, rows, columns, weights = _alignment(module, opened.vocabulary, text, pair)
    elif isinstance(module, Bert):
        kind = "self"
        rows, weights = _of_encoder(module, opened, text, pair)
        columns = rows
    elif isinstance(module, CausalModel):
        if pair is not None:
            raise UnusablePrompt(f"{opened.config.name} reads one text", remedy="leave --pair out")
        kind = "self"
        rows, weights = _of_decoder(module, opened, text)
        columns = rows
    else:
        raise UnusablePrompt(f"{opened.config.name} has no attention that could be shown", where=str(opened.path))
    found = weights.float().numpy()
    spelled = [_spelled(opened.vocabulary, side) for side in (rows, columns)]
    if words:
        starts = [_word_starts(opened.vocabulary, side) for side in (rows, columns)]
        found = merged(found, starts[0], starts[1])
        spelled = [_joined(side, begins) for side, begins in zip(spelled, starts, strict=True)]
    layers, heads = found.shape[:2]
    layer_at, head_at = _only("layer", layer, layers), _only("head", head, heads)
    return Attention(
        kind,
        tuple(spelled[0]),
        tuple(spelled[1]),
        found[layer_at, :][:, head_at],
        tuple(range(1, layers + 1))[layer_at],
        tuple(range(1, heads + 1))[head_at],
        opened.config.name,
        opened.vocabulary.decode(rows).strip() if kind == "alignment" else "",
    )


def merged(weights: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
    """Weights [.., T, S] of tokens to those of words, which begin at the places `rows` and `columns`: what a word's
    tokens get is added up, what they give is averaged, so that rows still sum to 1 (Clark et al. 2019, section 4.1)."""
    sums = np.add.reduceat(weights, columns, axis=-1)
    sizes = np.diff([*rows, weights.shape[-2]])
    return (np.add.reduceat(sums, rows, axis=-2) / sizes[:, None]).astype(np.float32)


def alignment(module: Seq2Seq, source: NDArray[np.int64], target: NDArray[np.int64], begin: int) -> torch.Tensor:
    """Of one sentence: float32 [1, 1, T, S]. Both end with the end mark. Raises NoAttention."""
    written = torch.from_numpy(np.concatenate([[begin], target[:-1]]))
    with torch.inference_mode():
        return module.alignment(torch.from_numpy(source)[None], torch.tensor([len(source)]), written[None])[None]


def _alignment(
    module: Seq2Seq, vocabulary: Vocabulary, text: str, pair: str | None
) -> tuple[str, NDArray[np.int64], NDArray[np.int64], torch.Tensor]:
    begin, end = marks(vocabulary)
    source = source_ids(vocabulary, text.strip())
    if pair is None:
        tokens = hypotheses(module, vocabulary, [source])[0].tokens
        target = np.array([*tokens, end], np.int64)
    else:
        target = source_ids(vocabulary, pair.strip())
    return "alignment", target, source, alignment(module, source, target, begin)


def _of_encoder(
    module: Bert, opened: OpenedModel, text: str, pair: str | None
) -> tuple[NDArray[np.int64], torch.Tensor]:
    vocabulary = opened.vocabulary
    vocabulary.check_serves("classify")  # it has the marks
    parts: list[Any] = [[vocabulary.cls_id], encoded(vocabulary, text), [vocabulary.sep_id]]
    first = sum(map(len, parts))
    if pair is not None:
        parts += [encoded(vocabulary, pair), [vocabulary.sep_id]]
    tokens = np.concatenate(parts).astype(np.int64)
    _check_length(opened, tokens)
    batch = {
        "tokens": torch.from_numpy(tokens)[None],
        "document": torch.ones(1, len(tokens), dtype=torch.int32),
        "segments": (torch.arange(len(tokens)) >= first).long()[None].clamp_max(opened.config.segments - 1),
    }
    with torch.inference_mode():
        return tokens, module.attention_weights(batch)[:, 0]


def _of_decoder(module: CausalModel, opened: OpenedModel, text: str) -> tuple[NDArray[np.int64], torch.Tensor]:
    tokens = encoded(opened.vocabulary, text)
    _check_length(opened, tokens)
    with torch.inference_mode():
        return tokens, module.attention_weights({"tokens": torch.from_numpy(tokens)[None]})[:, 0]


def _check_length(opened: OpenedModel, tokens: NDArray[np.int64]) -> None:
    limit = opened.config.sequence_length
    if len(tokens) > limit:
        raise UnusablePrompt(
            f"the text has {len(tokens):,} tokens, and the model reads {limit:,} at once",
            where=str(opened.path),
            remedy="give a shorter one",
        )


def _only(what: str, wanted: int | None, count: int) -> slice:
    if wanted is None:
        return slice(None)
    if not 1 <= wanted <= count:
        raise NoSuchHead(f"there is no {what} {wanted}: the model has {count}", remedy=f"give one from 1 to {count}")
    return slice(wanted - 1, wanted)


def _spelled(vocabulary: Vocabulary, tokens: NDArray[np.int64]) -> list[str]:
    """As people read them: a space at the beginning is a dot."""
    found = [vocabulary.token(int(token)) for token in tokens]
    return ["·" + token[1:] if token[:1] == " " else token for token in found]


def _word_starts(vocabulary: Vocabulary, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places where a word begins: after a space, and at and after special tokens; of WordPiece, where no `##` is."""
    special = set(vocabulary.special.values())

    def goes_on(token: int) -> bool:
        if vocabulary.kind == "wordpiece":
            return vocabulary.token(token).startswith("##")
        return not vocabulary.pieces[token][:1].isspace()

    ids = tokens.tolist()
    starts = [
        place
        for place, token in enumerate(ids)
        if place == 0 or token in special or ids[place - 1] in special or not goes_on(token)
    ]
    return np.array(starts, np.int64)


def _joined(spelled: list[str], starts: NDArray[np.int64]) -> list[str]:
    """The tokens of each word as one."""
    bounds = pairwise([*starts.tolist(), len(spelled)])
    words = ["".join(token.removeprefix("##") for token in spelled[begin:end]) for begin, end in bounds]
    return [word.removeprefix("·") or word for word in words]
