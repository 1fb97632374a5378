"""The life of Horovod in this process: init, who we are, shutdown, and what this build can do.

`basics` is the one object behind the functions of `horovod.torch`. Loads torch when init is called.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from phalanx.horovod.common.exceptions import HorovodInternalError
from phalanx.horovod.common.process_sets import ProcessSet, _init_process_sets, _setup
from phalanx.horovod.runner.elastic.worker import CalledOff, assignment, unless_called_off
from phalanx.horovod.variables import Variables, without_effect

if TYPE_CHECKING:
    from phalanx.collectives import Group
    from phalanx.horovod.engine import Engine

log = logging.getLogger("phalanx.horovod")

_FORMING_S = 60.0
_NOT_YET = "Horovod has not been initialized; use hvd.init()."


class HorovodBasics:
    """Of one process. Every question raises ValueError before `init` and after `shutdown`."""

    Average = 0
    Sum = 1
    Adasum = 2
    Min = 3
    Max = 4
    Product = 5

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._homogeneous = True

    # Beginning and ending

    def init(self, comm: Sequence[int] | None = None, process_sets: Sequence[ProcessSet] | str | None = None) -> None:
        """Form the group of all processes that the launcher started; nothing when there is one already.

        `comm`: ranks that this process forms a group with instead, this one among them; every process calls init.
        `process_sets`: sets to make known, the same on all ranks; or "dynamic", for `add_process_set` later.
        Raises HorovodInternalError naming who did not come, ValueError for what cannot be meant.
        """
        if self._engine is not None:
            return
        wanted = self._wanted(process_sets)
        if comm is not None and not hasattr(comm, "__iter__"):
            raise ValueError(f"comm is a list of ranks, not {comm!r}: nothing here goes through MPI")
        variables = Variables.from_environment(os.environ)
        variables.begin_log(log)
        self._engine = self._form(list(comm or []), variables)
        if self._engine.group.rank == 0:
            for sentence in without_effect(os.environ):
                log.info("%s", sentence)
        atexit.register(self._leave)
        try:
            if variables.timeline and variables.timeline != "DYNAMIC":
                self.start_timeline(variables.timeline, variables.timeline_mark_cycles)
            for process_set in wanted:
                self._add_set(process_set.ranks or [])
            _init_process_sets(wanted, self._engine_or_error().sets)
        except BaseException:  # raised on: half an init is none
            self.shutdown()
            raise

    def _wanted(self, process_sets: Sequence[ProcessSet] | str | None) -> list[ProcessSet]:
        if isinstance(process_sets, str):
            if process_sets.lower() != "dynamic":
                raise ValueError(f'process_sets is a list of ProcessSet, or "dynamic", not {process_sets!r}')
            os.environ["HOROVOD_DYNAMIC_PROCESS_SETS"] = "1"
            return []
        return list(process_sets or [])

    def _form(self, comm: list[int], variables: Variables) -> Engine:
        """Where a launcher gives places: again, with another, when a rank was lost before the group was there."""
        while (told := assignment(os.environ)) is not None:
            os.environ.update(told)
            environment = dict(os.environ)  # an attempt that is called off goes on by what it was told
            with contextlib.suppress(CalledOff):
                return unless_called_off(
                    lambda environment=environment: self._join(comm, variables, environment),  # type: ignore[misc]
                    lambda engine: engine.shutdown(),
                )
        return self._join(comm, variables, os.environ)

    def _join(self, comm: list[int], variables: Variables, environment: Mapping[str, str]) -> Engine:
        from phalanx.collectives import CollectiveError, Membership
        from phalanx.collectives import join as join_group
        from phalanx.horovod.engine import Engine
        from phalanx.horovod.wire import WireError

        if variables.gloo_interface:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", variables.gloo_interface)
        timeout_s = variables.gloo_timeout_s or _FORMING_S
        group: Group | None = None
        try:
            group = join_group(Membership.from_environment(environment), timeout_s=timeout_s)
            if comm:
                group = _part_of(group, comm)
            sizes = group.allgather_object(group.local_size)
            self._homogeneous = len(set(map(str, sizes))) == 1
            return Engine(
                group,
                fuse_bytes=variables.fusion_threshold,
                cycle_s=variables.cycle_time_ms / 1000,
                stalls=variables.stalls(),
                timeout_s=timeout_s,
            )
        except (CollectiveError, WireError) as error:
            if group is not None:
                group.close()
            raise HorovodInternalError(str(error)) from None

    def shutdown(self) -> None:
        """Leave; whoever calls it first ends Horovod on all ranks. Nothing when there is nothing to leave."""
        engine, self._engine = self._engine, None
        atexit.unregister(self._leave)
        if engine is not None:
            engine.shutdown()

    def _leave(self) -> None:
        """At the end of the process: if it ends of an error, the others are told which."""
        from phalanx.collectives.watch import why_it_ends

        engine, self._engine = self._engine, None
        if engine is not None:
            reason = why_it_ends()
            engine.shutdown(f"rank {engine.group.rank} has ended: {reason}" if reason else "")

    def forget(self) -> None:
        """In a forked child, such as a loader's: it may ask who it is, and no more."""
        if self._engine is not None:
            self._engine.disown()
        atexit.unregister(self._leave)

    def is_initialized(self) -> bool:
        """Whether `init` was called, and `shutdown` not since."""
        return self._engine is not None

    @property
    def engine(self) -> Engine:
        """Raises HorovodInternalError, as operations do, before `init`."""
        if self._engine is None:
            raise HorovodInternalError(_NOT_YET)
        return self._engine

    def _engine_or_error(self) -> Engine:
        if self._engine is None:
            raise ValueError(_NOT_YET)
        return self._engine

    # Who we are

    def size(self) -> int:
        """Number of processes."""
        return self._engine_or_error().group.size

    def local_size(self) -> int:
        """Number of processes on this host."""
        return self._engine_or_error().group.local_size

    def cross_size(self) -> int:
        """Number of hosts that have a process of this local rank."""
        return self._engine_or_error().group.cross_size

    def rank(self) -> int:
        """Of this process: 0 to size - 1."""
        return self._engine_or_error().group.rank

    def local_rank(self) -> int:
        """Of this process among those of its host."""
        return self._engine_or_error().group.local_rank

    def cross_rank(self) -> int:
        """Number of this host among those that have a process of this local rank."""
        return self._engine_or_error().group.cross_rank

    def is_homogeneous(self) -> bool:
        """Whether every host has the same number of processes."""
        self._engine_or_error()
        return self._homogeneous

    # Process sets

    def members(self, process_set_id: int) -> tuple[int, ...]:
        """The ranks of a set. Raises ValueError for one that is not known."""
        found = self._engine_or_error().sets.get(process_set_id)
        if found is None:
            raise ValueError("Process set does not exist or has not been registered.")
        return found

    def add_process_set(self, ranks: Sequence[int]) -> int | None:
        """The id of a new set; None when there is one of these ranks."""
        self._engine_or_error()
        _refuse_static_sets()
        return self._add_set(ranks)

    def _add_set(self, ranks: Sequence[int]) -> int | None:
        strangers = [rank for rank in ranks if not 0 <= rank < self.size()]
        if strangers or not ranks or len(set(ranks)) != len(ranks):
            raise ValueError(f"{list(ranks)} are no ranks of {self.size()} processes")
        return self._engine_or_error().add_set(ranks)

    def remove_process_set(self, process_set_id: int) -> bool:
        """Whether there was such a set."""
        engine = self._engine_or_error()
        _refuse_static_sets()
        return engine.remove_set(process_set_id)

    # Timeline

    def start_timeline(self, file_path: str, mark_cycles: bool = False) -> None:
        """Draw what happens from now on into `file_path`, on rank 0; the one before is closed."""
        from phalanx.horovod.timeline import Timeline

        engine = self._engine_or_error()
        if engine.group.rank == 0:
            engine.begin_timeline(None)
            engine.begin_timeline(Timeline(Path(file_path), mark_cycles))

    def stop_timeline(self) -> None:
        """Complete the file and draw no more."""
        self._engine_or_error().begin_timeline(None)

    # What this build can do

    def mpi_threads_supported(self) -> bool:
        """Always raises ValueError: nothing here goes through MPI."""
        raise ValueError("MPI is not enabled: Phalanx moves tensors through shared memory, gloo and NCCL")

    def mpi_enabled(self) -> bool:
        """False."""
        return False

    def mpi_built(self) -> bool:
        """False."""
        return False

    def gloo_enabled(self) -> bool:
        """True: what Horovod does over gloo goes through shared memory on one host, and gloo between hosts."""
        return True

    def gloo_built(self) -> bool:
        """True."""
        return True

    def nccl_built(self) -> int:
        """The version code of torch's NCCL (2.21.5 is 22105); 0 where torch has none."""
        import torch
        import torch.distributed as dist

        if not dist.is_nccl_available():
            return 0
        version: tuple[int, ...] = torch.cuda.nccl.version()[:3]  # type: ignore[no-untyped-call]
        major, minor, patch = version
        return int(major) * (1000 if (major, minor) < (2, 9) else 10000) + int(minor) * 100 + int(patch)

    def ddl_built(self) -> bool:
        """False: IBM's library has ended."""
        return False

    def ccl_built(self) -> bool:
        """False."""
        return False

    def cuda_built(self) -> bool:
        """Whether torch was built for CUDA."""
        import torch

        return torch.version.cuda is not None

    def rocm_built(self) -> bool:
        """Whether torch was built for ROCm."""
        import torch

        return torch.version.hip is not None


def _refuse_static_sets() -> None:
    if not Variables.from_environment(os.environ).dynamic_process_sets:
        raise ValueError(
            "Set HOROVOD_DYNAMIC_PROCESS_SETS=1, or call hvd.init(process_sets='dynamic'), to add or remove process "
            "sets after initialization."
        )


def _part_of(world: Group, comm: list[int]) -> Group:
    """The group of `comm`; every rank may name another list, as long as it is in it and all in it name the same."""
    found = None
    lists = world.allgather_object(comm)
    for ranks in sorted({tuple(each) for each in lists if isinstance(each, list)}):
        group = world.subgroup([int(str(rank)) for rank in ranks])
        if list(ranks) == comm:
            found = group
    if found is None:
        raise ValueError(f"hvd.init(comm={comm}) was called by rank {world.rank}, which is not in it")
    return found


basics = HorovodBasics()
_setup(basics)
os.register_at_fork(after_in_child=basics.forget)
