"""The batches of a job: row r of step s is a function of corpus, seed, s and r, and of nothing else.

A rank of N takes rows rank, rank + N, ...: any number of ranks, any size of micro-batch and any
interruption see the same rows, with the same masks. Steps count from 0. A pass over all rows is an
epoch, in an order of its own; a batch may begin in one epoch and end in the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from phalanx.data import draws
from phalanx.data.batches import (
    NO_DOCUMENTS,
    NO_IDS,
    Batch,
    Cursor,
    LoaderSpec,
    Portion,
    Row,
    collate_causal,
    collate_masked,
)
from phalanx.data.corpus import Corpus, Split
from phalanx.data.errors import DataChanged, TextTooSmall
from phalanx.data.examples import ExampleRows
from phalanx.data.labelled import OBJECTIVES as LABELLED
from phalanx.data.masking import mask_count, mask_row
from phalanx.data.packing import PackedRows, Windows
from phalanx.data.pairs import Buckets, PairRows
from phalanx.data.vocabulary import Vocabulary

MAX_TOUCHED_BYTES = 1 << 30


class _Rows(Protocol):
    """Rows of one split, for one objective. `mean_tokens`: of a row, about."""

    @property
    def mean_tokens(self) -> float: ...

    def __len__(self) -> int: ...

    def row(self, index: int, epoch: int, mask: Callable[[], np.random.Generator]) -> Row: ...

    def predicted(self, rows: NDArray[np.int64], epochs: NDArray[np.int64]) -> int: ...

    def collate(self, rows: list[Row]) -> Batch: ...


class Loader:
    """Batches of `corpus` as `spec` asks for them. Raises TextTooSmall when an epoch has fewer rows than a batch."""

    def __init__(self, corpus: Corpus, spec: LoaderSpec) -> None:
        if spec.objective != corpus.objective:
            raise ValueError(f"the corpus was prepared for {corpus.objective}, not {spec.objective}")
        self.corpus, self.spec = corpus, spec
        self._train = _rows(corpus.train, corpus.vocabulary, spec)
        self._held_out = held_out_rows(corpus.held_out, corpus.vocabulary, spec)
        if len(self._train) < spec.global_batch:
            rows = f"sequences of {spec.sequence_length:,} tokens"
            if self.labelled or isinstance(self._train, PairRows):
                rows = "examples" if self.labelled else f"pairs of at most {spec.sequence_length:,} tokens"
            raise TextTooSmall(
                f"the training text gives {len(self._train):,} {rows}, fewer than one batch of {spec.global_batch:,}",
                where=corpus.manifest.source,
                remedy="use more text, or lower training.globalBatch or data.sequenceLength",
            )

    @property
    def vocabulary(self) -> Vocabulary:
        return self.corpus.vocabulary

    @property
    def labelled(self) -> bool:
        return isinstance(self._train, ExampleRows)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.corpus.manifest.labels

    @property
    def notes(self) -> tuple[str, ...]:
        """Of labelled examples that are longer than the model's length, how many are cut; of pairs, left out."""
        if isinstance(self._train, PairRows) and self._train.left_out:
            out, kept = self._train.left_out, len(self._train)
            length = f"{self.spec.sequence_length:,} tokens"
            return (f"{out:,} of {out + kept:,} training pairs are longer than {length}, and are left out",)
        if not isinstance(self._train, ExampleRows):
            return ()
        said = [f"{count:,} {reason} are left out" for reason, (count, _) in self.corpus.manifest.excluded.items()]
        if self._train.cut:
            pairs = ", the longer text of a pair first" if self.corpus.manifest.texts == 2 else ""
            cut, total = self._train.cut, len(self._train)
            said.append(f"{cut:,} of {total:,} training examples are cut to {self.spec.sequence_length} tokens{pairs}")
        return tuple(said)

    def feed(self, cursor: Cursor | None, rank: int, world: int, micro_batch: int, *, ahead: int = 0) -> StepFeed:
        """The cursor is the number of the next step. Rows are made in no time: nothing is prepared `ahead`.

        Raises DataChanged for a cursor that is no number.
        """
        return StepFeed(self, cursor, rank, world, micro_batch)

    def touch(self) -> None:
        for split in (self.corpus.train, self.corpus.held_out):
            if split.tokens.nbytes <= MAX_TOUCHED_BYTES:
                split.tokens[:: 4096 // split.tokens.itemsize].max(initial=0)

    def describe_into(self, directory: Path) -> None:
        self.corpus.describe_into(directory)

    @property
    def rows_per_epoch(self) -> int:
        return len(self._train)

    @property
    def held_out_rows(self) -> int:
        return len(self._held_out)

    def rows_of_step(self, step: int) -> list[tuple[int, int]]:
        """(epoch, row of the corpus) of each row of the global batch, in order."""
        if isinstance(self._train, PairRows):
            return self._rows_of_bucket(self._train, step)
        places = step * self.spec.global_batch + np.arange(self.spec.global_batch, dtype=np.int64)
        return self._rows_at(places)

    def _rows_of_bucket(self, pairs: PairRows, step: int) -> list[tuple[int, int]]:
        buckets = Buckets(len(pairs), self.spec.global_batch, self.spec.seed)
        found = self._rows_at(buckets.places(step))
        order = pairs.by_length(np.array([row for _, row in found], np.int64))
        return [found[place] for place in buckets.of_step(step, order).tolist()]

    def _rows_at(self, places: NDArray[np.int64]) -> list[tuple[int, int]]:
        """(epoch, row) at places of the endless order, int64 [n]."""
        epochs, indices = np.divmod(places, len(self._train))
        rows = np.empty_like(indices)
        for epoch in np.unique(epochs):
            order = draws.Permutation(len(self._train), self.spec.seed, draws.ORDER, int(epoch))
            rows[epochs == epoch] = order(indices[epochs == epoch])
        return list(zip(epochs.tolist(), rows.tolist(), strict=True))

    def batch(self, step: int, rank: int = 0, world: int = 1) -> list[Row]:
        """This rank's rows of the step; none when there are more ranks than rows."""
        return [
            self._train.row(row, epoch, _mask(self.spec.seed, draws.MASKS, step, place))
            for place, (epoch, row) in enumerate(self.rows_of_step(step))
            if place % world == rank
        ]

    def micro_batches(self, step: int, rank: int, world: int, micro_batch: int) -> list[Batch]:
        """This rank's rows of the step, `micro_batch` at a time."""
        rows = self.batch(step, rank, world)
        return [self._train.collate(rows[start : start + micro_batch]) for start in range(0, len(rows), micro_batch)]

    def largest_batch(self, rows: int, world: int = 1) -> Batch:
        """A micro-batch of `rows` that takes as much memory as any; of rank 0 of `world`."""
        if isinstance(self._train, PairRows):
            return self._train.collate([self._train.row(int(row)) for row in self._train.longest(rows)])
        return self.micro_batches(0, 0, world, rows)[0]

    def predicted_tokens_of_step(self, step: int) -> int:
        """Terms of the loss in the global batch: known to every rank without a word to the others."""
        epochs, rows = np.array(self.rows_of_step(step), np.int64).T
        return self._train.predicted(rows, epochs)

    def validation_batches(self, max_tokens: int, micro_batch: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """This rank's part of a fixed sample of about `max_tokens` held-out tokens (at least one row), spread over
        all of them; the same rows and masks whenever and by however many it is asked for."""
        return sample_batches(self._held_out, self.spec, max_tokens, micro_batch, rank, world)


class _Steps(Protocol):
    """Data whose steps are numbered, and can be asked for in any order."""

    def micro_batches(self, step: int, rank: int, world: int, micro_batch: int) -> list[Batch]: ...

    def predicted_tokens_of_step(self, step: int) -> int: ...


class StepFeed:
    """Portions of data whose steps are numbered; the cursor is the number of the next one."""

    def __init__(self, data: _Steps, cursor: Cursor | None, rank: int, world: int, micro_batch: int) -> None:
        if not isinstance(cursor, int | None):
            raise DataChanged(
                "the checkpoint belongs to a run on a built dataset, and this is another kind of data",
                where="data.source",
                remedy="resume with the data that the run began with, or start a new run",
            )
        self._data, self._step = data, cursor or 0
        self._rank, self._world, self._micro_batch = rank, world, micro_batch

    def take(self) -> Portion:
        step, self._step = self._step, self._step + 1
        batches = self._data.micro_batches(step, self._rank, self._world, self._micro_batch)
        return Portion(tuple(batches), self._data.predicted_tokens_of_step(step), self._step)

    def close(self) -> None:
        """There is nothing to close."""


def held_out_rows(split: Split, vocabulary: Vocabulary, spec: LoaderSpec) -> _Rows:
    """Few held-out tokens are read in one short row; too little training text is refused."""
    shorter = replace(spec, sequence_length=max(1, min(spec.sequence_length, len(split.tokens) - 1)))
    return _rows(split, vocabulary, shorter if spec.objective == "causal-lm" else spec)


def sample_batches(
    rows: _Rows, spec: LoaderSpec, max_tokens: int, micro_batch: int, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """A rank's part of a sample of held-out rows, as `TrainingData.validation_batches` says."""
    count = min(len(rows), max(1, int(max_tokens // rows.mean_tokens)))
    order = draws.Permutation(len(rows), spec.seed, draws.VALIDATION_ORDER)(np.arange(count))
    mine = [rows.row(int(row), 0, _mask(spec.seed, draws.VALIDATION_MASKS, 0, int(row))) for row in order[rank::world]]
    for start in range(0, len(mine), micro_batch):
        yield rows.collate(mine[start : start + micro_batch])


def _mask(seed: int, purpose: int, first: int, second: int) -> Callable[[], np.random.Generator]:
    return lambda: draws.generator(seed, purpose, first, second)


def _rows(split: Split, vocabulary: Vocabulary, spec: LoaderSpec) -> _Rows:
    if spec.objective == "causal-lm":
        return _CausalRows(split, vocabulary, spec)
    if spec.objective in LABELLED:
        return ExampleRows(split, vocabulary, spec)
    if spec.objective == "translate":
        return PairRows(split, vocabulary, spec)
    return _MaskedRows(split, vocabulary, spec)


class _CausalRows:
    def __init__(self, split: Split, vocabulary: Vocabulary, spec: LoaderSpec) -> None:
        self._windows = Windows(split, spec.sequence_length)
        self._length = spec.sequence_length
        self.mean_tokens = float(self._length)
        self._vocabulary = vocabulary
        self._seed = spec.seed
        self._cross = spec.cross_documents

    def __len__(self) -> int:
        return len(self._windows)

    def row(self, index: int, epoch: int, mask: Callable[[], np.random.Generator]) -> Row:
        shift = self._shift(epoch)
        documents = NO_DOCUMENTS if self._cross else self._windows.documents(index, shift)
        return Row(self._windows.row(index, shift), documents, NO_IDS, NO_IDS)

    def predicted(self, rows: NDArray[np.int64], epochs: NDArray[np.int64]) -> int:
        """Without what a document begins with, where rows do not cross documents."""
        predicted = len(rows) * self._length
        if not self._cross:
            for row, epoch in zip(rows.tolist(), epochs.tolist(), strict=True):
                predicted -= int(self._windows.documents(row, self._shift(epoch))[-1]) - 1
        return predicted

    def collate(self, rows: list[Row]) -> Batch:
        return collate_causal(rows, self._vocabulary)

    def _shift(self, epoch: int) -> int:
        """Every epoch cuts the text at other places; the first, and held-out text, from the start."""
        return int(draws.generator(self._seed, draws.SHIFT, epoch).integers(self._length)) if epoch else 0


class _MaskedRows:
    def __init__(self, split: Split, vocabulary: Vocabulary, spec: LoaderSpec) -> None:
        ids = (vocabulary.cls_id, vocabulary.sep_id, vocabulary.mask_id, vocabulary.pad_id)
        if None in ids:
            raise ValueError("a vocabulary for masked-lm has [CLS], [SEP], [MASK] and [PAD]")
        cls_id, sep_id, self._mask_id, self._pad_id = (int(id_) for id_ in ids if id_ is not None)
        self._packed = PackedRows(split, spec.sequence_length, cls_id, sep_id, vocabulary.unk_id)
        self._special = np.array(sorted(vocabulary.special.values()), np.int64)
        self._ordinary = vocabulary.ordinary_ids
        self._probability = spec.mask_probability
        self._length = spec.sequence_length
        self.mean_tokens = float(self._length)

    def __len__(self) -> int:
        return len(self._packed)

    def row(self, index: int, epoch: int, mask: Callable[[], np.random.Generator]) -> Row:
        tokens, document = self._packed.row(index)
        seen, positions, targets = mask_row(
            tokens, self._special, self._ordinary, self._mask_id, self._probability, mask()
        )
        return Row(seen, document, positions, targets)

    def predicted(self, rows: NDArray[np.int64], epochs: NDArray[np.int64]) -> int:
        return int(mask_count(self._packed.ordinary(rows), self._probability).sum())

    def collate(self, rows: list[Row]) -> Batch:
        return collate_masked(rows, self._length, self._pad_id)
