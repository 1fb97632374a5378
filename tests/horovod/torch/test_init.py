"""What `hvd.init` does before it asks for a place, where others wait for what is done later; and the groups it forms."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import phalanx.horovod.torch as hvd
from phalanx.horovod.common.util import env
from tests.horovod.crew import Crews
from tests.horovod.test_timeline import lanes, read

# The modules that a first optimizer brings, after init.
SCRIPT = """
import sys
import torch
import phalanx.horovod.torch as hvd
hvd.init()
before = set(sys.modules)
torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
print("torch._dynamo" in set(sys.modules) - before)
"""


@pytest.mark.parametrize(("elastic", "imports_it_late"), [("1", "False"), ("0", "True")])
def test_a_worker_of_an_elastic_job_has_all_that_an_optimizer_needs_before_others_wait_for_it(
    elastic: str, imports_it_late: str
) -> None:
    env = os.environ | {"HOROVOD_ELASTIC": elastic}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr, done.returncode) == (imports_it_late, "", 0)


def as_part_of_all(lists: list[list[int]], times: int) -> list[Any]:
    """Each rank in a group of its list; then all together again."""
    told: list[Any] = []
    mine = lists[hvd.rank()]
    for _ in range(times):
        hvd.shutdown()
        hvd.init(comm=mine)
        told.append((hvd.rank(), hvd.size(), hvd.allgather(torch.tensor([hvd.rank() * 10 + len(mine)])).tolist()))
        hvd.shutdown()
        told.append(len(os.listdir("/proc/self/fd")))
        hvd.init()
    return told


def test_ranks_form_the_groups_that_they_name_and_leave_nothing_of_them(crew: Crews) -> None:
    told = crew(3).tell(as_part_of_all, [[0, 2], [1], [0, 2]], 6)
    for rank, each in enumerate(told):
        place = (0, 1, [1]) if rank == 1 else (rank // 2, 2, [2, 12])
        assert each[::2] == [place] * 6
        assert each[-1] <= each[1], "descriptors are left open"


def in_another_group() -> None:
    rank, other = hvd.rank(), 1 - hvd.rank()
    hvd.shutdown()
    with pytest.raises(ValueError, match=rf"comm=\[{other}\]\) was called by rank {rank}, which is not in it"):
        hvd.init(comm=[other])
    assert not hvd.is_initialized()
    with pytest.raises(ValueError, match="nothing here goes through MPI"):
        hvd.init(comm=object())
    hvd.init()
    assert hvd.allreduce(torch.ones(1), op=hvd.Sum).item() == hvd.size()


def test_a_rank_that_names_a_group_without_itself_is_told(crew: Crews) -> None:
    crew(2).tell(in_another_group)


def with_sets_from_the_beginning() -> None:
    rank = hvd.rank()
    some, alone = hvd.ProcessSet([2, 0]), hvd.ProcessSet([1])
    hvd.shutdown()
    with env(HOROVOD_DYNAMIC_PROCESS_SETS="0"):
        hvd.init(process_sets=[some, alone])
        assert hvd.global_process_set.ranks == [0, 1, 2]
        mine = alone if rank == 1 else some
        assert hvd.allgather(torch.tensor([rank]), process_set=mine).tolist() == mine.ranks
        for change in (lambda: hvd.add_process_set([0, 1]), lambda: hvd.remove_process_set(some)):
            with pytest.raises(ValueError, match="HOROVOD_DYNAMIC_PROCESS_SETS=1"):
                change()
        hvd.barrier()  # rank 1 is done with its own set before the others are, and would end theirs
        hvd.shutdown()
        wrong: list[tuple[Any, str]] = [
            ([hvd.ProcessSet([0]), hvd.ProcessSet([0])], r"process_sets\[1\] is there twice, or is all ranks"),
            ([hvd.ProcessSet([0, 1, 2])], r"process_sets\[0\] is there twice, or is all ranks"),
            ([hvd.ProcessSet([0, 3])], r"\[0, 3\] are no ranks of 3 processes"),
            ([hvd.ProcessSet([])], r"\[\] are no ranks of 3 processes"),
            ("static", "or \"dynamic\", not 'static'"),
        ]
        for process_sets, words in wrong:
            with pytest.raises(ValueError, match=words):
                hvd.init(process_sets=process_sets)
            assert not hvd.is_initialized()
    with env(HOROVOD_DYNAMIC_PROCESS_SETS="0"):
        hvd.init(process_sets="dynamic")
        hvd.remove_process_set(hvd.add_process_set([0, 1]))


def test_process_sets_of_the_beginning_stay_and_those_that_cannot_be_leave_nothing_initialized(crew: Crews) -> None:
    crew(3).tell(with_sets_from_the_beginning)


def draws_from_the_beginning(path: Path) -> None:
    hvd.shutdown()
    with env(HOROVOD_TIMELINE=str(path)):
        hvd.init()
    hvd.allreduce(torch.ones(1), name="first")
    hvd.shutdown()
    hvd.init()


def test_the_timeline_of_the_variable_begins_with_init_and_is_complete_after_shutdown(
    crew: Crews, tmp_path: Path
) -> None:
    crew(2).tell(draws_from_the_beginning, tmp_path / "timeline.json")
    assert "allreduce.first" in lanes(read(tmp_path / "timeline.json"))
