"""How alike texts are to what people wrote: BLEU and chrF, the same numbers as sacrebleu's.

Of each text whole numbers are counted, and a score follows from their sums: parts of a corpus, fed in any order, give
the very score of the whole. A score depends on how texts were prepared: print its signature beside it.
BLEU: Papineni et al. 2002, smoothed as in Chen and Cherry 2014; chrF: Popović 2015, chrF++: Popović 2017.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, cast, get_args

import numpy as np
from numpy.typing import NDArray

from phalanx import __version__
from phalanx.metrics.errors import BadInput
from phalanx.metrics.state import State
from phalanx.metrics.tokens import TOKENIZERS

Smoothing = Literal["exp", "floor", "add-k", "none"]
References = Sequence[str] | Sequence[Sequence[str | None]]
"""Columns of references, each as long as there are hypotheses: references[j][i] is the j-th of hypothesis i, None where
it has fewer. One column may be given alone."""

_DEFAULTS: dict[str, float | None] = {"exp": None, "floor": 0.1, "add-k": 1.0, "none": None}
_LOG_OF_ZERO = -9999999999.0  # as sacrebleu has it: its exp is 0
_EPSILON = 1e-16
_STRIPPED = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


@dataclass(frozen=True)
class BleuScore:
    """`score` and `precisions` (by order) from 0 to 100; NaN when there were no texts. `counts` of `totals` n-grams of
    each order were found in a reference; `bp`: the penalty for texts shorter than their references; `sys_len`,
    `ref_len`: their words."""

    score: float
    counts: tuple[int, ...]
    totals: tuple[int, ...]
    precisions: tuple[float, ...]
    bp: float
    sys_len: int
    ref_len: int
    signature: str

    def __str__(self) -> str:
        precisions = "/".join(f"{each:.1f}" for each in self.precisions)
        ratio = self.sys_len / self.ref_len if self.ref_len else 0.0
        return (
            f"BLEU|{self.signature} = {self.score:.2f} {precisions} (BP = {self.bp:.3f} ratio = {ratio:.3f} "
            f"hyp_len = {self.sys_len} ref_len = {self.ref_len})"
        )


@dataclass(frozen=True)
class ChrfScore:
    """`score` from 0 to 100; NaN when there were no texts. `name`: chrF2, or chrF2++ with words."""

    score: float
    name: str
    signature: str

    def __str__(self) -> str:
        return f"{self.name}|{self.signature} = {self.score:.2f}"


class _Texts(State):
    """What BLEU and chrF share: whole numbers of each text, added up."""

    lowercase: bool

    def __init__(self, numbers: int) -> None:
        self._sums = np.zeros(numbers, np.int64)
        self.texts = 0
        self._fewest, self._most = 0, 0  # references of a text

    def update(self, hypotheses: Iterable[str], references: References) -> Self:
        """Texts [n], and their references: columns of n. Raises BadInput."""
        texts = _column("hypotheses", hypotheses)
        for index, each in enumerate(texts):
            if not isinstance(each, str):
                raise BadInput(f"hypotheses[{index}] is {_what(each)}, not a text", remedy="give '' for an empty text")
        rows = _rows(references, len(texts))
        for index, of_it in enumerate(rows):
            if not of_it:
                raise BadInput(f"hypotheses[{index}] has no reference", remedy="leave it out, or give one")
        for text, of_it in zip(texts, rows, strict=True):
            self._fewest = min(self._fewest, len(of_it)) if self.texts else len(of_it)
            self._most = max(self._most, len(of_it))
            self.texts += 1
            prepared = [each.lower() for each in (text, *of_it)] if self.lowercase else [text, *of_it]
            self._sums += np.array(self._counted(prepared[0], prepared[1:]), np.int64)
        return self

    @abstractmethod
    def _counted(self, text: str, references: list[str]) -> list[int]:
        """The numbers of one text."""

    def _signature(self, **settings: object) -> str:
        references = str(self._most) if self._fewest == self._most else "var"
        pairs = {"nrefs": references, "case": "lc" if self.lowercase else "mixed"} | settings
        return "|".join(f"{name}:{value}" for name, value in pairs.items()) + f"|version:phalanx-{__version__}"

    def parts(self) -> dict[str, NDArray[Any]]:
        return {"sums": self._sums, "texts": np.array([self.texts, self._fewest, self._most])}

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made = cls(**definition)
        sums, texts = parts["sums"], parts["texts"]
        if sums.shape != made._sums.shape or sums.dtype != np.int64 or texts.shape != (3,) or (sums < 0).any():
            raise BadInput(f"no numbers of {cls.__name__}")
        made._sums = sums.copy()
        made.texts, made._fewest, made._most = (int(each) for each in texts)
        return made

    def _add(self, other: Self) -> None:
        if self.texts and other.texts:
            self._fewest = min(self._fewest, other._fewest)
        else:
            self._fewest = self._fewest or other._fewest
        self._most = max(self._most, other._most)
        self.texts += other.texts
        self._sums += other._sums


class Bleu(_Texts):
    """BLEU of a corpus. `tokenize`: 13a, intl, char or none. `smooth`: what an order without a match counts for, with
    `smooth_value` (0.1 for floor, 1 for add-k). `effective_order`: leave out the orders that texts are too short for,
    as is right for single sentences. Raises BadInput for settings that there are not."""

    def __init__(
        self,
        *,
        tokenize: str = "13a",
        lowercase: bool = False,
        smooth: Smoothing = "exp",
        smooth_value: float | None = None,
        max_order: int = 4,
        effective_order: bool = False,
    ) -> None:
        if tokenize not in TOKENIZERS:
            raise BadInput(f"there is no tokenizer {tokenize!r}", remedy=f"take one of {', '.join(TOKENIZERS)}")
        if smooth not in get_args(Smoothing):
            raise BadInput(f"there is no smoothing {smooth!r}", remedy=f"take one of {', '.join(_DEFAULTS)}")
        if smooth_value is not None and (_DEFAULTS[smooth] is None or not 0 < smooth_value < math.inf):
            raise BadInput(f"smoothing {smooth} takes no value {smooth_value!r}: floor and add-k one above 0")
        _order("max_order", max_order, 1)
        super().__init__(2 + 2 * max_order)
        self.tokenize, self.lowercase = tokenize, bool(lowercase)
        self.smooth, self.smooth_value = smooth, _DEFAULTS[smooth] if smooth_value is None else float(smooth_value)
        self.max_order, self.effective_order = max_order, bool(effective_order)

    def _counted(self, text: str, references: list[str]) -> list[int]:
        cut = TOKENIZERS[self.tokenize]
        words, of_references = cut(text.rstrip()), [cut(each.rstrip()) for each in references]
        nearest = min((abs(len(each) - len(words)), len(each)) for each in of_references)[1]
        found, all_there = [], []
        for order in range(1, self.max_order + 1):
            best: Counter[Any] = Counter()
            for each in of_references:
                best |= _ngrams(each, order)
            mine = _ngrams(words, order)
            found.append((mine & best).total())
            all_there.append(mine.total())
        return [len(words), nearest, *found, *all_there]

    def compute(self) -> BleuScore:
        sys_len, ref_len, *rest = self._sums.tolist()
        counts, totals = rest[: self.max_order], rest[self.max_order :]
        penalty = 1.0
        if sys_len < ref_len:
            penalty = math.exp(1 - ref_len / sys_len) if sys_len else 0.0
        precisions, orders = self._precisions(counts, totals)
        if not self.texts:
            score = math.nan
        elif any(counts):
            logs = [math.log(each) if each else _LOG_OF_ZERO for each in precisions[:orders]]
            score = penalty * math.exp(sum(logs) / orders)
        else:
            score = 0.0
        return BleuScore(
            score, tuple(counts), tuple(totals), tuple(precisions), penalty, sys_len, ref_len, self.signature
        )

    def _precisions(self, counts: list[int], totals: list[int]) -> tuple[list[float], int]:
        """By order, in per cent and smoothed, and how many orders are averaged over."""
        precisions, orders, halved = [0.0] * self.max_order, self.max_order, 1.0
        if not any(counts):
            return precisions, orders
        for index, (count, total) in enumerate(zip(counts, totals, strict=True)):
            more = self.smooth_value if self.smooth == "add-k" and index and self.smooth_value else 0
            if total + more == 0:
                break
            if self.effective_order:
                orders = index + 1
            if count + more:
                precisions[index] = 100.0 * (count + more) / (total + more)
            elif self.smooth == "exp":
                halved *= 2
                precisions[index] = 100.0 / (halved * total)
            elif self.smooth == "floor" and self.smooth_value:
                precisions[index] = 100.0 * self.smooth_value / total
        return precisions, orders

    @property
    def signature(self) -> str:
        """How texts were prepared and counted, as sacrebleu says it: print it beside the score."""
        smooth = self.smooth if self.smooth_value is None else f"{self.smooth}[{self.smooth_value:.2f}]"
        effective = "yes" if self.effective_order else "no"
        return self._signature(eff=effective, tok=self.tokenize, smooth=smooth)

    def definition(self) -> dict[str, Any]:
        names = ("tokenize", "lowercase", "smooth", "smooth_value", "max_order", "effective_order")
        return {name: getattr(self, name) for name in names}


class Chrf(_Texts):
    """chrF of a corpus: F-beta over n-grams of characters up to `char_order`, and of words up to `word_order` (chrF++
    with 2). Of several references a text has the one that gives it the best score. `whitespace`: count it too.
    `eps_smoothing`: average F over all orders, as chrF++.py, NLTK and Moses do; otherwise precision and recall are
    averaged over the orders that there are. Raises BadInput for settings that there are not."""

    def __init__(
        self,
        *,
        char_order: int = 6,
        word_order: int = 0,
        beta: int = 2,
        lowercase: bool = False,
        whitespace: bool = False,
        eps_smoothing: bool = False,
    ) -> None:
        _order("char_order", char_order, 1)
        _order("word_order", word_order, 0)
        _order("beta", beta, 1)
        super().__init__(3 * (char_order + word_order))
        self.char_order, self.word_order, self.beta = char_order, word_order, beta
        self.lowercase, self.whitespace, self.eps_smoothing = bool(lowercase), bool(whitespace), bool(eps_smoothing)

    def _counted(self, text: str, references: list[str]) -> list[int]:
        mine, best, best_score = self._all_ngrams(text), [0] * len(self._sums), -1.0
        for each in references:
            numbers = []
            for here, there in zip(mine, self._all_ngrams(each), strict=True):
                numbers += [here.total() if there else 0, there.total(), (here & there).total()]
            score = self._score(numbers)
            if score > best_score:
                best, best_score = numbers, score
        return best

    def _all_ngrams(self, text: str) -> list[Counter[Any]]:
        characters = text if self.whitespace else "".join(text.split())
        found = [_ngrams(characters, order) for order in range(1, self.char_order + 1)]
        words = _without_punctuation(text) if self.word_order else []
        return found + [_ngrams(words, order) for order in range(1, self.word_order + 1)]

    def _score(self, numbers: Sequence[int]) -> float:
        """Of n-grams in the text, in its reference and in both, of each order in turn."""
        heavier = self.beta**2
        score, precisions, recalls, orders = 0.0, 0.0, 0.0, 0
        for there, wanted, both in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True):
            precision = both / there if there else _EPSILON
            recall = both / wanted if wanted else _EPSILON
            total = heavier * precision + recall
            score += (1 + heavier) * precision * recall / total if total else _EPSILON
            if there and wanted:
                precisions, recalls, orders = precisions + precision, recalls + recall, orders + 1
        if self.eps_smoothing:
            return 100 * score / (self.char_order + self.word_order)
        if not precisions + recalls:
            return 0.0
        precision, recall = precisions / orders, recalls / orders
        return 100 * ((1 + heavier) * precision * recall / (heavier * precision + recall))

    def compute(self) -> ChrfScore:
        score = self._score(self._sums.tolist()) if self.texts else math.nan
        return ChrfScore(score, f"chrF{self.beta}{'+' * self.word_order}", self.signature)

    @property
    def signature(self) -> str:
        """How texts were prepared and counted, as sacrebleu says it: print it beside the score."""
        effective, space = "no" if self.eps_smoothing else "yes", "yes" if self.whitespace else "no"
        return self._signature(eff=effective, nc=self.char_order, nw=self.word_order, space=space)

    def definition(self) -> dict[str, Any]:
        names = ("char_order", "word_order", "beta", "lowercase", "whitespace", "eps_smoothing")
        return {name: getattr(self, name) for name in names}


def corpus_bleu(
    hypotheses: Iterable[str],
    references: References,
    smooth_method: Smoothing = "exp",
    smooth_value: float | None = None,
    *,
    lowercase: bool = False,
    tokenize: str = "13a",
    use_effective_order: bool = False,
) -> BleuScore:
    """Texts [n], and columns of n references, as sacrebleu takes them. Raises BadInput."""
    state = Bleu(
        tokenize=tokenize,
        lowercase=lowercase,
        smooth=smooth_method,
        smooth_value=smooth_value,
        effective_order=use_effective_order,
    )
    return cast(BleuScore, _scored(state.update(hypotheses, references)))


def sentence_bleu(
    hypothesis: str,
    references: Sequence[str],
    smooth_method: Smoothing = "exp",
    smooth_value: float | None = None,
    *,
    lowercase: bool = False,
    tokenize: str = "13a",
    use_effective_order: bool = True,
) -> BleuScore:
    """A text and its references. Raises BadInput."""
    return corpus_bleu(
        [hypothesis],
        [[each] for each in _column("references", references)],
        smooth_method,
        smooth_value,
        lowercase=lowercase,
        tokenize=tokenize,
        use_effective_order=use_effective_order,
    )


def corpus_chrf(
    hypotheses: Iterable[str],
    references: References,
    char_order: int = 6,
    word_order: int = 0,
    beta: int = 2,
    *,
    remove_whitespace: bool = True,
    eps_smoothing: bool = False,
    lowercase: bool = False,
) -> ChrfScore:
    """Texts [n], and columns of n references, as sacrebleu takes them. Raises BadInput."""
    state = Chrf(
        char_order=char_order,
        word_order=word_order,
        beta=beta,
        lowercase=lowercase,
        whitespace=not remove_whitespace,
        eps_smoothing=eps_smoothing,
    )
    return cast(ChrfScore, _scored(state.update(hypotheses, references)))


def sentence_chrf(
    hypothesis: str,
    references: Sequence[str],
    char_order: int = 6,
    word_order: int = 0,
    beta: int = 2,
    *,
    remove_whitespace: bool = True,
    eps_smoothing: bool = False,
    lowercase: bool = False,
) -> ChrfScore:
    """A text and its references. Raises BadInput."""
    return corpus_chrf(
        [hypothesis],
        [[each] for each in _column("references", references)],
        char_order,
        word_order,
        beta,
        remove_whitespace=remove_whitespace,
        eps_smoothing=eps_smoothing,
        lowercase=lowercase,
    )


def _ngrams(sequence: Sequence[str], order: int) -> Counter[Any]:
    if isinstance(sequence, str):
        return Counter(sequence[start : start + order] for start in range(len(sequence) - order + 1))
    return Counter(zip(*(sequence[start:] for start in range(order)), strict=False))


def _without_punctuation(text: str) -> list[str]:
    """Words, of which a mark at the end, or else one at the beginning, is a word of its own (as in chrF++.py)."""
    words: list[str] = []
    for word in text.split():
        if len(word) > 1 and word[-1] in _STRIPPED:
            words += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in _STRIPPED:
            words += [word[0], word[1:]]
        else:
            words.append(word)
    return words


def _column(name: str, data: Any) -> list[Any]:
    """As a list; a column of numpy, Arrow, pandas or polars too."""
    if isinstance(data, (str, bytes)):
        raise BadInput(f"{name} is one text, not a list of them", remedy=f"give [{name}]")
    for listed in ("to_pylist", "to_list", "tolist"):
        if hasattr(data, listed):
            return list(getattr(data, listed)())
    try:
        return list(data)
    except TypeError:
        raise BadInput(f"{name} is {_what(data)}, not a list of texts") from None


def _rows(references: Any, texts: int) -> list[list[str]]:
    """The references of each text, from columns of them."""
    columns = _column("references", references)
    if columns and all(isinstance(each, str) for each in columns):
        columns = [columns]
    if not columns:
        raise BadInput("there are no references", remedy="give columns of them: references[j][i] is of hypothesis i")
    rows: list[list[str]] = [[] for _ in range(texts)]
    for which, data in enumerate(columns):
        column = _column(f"references[{which}]", data)
        if len(column) != texts:
            raise BadInput(
                f"references[{which}] has {len(column):,} texts for {texts:,} hypotheses",
                remedy="give columns as long as the hypotheses: references[j][i] is the j-th of hypothesis i",
            )
        for index, each in enumerate(column):
            if each is not None and not isinstance(each, str):
                raise BadInput(
                    f"references[{which}][{index}] is {_what(each)}, not a text", remedy="None where missing"
                )
            if each is not None:
                rows[index].append(each)
    return rows


def _what(value: object) -> str:
    return "None" if value is None else f"of the type {type(value).__name__}"


def _order(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 100:
        raise BadInput(f"{name} is a whole number from {least} to 100, not {value!r}")


def _scored(state: _Texts) -> Any:
    if not state.texts:
        raise BadInput("there are no texts", remedy="a score is of at least one; states answer NaN for none")
    return state.compute()
