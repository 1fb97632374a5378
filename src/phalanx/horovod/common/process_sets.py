"""Process sets: some of the ranks, for operations that the others take no part in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phalanx.horovod.common.basics import HorovodBasics

_basics: HorovodBasics | None = None


class ProcessSet:
    """`ranks` of the world, in ascending order. It can be used once `init` or `add_process_set` has made it known.

    Raises ValueError for anything but a sequence of ranks: communicators of mpi4py belong to MPI.
    """

    process_set_id: int | None = None
    ranks: list[int] | None = None
    mpi_comm: None = None

    def __init__(self, ranks_or_comm: Sequence[int]) -> None:
        try:
            ranks = list(ranks_or_comm)
        except TypeError:
            ranks = [None]  # type: ignore[list-item]
        if any(not isinstance(rank, int) for rank in ranks):
            raise ValueError(
                f"a process set is made of a list of ranks, not of {ranks_or_comm!r}; communicators of mpi4py are "
                "not taken, because nothing here goes through MPI"
            )
        self.ranks = sorted(ranks)

    def _invalidate(self) -> None:
        self.process_set_id = None

    def size(self) -> int | None:
        """How many ranks it has; None before it is known."""
        return None if self.process_set_id is None else len(_initialized().members(self.process_set_id))

    def rank(self) -> int | None:
        """Of this process in it, which `allgather` orders by; None before it is known.

        Roots of broadcasts are ranks of the world. Raises ValueError for a process that is not in it.
        """
        if self.process_set_id is None:
            return None
        members, mine = _initialized().members(self.process_set_id), _initialized().rank()
        if mine not in members:
            raise ValueError(f"rank {mine} is not a member of {self}")
        return members.index(mine)

    def included(self) -> bool | None:
        """Whether this process is in it; None before its ranks are known."""
        return None if self.ranks is None else _initialized().rank() in self.ranks

    def __str__(self) -> str:
        return f"ProcessSet(process_set_id={self.process_set_id}, ranks={self.ranks}, mpi_comm={self.mpi_comm})"


global_process_set = ProcessSet([])
global_process_set.process_set_id = 0


def add_process_set(process_set: ProcessSet | Sequence[int]) -> ProcessSet:
    """Make a set known after `init`. All ranks call it, members or not. Needs HOROVOD_DYNAMIC_PROCESS_SETS=1.

    Raises ValueError when there is a set of these ranks already.
    """
    if not isinstance(process_set, ProcessSet):
        process_set = ProcessSet(process_set)
    made = _initialized().add_process_set(process_set.ranks or [])
    if made is None:
        raise ValueError(f"there is a process set of these ranks already: {process_set}")
    process_set.process_set_id = made
    return process_set


def remove_process_set(process_set: ProcessSet) -> bool:
    """Forget a set. All ranks call it. Whether there was anything to forget; the world never is."""
    number = process_set.process_set_id
    if number is None or number == 0:
        return False
    process_set._invalidate()
    return _initialized().remove_process_set(number)


def _setup(basics: HorovodBasics) -> None:
    """Whom the sets ask."""
    global _basics
    _basics = basics


def _init_process_sets(process_sets: Sequence[Any], known: dict[int, tuple[int, ...]]) -> None:
    """At init: `process_sets` get the ids of `known`; what is given twice stays unknown. ValueError says which."""
    number_of = {ranks: number for number, ranks in known.items()}
    seen = {0}
    global_process_set.ranks = list(known[0])
    for place, process_set in enumerate(process_sets):
        number = number_of[tuple(process_set.ranks)]
        if number in seen:
            process_set._invalidate()
            raise ValueError(f"process_sets[{place}] is there twice, or is all ranks: {process_set}")
        seen.add(number)
        process_set.process_set_id = number


def _initialized() -> HorovodBasics:
    if _basics is None:
        raise ValueError("Horovod has not been initialized; use hvd.init().")
    return _basics
