"""Batches of datasets of any size: one global sequence of rows, of which each rank takes every Nth.

The sequence is a function of the datasets, their weights, the seed, the objective, the sequence length and the global
batch; the number of ranks is not among them. A cursor is all that is needed to go on from a place in the middle of an
epoch, and going there takes no longer than beginning. Tokens are read for a rank's own rows only; of all other
documents only the lengths.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phalanx.data.batches import Batch, Cursor, Feed, LoaderSpec, Portion
from phalanx.data.dataset import VOCABULARY, Dataset, is_dataset
from phalanx.data.errors import DataChanged, DatasetDamaged, TextTooSmall, TokenizersDiffer, UnfitVocabulary
from phalanx.data.loader import held_out_rows, sample_batches
from phalanx.data.prefetch import Orders, PrefetchedFeed
from phalanx.data.sampling import SampledCorpus, sample, sampled_corpus
from phalanx.data.stream_order import DocumentOrder, Place
from phalanx.data.stream_rows import CausalRows, MaskedRows, StreamRows
from phalanx.data.vocabulary import Vocabulary
from phalanx.foundation import ensure_private_directory, write_atomic
from phalanx.job import DataSpec, VocabularySpec
from phalanx.job.spec import Objective

SEQUENCE = 1  # version of what decides the order of rows: a cursor of another one is refused
RECORD = "datasets.json"
OBJECTIVES: tuple[Objective, ...] = ("causal-lm", "masked-lm")


def has_datasets(spec: DataSpec) -> bool:
    """Whether the job trains on built datasets."""
    return bool(spec.mix) or is_dataset(Path(spec.source).expanduser())


def open_datasets(spec: DataSpec, objective: Objective) -> tuple[list[Dataset], list[float]]:
    """The datasets of a job and their weights.

    Raises DatasetDamaged, TokenizersDiffer, and UnfitVocabulary when their vocabulary cannot serve the objective, or
    the job asks for another one beside it.
    """
    found = [Dataset.open(Path(part.source).expanduser()) for part in spec.parts]
    first = found[0]
    for other in found[1:]:
        if other.manifest.tokenizer_sha256 != first.manifest.tokenizer_sha256:
            raise TokenizersDiffer(
                f"was made with another tokenizer than {first.directory}: the same number is another token there",
                where=str(other.directory),
                remedy=f"build it again with the other's: phalanx data build ... --tokenizer {first.directory}",
            )
    for name, what, given, default in (
        ("vocabulary", "vocabulary", spec.vocabulary, VocabularySpec()),
        ("heldOut", "held-out part", spec.held_out, DataSpec.model_fields["held_out"].default),
    ):
        if given != default:
            raise UnfitVocabulary(
                f"a built dataset has its {what} already",
                where=f"spec.data.{name}",
                remedy=f"leave data.{name} out, or build the dataset again with another one",
            )
    check_serves(first.vocabulary, objective, str(first.directory))
    return found, [part.weight for part in spec.parts]


def check_serves(vocabulary: Vocabulary, objective: Objective, where: str) -> None:
    """Raises UnfitVocabulary when special tokens are missing that `objective` needs, or it is not for datasets."""
    if objective not in OBJECTIVES:
        raise UnfitVocabulary(
            f"a built dataset is text without labels or translations: nothing to learn {objective} from",
            where=where,
            remedy=f"use objective: {' or '.join(OBJECTIVES)}, or name a file of examples as the source",
        )
    try:
        vocabulary.check_serves(objective)
    except UnfitVocabulary as error:
        remedy = f"build the dataset again with a vocabulary for {objective}"
        raise UnfitVocabulary(error.message, where=where, remedy=remedy) from error


class StreamLoader:
    """The training data of a job on datasets. Raises TextTooSmall when they hold less than one batch, or nothing is
    held out; UnfitVocabulary as `check_serves`."""

    def __init__(self, datasets: Sequence[Dataset], weights: Sequence[float], spec: LoaderSpec) -> None:
        self.datasets, self.weights, self.spec = tuple(datasets), tuple(weights), spec
        self.name = " + ".join(str(data.directory) for data in datasets)
        check_serves(self.vocabulary, spec.objective, self.name)
        for data in datasets:
            if not len(data.train):
                raise TextTooSmall("has no documents to train on", where=str(data.directory), remedy="build it of more")
        tokens = sum(data.train.tokens + 2 * len(data.train) for data in datasets)
        if tokens < spec.global_batch * spec.sequence_length:
            raise TextTooSmall(
                f"has {tokens:,} tokens to train on, fewer than one batch of {spec.global_batch:,} sequences of "
                f"{spec.sequence_length:,}",
                where=self.name,
                remedy="use more text, or lower training.globalBatch or data.sequenceLength",
            )
        if not any(len(data.held_out) for data in datasets):
            raise TextTooSmall(
                "has no documents that are held out, so nothing says how good the model is",
                where=self.name,
                remedy="build the dataset again with a larger share held out",
            )

    @property
    def vocabulary(self) -> Vocabulary:
        return self.datasets[0].vocabulary

    @property
    def labels(self) -> tuple[str, ...]:
        """Text of datasets has none."""
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Of a mix, the shares."""
        if len(self.weights) == 1:
            return ()
        shares = [weight / sum(self.weights) for weight in self.weights]
        parts = [f"{share:.1%} from {data.directory}" for share, data in zip(shares, self.datasets, strict=True)]
        return (f"of the tokens {', '.join(parts)}",)

    @property
    def fingerprint(self) -> str:
        """Hexadecimal, of all that decides the sequence of rows."""
        spec = self.spec
        parts = [SEQUENCE, [data.digest for data in self.datasets], self.weights, spec.seed, spec.objective]
        parts += [spec.sequence_length, spec.global_batch, spec.cross_documents]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def feed(self, cursor: Cursor | None, rank: int, world: int, micro_batch: int, *, ahead: int = 0) -> Feed:
        """As `batches.TrainingData` says; the process that prepares `ahead` opens the datasets for itself."""
        if not ahead:
            return StreamFeed(self, cursor, rank, world, micro_batch)
        _rows_at(self, cursor)  # one that does not fit is told here and now
        directories = tuple(str(data.directory.absolute()) for data in self.datasets)
        return PrefetchedFeed(
            Orders(directories, self.weights, self.spec, self.fingerprint, cursor, rank, world, micro_batch), ahead
        )

    def validation_batches(self, max_tokens: int, micro_batch: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """As `batches.TrainingData` says, of documents drawn at random from all that are held out."""
        spec = self.spec
        held_out = [data.held_out for data in self.datasets]
        wanted = max_tokens + spec.sequence_length
        split = sample(held_out, self.weights, self.vocabulary, spec.objective, wanted, spec.seed)
        rows = held_out_rows(split, self.vocabulary, spec)
        return sample_batches(rows, spec, max_tokens, micro_batch, rank, world)

    def sampled_corpus(self, seed: int = 0) -> SampledCorpus:
        """What an evaluation is made on."""
        return sampled_corpus(self.datasets, self.weights, self.spec.objective, seed, self.name)

    def touch(self) -> None:
        """Nothing: another process reads, and nothing is read again and again."""

    def describe_into(self, directory: Path) -> None:
        """Leave the vocabulary and the datasets' digests, by which `check_record` knows them."""
        ensure_private_directory(directory)
        record = [{"source": str(data.directory), "digest": data.digest} for data in self.datasets]
        write_atomic(directory / VOCABULARY, self.vocabulary.to_json())
        write_atomic(directory / RECORD, json.dumps(record, indent=1) + "\n")

    def check_record(self, directory: Path) -> None:
        """Raises DataChanged when a run that left its record in `directory` began with other datasets."""
        path = directory / RECORD
        try:
            began = [entry["digest"] for entry in json.loads(path.read_bytes())]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetDamaged(
                f"the record of the run's data is damaged ({error})", where=str(path), remedy="run the job again"
            ) from error
        if began != [data.digest for data in self.datasets]:
            raise DataChanged(
                "is not the dataset that the run began with: it was built again since",
                where=self.name,
                remedy="bring the dataset back as it was, or start a new run on that of today",
            )


class StreamFeed:
    """The portions of one rank, made in this process."""

    def __init__(self, data: StreamLoader, cursor: Cursor | None, rank: int, world: int, micro_batch: int) -> None:
        self._of, self._micro_batch = data.fingerprint, micro_batch
        self._wanted = np.arange(rank, data.spec.global_batch, world)
        self._step, self._rows = _rows_at(data, cursor)

    def take(self) -> Portion:
        rows, predicted = self._rows.batch(self._step, self._wanted)
        self._step += 1
        starts = range(0, len(rows), self._micro_batch)
        batches = tuple(self._rows.collate(rows[start : start + self._micro_batch]) for start in starts)
        return Portion(batches, predicted, {"of": self._of, "step": self._step, **self._rows.position()})

    def close(self) -> None:
        """There is nothing to close."""


def _rows_at(data: StreamLoader, cursor: Cursor | None) -> tuple[int, StreamRows]:
    """The step and the rows that `cursor` stands before."""
    if not isinstance(cursor, dict | None) or (cursor is not None and cursor.get("of") != data.fingerprint):
        raise DataChanged(
            "the checkpoint belongs to a run on other data, or with another seed, sequence length, global batch or mix",
            where=data.name,
            remedy="resume the job as it was when it began, or start a new run",
        )
    position: dict[str, Any] = dict(cursor or {})
    position.pop("of", None)
    step = position.pop("step", 0)
    places = [Place(*place) for place in position.pop("sources")] if cursor else None
    sources = [source.train for source in data.datasets]
    order = DocumentOrder(sources, data.weights, data.spec.seed, places=places)
    rows = CausalRows if data.spec.objective == "causal-lm" else MaskedRows
    return step, rows(sources, data.vocabulary, data.spec, order, **position)
