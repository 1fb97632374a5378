"""Names found in text: tags of words read as entities (BIO, IOBES), and how many of them are found whole.

An entity is right when its first word, its last word and its kind are (CoNLL-2003's F1; tags as conlleval reads them).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics.intervals import wilson

Entity = tuple[int, int, str]
"""First word, the word after its last, and its kind."""


def entities_of(tags: Sequence[str]) -> Iterator[Entity]:
    """Of one sentence. B- and S- begin an entity, I- and E- go on with one of the same kind or begin it."""
    start, kind = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        mark, _, name = tag.partition("-")
        goes_on = bool(kind) and mark in ("I", "E") and name == kind and not _ends(tags, place)
        if kind and not goes_on:
            yield start, place, kind
            kind = ""
        if not kind and mark in ("B", "I", "E", "S"):
            start, kind = place, name


def _ends(tags: Sequence[str], place: int) -> bool:
    """Whether the word before `place` closes its entity."""
    return tags[place - 1].partition("-")[0] in ("E", "S")


def are_entities(tags: Sequence[str]) -> bool:
    """Whether these names of tags mark entities: O, and marks with kinds."""
    marked = [tag for tag in tags if tag != "O"]
    return bool(marked) and len(marked) < len(tags) and all(tag[:2] in ("B-", "I-", "E-", "S-") for tag in marked)


def entity_scores(truth: NDArray[Any], called: NDArray[Any], sentence: NDArray[np.int64]) -> dict[str, Any] | None:
    """Precision, recall and F1 of entities found whole, of all and by kind, JSON-safe; None where tags mark none.

    `truth`, `called`: tags [words]; `sentence`: of each word, rising.
    """
    if not are_entities(sorted(set(truth.tolist()) | set(called.tolist()))):
        return None
    there, found, right = (Counter[str]() for _ in range(3))
    bounds = [0, *(np.flatnonzero(np.diff(sentence)) + 1).tolist(), len(truth)]
    for start, end in itertools.pairwise(bounds):
        true, said = set(entities_of(truth[start:end].tolist())), set(entities_of(called[start:end].tolist()))
        there.update(kind for *_, kind in true)
        found.update(kind for *_, kind in said)
        right.update(kind for *_, kind in true & said)
    each = {kind: _scores(right[kind], found[kind], there[kind]) for kind in sorted(there | found)}
    return _scores(right.total(), found.total(), there.total()) | {"kinds": each}


def _scores(right: int, found: int, there: int) -> dict[str, Any]:
    """Undefined is None."""
    return {
        "entities": there,
        "found": found,
        "right": right,
        "precision": asdict(wilson(right, found)) if found else None,
        "recall": asdict(wilson(right, there)) if there else None,
        "f1": 2 * right / (found + there) if found + there else None,
    }
