"""What a dataset on disk holds: counts, lengths, padding, what was left out, samples; and whether it is still whole.

Streams through the indexes, and reads tokens for samples (or checksums) only. Gives numbers; drawing is for others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.data.dataset import SPLITS, Dataset, DatasetManifest, Documents
from phalanx.data.errors import DataChanged
from phalanx.data.packing import pack
from phalanx.foundation import sha256_file

_DOCUMENTS_AT_ONCE = 1 << 20
_PACKED_TOGETHER = 4096
_PACKED_GROUPS = 64
_SAMPLE_TOKENS = 200
_MARKS = 2  # [CLS] and [SEP]


@dataclass(frozen=True)
class Lengths:
    """Of documents, in tokens. `bins`: (from, to, documents, tokens), `to` included, doubling in width."""

    least: int
    tenth: int
    median: int
    ninetieth: int
    most: int
    mean: float
    bins: tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True)
class Slots:
    """Share of the places in rows of `sequence_length` that hold no token of a document, end marks and all.

    `one_a_row`: each document in rows of its own, the last one padded. `packed`: pieces side by side with their [CLS]
    and [SEP], as masked training packs them, best fit among those of 4,096 successive documents (of large datasets, in
    64 such groups). `joined`: one after the other with an end mark, cut every `sequence_length`, as causal training
    does: nothing is padded. `cut`: share of documents longer than a row.
    """

    sequence_length: int
    one_a_row: float
    packed: float
    joined: float
    cut: float


@dataclass(frozen=True)
class SplitFacts:
    """Of `train` or `held_out`: `bytes` of UTF-8 text; `lengths` (tokens) and `slots`: None without documents."""

    documents: int
    tokens: int
    bytes: int
    shards: int
    lengths: Lengths | None
    slots: Slots | None


@dataclass(frozen=True)
class Sample:
    """The beginning of a document: `number` in its split, `tokens` it has in all."""

    split: str
    number: int
    tokens: int
    text: str


@dataclass(frozen=True)
class Inspection:
    """`verified`: whether checksums were compared, and fitted. None of the rest depends on the sources being there."""

    directory: Path
    digest: str
    manifest: DatasetManifest
    splits: dict[str, SplitFacts]
    samples: tuple[Sample, ...]
    verified: bool

    def to_json(self) -> dict[str, Any]:
        """JSON-safe; sources are counted, not listed."""
        manifest = self.manifest
        return {
            "directory": str(self.directory),
            "digest": self.digest,
            "verified": self.verified,
            "tokenizer": {
                "kind": manifest.vocabulary_kind,
                "size": manifest.vocabulary_size,
                "sha256": manifest.tokenizer_sha256,
            },
            "licence": manifest.licence,
            "sources": {"files": len(manifest.sources), "bytes": sum(source.bytes for source in manifest.sources)},
            "splits": {name: asdict(facts) for name, facts in self.splits.items()},
            "excluded": {
                reason: {
                    "documents": documents,
                    "bytes": size,
                    "examples": manifest.made.get("examples", {}).get(reason, []),
                }
                for reason, (documents, size) in sorted(manifest.excluded.items())
            },
            "made": {name: value for name, value in manifest.made.items() if name != "examples"},
            "samples": [asdict(sample) for sample in self.samples],
        }


def inspect_dataset(
    directory: Path,
    *,
    sequence_length: int = 512,
    samples: int = 3,
    verify: bool = False,
    progress: Callable[[str, float], None] = lambda file, share: None,
) -> Inspection:
    """Raises DatasetDamaged for a file missing, cut or of another dataset; with `verify` for any altered byte."""
    dataset = Dataset.open(directory)
    if verify:
        dataset.verify(progress)
    manifest = dataset.manifest
    splits = {}
    for name in SPLITS:
        documents = dataset.split(name)
        lengths = _lengths(documents)
        splits[name] = SplitFacts(
            manifest.documents(name),
            manifest.tokens(name),
            manifest.bytes(name),
            len(manifest.splits[name]),
            None if lengths is None else _facts(*lengths),
            None if lengths is None else _slots(documents, *lengths, sequence_length),
        )
    return Inspection(directory, dataset.digest, manifest, splits, tuple(_samples(dataset, samples)), verify)


def check_sources(manifest: DatasetManifest, *, hashes: bool = False) -> None:
    """Whether every source is what it was when the dataset was made. Names are looked up from the present directory.

    A file of the same size and time counts as the same unless `hashes`; one of another time is compared by its SHA-256.
    Raises DataChanged, naming the first few.
    """
    problems = [
        f"{source.name} {what}"
        for source in manifest.sources
        if (what := _change(Path(source.name), source.bytes, source.mtime_ns, source.sha256, hashes=hashes))
    ]
    if problems:
        more = f"; and {len(problems) - 5:,} more" if len(problems) > 5 else ""
        raise DataChanged(
            f"{len(problems):,} of {len(manifest.sources):,} sources changed since the dataset was made: "
            f"{'; '.join(problems[:5])}{more}",
            where=os.getcwd(),
            remedy="the dataset holds the text of then; build it again for that of now",
        )


def _change(path: Path, size: int, mtime_ns: int, digest: str, *, hashes: bool) -> str | None:
    try:
        now = path.stat()
        if now.st_size != size:
            return f"had {size:,} bytes, has {now.st_size:,}"
        if (hashes or now.st_mtime_ns != mtime_ns) and sha256_file(path) != digest:
            return "holds other bytes"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def _lengths(documents: Documents) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Distinct lengths, ascending, and how many documents have each; None without documents."""
    values, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    for shard in documents.shards:
        for first in range(0, shard.facts.documents, _DOCUMENTS_AT_ONCE):
            found, many = np.unique(np.diff(shard.offsets[first : first + _DOCUMENTS_AT_ONCE + 1]), return_counts=True)
            merged = np.union1d(values, found)
            total = np.zeros(len(merged), np.int64)
            total[np.searchsorted(merged, values)] += counts
            total[np.searchsorted(merged, found)] += many
            values, counts = merged, total
    return (values, counts) if len(values) else None


def _facts(values: NDArray[np.int64], counts: NDArray[np.int64]) -> Lengths:
    reached = np.cumsum(counts)

    def quantile(share: float) -> int:
        """The least length that at least this share of documents does not exceed."""
        return int(values[np.searchsorted(reached, share * reached[-1])])

    bins = []
    low = 1
    while low <= values[-1]:
        inside = (values >= low) & (values < 2 * low)
        bins.append((low, 2 * low - 1, int(counts[inside].sum()), int((values * counts)[inside].sum())))
        low *= 2
    while len(bins) > 1 and not bins[0][2]:
        bins.pop(0)
    mean = float((values * counts).sum() / reached[-1])
    return Lengths(int(values[0]), quantile(0.1), quantile(0.5), quantile(0.9), int(values[-1]), mean, tuple(bins))


def _slots(documents: Documents, values: NDArray[np.int64], counts: NDArray[np.int64], length: int) -> Slots:
    rows = -(-values // length)
    padded = 1 - float((values * counts).sum() / ((rows * counts).sum() * length))
    tokens = slots = 0
    for whole, rests in _groups(documents, length - _MARKS):
        _, bounds = pack(rests + _MARKS, length)
        tokens += whole * length + int(rests.sum()) + _MARKS * len(rests)
        slots += (whole + len(bounds) - 1) * length
    cut = float(counts[values > length].sum() / counts.sum())
    return Slots(length, padded, 1 - tokens / slots, 0.0, cut)


def _groups(documents: Documents, longest: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Of successive documents, from all over the split: pieces of `longest` tokens, which fill a row each, and the
    lengths of what is left of each document."""
    groups = -(-len(documents) // _PACKED_TOGETHER)
    for group in np.unique(np.linspace(0, groups - 1, min(groups, _PACKED_GROUPS)).astype(np.int64)).tolist():
        first = group * _PACKED_TOGETHER
        sizes = documents.lengths(np.arange(first, min(first + _PACKED_TOGETHER, len(documents))))
        rests = sizes % longest
        yield int((sizes // longest).sum()), rests[rests > 0]


def _samples(dataset: Dataset, count: int) -> Iterator[Sample]:
    """Documents for training at even distances."""
    documents = dataset.train
    for place in range(min(count, len(documents))):
        number = (2 * place + 1) * len(documents) // (2 * min(count, len(documents)))
        tokens = int(documents.lengths([number])[0])
        text = dataset.vocabulary.decode(documents.read(number, 0, _SAMPLE_TOKENS))
        yield Sample("train", number, tokens, text)
