"""The order in which a stream reads the documents of one dataset or a mix: one sequence, whoever asks for it.

Of each dataset an epoch is a keyed permutation of all its documents, across its shards. The next document of a mix
comes from the dataset that has given the fewest tokens for its weight so far (stride scheduling, Waldspurger & Weihl
1995): shares are kept by tokens, at every moment, whatever the lengths. Only lengths are read. Knows nothing of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from phalanx.data import draws
from phalanx.data.dataset import Documents

_BLOCKS = (16, 2048)  # documents read at once: few at first, so that entering a sequence takes no time
# What is known of a document that comes: its dataset, epoch and place in the epoch's order; how many tokens the dataset
# had given before; its number in the dataset and its length.
_COMING = np.dtype([(name, np.int64) for name in ("source", "epoch", "place", "before", "document", "tokens")])


class Place(NamedTuple):
    """Where a dataset stands: the next document's `epoch` and place in its order, and the tokens given before it."""

    epoch: int = 0
    place: int = 0
    tokens: int = 0


class DocumentOrder:
    """The sequence from `places` on (one a dataset; None: the beginning). Every dataset has documents."""

    def __init__(
        self,
        sources: Sequence[Documents],
        weights: Sequence[float],
        seed: int,
        purpose: int = draws.DOCUMENTS,
        places: Sequence[Place] | None = None,
    ) -> None:
        self._weights = np.array(weights, np.float64)
        begin = places or [Place()] * len(sources)
        self._sources = [
            _Source(documents, number, seed, purpose, place)
            for number, (documents, place) in enumerate(zip(sources, begin, strict=True))
        ]
        self._waiting = np.empty(0, _COMING)  # read, but a dataset that is not read so far may still come first
        self._ready = np.empty(0, _COMING)
        self._head = 0
        self._block = _BLOCKS[0]

    def ahead(self, count: int) -> NDArray[Any]:
        """At least the next `count` documents: a structured array [n] of `source`, `epoch`, `place`, `before`,
        `document` and `tokens`, all int64. Raises DatasetDamaged."""
        while len(self._ready) - self._head < count:
            self._read_on()
        return self._ready[self._head :]

    def advance(self, count: int) -> None:
        """Leave the next `count` documents behind, which `ahead` has shown."""
        self._head += count

    def places(self) -> list[Place]:
        """Of each dataset, before the next document of the sequence: what another DocumentOrder goes on from."""
        return [self._place(number) for number in range(len(self._sources))]

    def _place(self, number: int) -> Place:
        for coming in (self._ready[self._head :], self._waiting):
            own = coming["source"] == number
            if own.any():
                first = coming[own.argmax()]
                return Place(int(first["epoch"]), int(first["place"]), int(first["before"]))
        return self._sources[number].next

    def _read_on(self) -> None:
        """Read the dataset that stands least far, and order what then is certain: whatever comes before its end."""
        shares = np.array([source.next.tokens for source in self._sources]) / self._weights
        least = int(shares.argmin())
        waiting = np.concatenate([self._waiting, self._sources[least].read(self._block)])
        self._block = min(2 * self._block, _BLOCKS[1])
        shares[least] = self._sources[least].next.tokens / self._weights[least]
        when = waiting["before"] / self._weights[waiting["source"]]
        certain = when < shares.min()
        order = np.lexsort((waiting["source"][certain], when[certain]))
        self._ready = np.concatenate([self._ready[self._head :], waiting[certain][order]])
        self._waiting, self._head = waiting[~certain], 0


class _Source:
    """The documents of one dataset, epoch after epoch."""

    def __init__(self, documents: Documents, number: int, seed: int, purpose: int, place: Place) -> None:
        self.next = place
        self._documents, self._number, self._seed, self._purpose = documents, number, seed, purpose
        self._enter(place.epoch)

    def read(self, count: int) -> NDArray[Any]:
        """The next `count` documents."""
        found = np.zeros(count, _COMING)
        found["source"] = self._number
        epoch, place, given = self.next
        done = 0
        while done < count:
            part = found[done : done + min(count - done, len(self._documents) - place)]
            part["epoch"] = epoch
            part["place"] = np.arange(place, place + len(part))
            part["document"] = self._order(part["place"])
            done, place = done + len(part), place + len(part)
            if place == len(self._documents):
                epoch, place = epoch + 1, 0
                self._enter(epoch)
        found["tokens"] = self._documents.lengths(found["document"])
        ends = given + np.cumsum(found["tokens"])
        found["before"] = ends - found["tokens"]
        self.next = Place(epoch, place, int(ends[-1]))
        return found

    def _enter(self, epoch: int) -> None:
        self._order = draws.Permutation(len(self._documents), self._seed, self._purpose, epoch, self._number)
