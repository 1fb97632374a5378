"""A prepared corpus: tokens of both splits in memory-mapped files, with their vocabulary and a manifest.

Made once, kept in a cache directory under a digest of everything that decides its content, and
only read from then on. Knows nothing of batches. Nothing in it is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.data.errors import DataError
from phalanx.data.vocabulary import Vocabulary
from phalanx.foundation import ensure_private_directory, write_atomic
from phalanx.job.spec import Objective

SCHEMA = 1
SPLITS = ("train", "held_out")
MANIFEST, VOCABULARY = "corpus.json", "tokenizer.json"


class CorpusDamaged(DataError):
    """A prepared corpus is incomplete or does not fit its manifest. Remedy: delete it; it is prepared anew."""


@dataclass(frozen=True)
class SplitCounts:
    """`files`: files (or sections of a file) it comes from; `bytes`: of UTF-8 text; `tokens`: with end marks."""

    files: int
    documents: int
    bytes: int
    tokens: int


@dataclass(frozen=True)
class CorpusManifest:
    """What a corpus is and how it came about. `excluded`: reason -> (files, bytes) left out of the source.

    Of labelled examples `labels`: the names of what they are told apart by (none for numbers), and `texts`: how many
    documents in a row make an example, 1 or 2.
    """

    digest: str
    source: str
    objective: Objective
    vocabulary_kind: str
    vocabulary_size: int
    train: SplitCounts
    held_out: SplitCounts
    excluded: dict[str, tuple[int, int]]
    labels: tuple[str, ...] = ()
    texts: int = 1
    schema: int = SCHEMA

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> CorpusManifest:
        """Raises ValueError, KeyError or TypeError for anything that is not a manifest of this schema."""
        values: dict[str, Any] = json.loads(text)
        if values["schema"] != SCHEMA:
            raise ValueError(f"schema {values['schema']}, expected {SCHEMA}")
        for split in SPLITS:
            values[split] = SplitCounts(**values[split])
        values["excluded"] = {reason: (int(n), int(size)) for reason, (n, size) in values["excluded"].items()}
        values["labels"] = tuple(values.get("labels", ()))
        return cls(**values)

    def describe(self) -> str:
        """One paragraph for a person: how much text there is, and what was left out."""
        excluded = sorted(self.excluded.items())
        if self.objective == "translate":
            pairs, held_out = self.train.documents // self.texts, self.held_out.documents // self.texts
            left_out = "; ".join(f"{count:,} pairs {why}" for why, (count, _) in excluded)
            return f"{self.source}: {pairs:,} pairs to train on, {held_out:,} held out" + (
                f"; left out: {left_out}" if left_out else ""
            )
        left_out = "; ".join(f"{files:,} files ({size / 1e6:.1f} MB) {why}" for why, (files, size) in excluded)
        return (
            f"{self.source}: {self.train.bytes / 1e6:.2f} MB of text in {self.train.files:,} files to train on, "
            f"{self.held_out.bytes / 1e6:.2f} MB in {self.held_out.files:,} files held out"
            + (f"; left out: {left_out}" if left_out else "")
        )


@dataclass(frozen=True)
class Split:
    """Tokens of one split. `tokens`: uint16 or uint32 [n], read-only; `offsets`: int64 [documents + 1].

    Document i is `tokens[offsets[i]:offsets[i + 1]]`; for causal-lm its last token is the end mark. `labels`: of
    classify int64 and of regress float32, [examples]; of tag int64 [n]: at the first token of each word its tag, else
    -1; None for all else.
    """

    tokens: NDArray[Any]
    offsets: NDArray[np.int64]
    labels: NDArray[Any] | None = None

    @property
    def documents(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus, opened."""

    directory: Path
    manifest: CorpusManifest
    vocabulary: Vocabulary
    train: Split
    held_out: Split

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def objective(self) -> Objective:
        return self.manifest.objective

    def split(self, name: str) -> Split:
        """`train` or `held_out` (`held-out` too)."""
        return {"train": self.train, "held_out": self.held_out, "held-out": self.held_out}[name]

    def names(self, split: str) -> list[str]:
        """Names of the split's documents."""
        names: dict[str, list[str]] = json.loads((self.directory / "documents.json").read_text("utf-8"))
        return names[split]

    @classmethod
    def open(cls, directory: Path) -> Corpus:
        """Open what `prepare` left at `directory`. Raises CorpusDamaged."""
        try:
            manifest = CorpusManifest.from_json((directory / MANIFEST).read_text("utf-8"))
            vocabulary = Vocabulary.load(directory / VOCABULARY)
            splits = {name: _open_split(directory, name) for name in SPLITS}
            for name in SPLITS:
                counts: SplitCounts = getattr(manifest, name)
                split = splits[name]
                if (len(split.tokens), split.documents) != (counts.tokens, counts.documents):
                    raise ValueError(f"{name}.npy holds another number of tokens than the manifest says")
                wanted = len(split.tokens) if manifest.objective == "tag" else split.documents // manifest.texts
                if split.labels is not None and split.labels.shape != (wanted,):
                    raise ValueError(f"{name}.labels.npy holds another number of labels than the manifest says")
            if vocabulary.size != manifest.vocabulary_size:
                raise ValueError("the vocabulary is of another size than the manifest says")
        except (OSError, ValueError, KeyError, TypeError, EOFError, DataError) as error:
            reason = error.message if isinstance(error, DataError) else str(error)
            raise CorpusDamaged(
                f"the prepared corpus is damaged ({reason})",
                where=str(directory),
                remedy="delete this directory and run again: it is prepared anew",
            ) from error
        return cls(directory, manifest, vocabulary, splits["train"], splits["held_out"])

    def describe_into(self, directory: Path) -> None:
        """Copy vocabulary and manifest into `directory` (a run's `data/`), whole or not at all."""
        ensure_private_directory(directory)
        write_atomic(directory / VOCABULARY, self.vocabulary.to_json())
        write_atomic(directory / MANIFEST, self.manifest.to_json())


def _open_split(directory: Path, name: str) -> Split:
    tokens = np.load(directory / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    offsets = np.load(directory / f"{name}.offsets.npy", allow_pickle=False)
    if tokens.dtype not in (np.uint16, np.uint32) or offsets.dtype != np.int64 or tokens.ndim != 1 or offsets.ndim != 1:
        raise ValueError(f"{name}.npy has an unexpected type or shape")
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(tokens) or (np.diff(offsets) < 0).any():
        raise ValueError(f"{name}.offsets.npy does not fit its tokens")
    file = directory / f"{name}.labels.npy"
    return Split(tokens, offsets, np.load(file, mmap_mode="r", allow_pickle=False) if file.exists() else None)


class SplitWriter:
    """Writes tokens of a split document by document; a document's tokens are all that is held in memory."""

    def __init__(self, directory: Path, name: str, dtype: np.dtype[Any]) -> None:
        self._directory, self._name, self._dtype = directory, name, dtype
        self._raw = directory / f"{name}.raw"
        self._file = self._raw.open("wb")
        self._offsets = [0]

    def add(self, documents: Sequence[NDArray[Any]]) -> None:
        for tokens in documents:
            self._file.write(tokens.astype(self._dtype, copy=False).tobytes())
            self._offsets.append(self._offsets[-1] + len(tokens))

    def close(self) -> int:
        """Leave `<name>.npy` and `<name>.offsets.npy`; returns the number of tokens."""
        self._file.close()
        total = self._offsets[-1]
        target = np.lib.format.open_memmap(self._directory / f"{self._name}.npy", "w+", self._dtype, (total,))
        if total:
            target[:] = np.memmap(self._raw, self._dtype, "r")
        target.flush()
        np.save(self._directory / f"{self._name}.offsets.npy", np.array(self._offsets, np.int64), allow_pickle=False)
        self._raw.unlink()
        return total
