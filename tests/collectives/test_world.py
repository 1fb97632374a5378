"""The one group of a process: before, during and after it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import phalanx.collectives as collectives
from phalanx.collectives import CollectiveError

QUESTIONS = ("size", "rank", "local_rank", "local_size", "cross_rank", "cross_size", "world")


@pytest.fixture(autouse=True)
def _none_before_and_after():
    collectives.shutdown()
    yield
    collectives.shutdown()


def test_before_init_every_question_says_what_to_call():
    assert not collectives.is_initialized()
    for question in QUESTIONS:
        with pytest.raises(CollectiveError, match=r"there is no group yet\n.*phalanx\.collectives\.init\(\)"):
            getattr(collectives, question)()


def test_one_process_alone_is_a_world_of_one():
    group = collectives.init({})
    assert collectives.is_initialized()
    assert [getattr(collectives, question)() for question in QUESTIONS] == [1, 0, 0, 1, 0, 1, group]


def test_init_is_done_once_and_again_after_shutdown():
    first = collectives.init({})
    assert collectives.init({"RANK": "nonsense"}) is first
    collectives.shutdown()
    collectives.shutdown()
    assert not collectives.is_initialized()
    assert collectives.init({}) is not first


def test_what_fails_leaves_no_world():
    with pytest.raises(CollectiveError, match="RANK is 'x'"):
        collectives.init({"RANK": "x"})
    assert not collectives.is_initialized()


def test_a_forked_child_has_no_world():
    collectives.init({})
    pid = os.fork()
    if pid == 0:
        os._exit(collectives.is_initialized())
    assert os.waitpid(pid, 0)[1] == 0
    assert collectives.is_initialized()


WORLDS = """
import phalanx.collectives as c
for turn in range(3):
    group = c.init()
    tensor = torch.tensor([float(c.rank() + turn)])
    c.world().allreduce(tensor).wait()
    print(c.size(), c.rank(), c.local_rank(), c.local_size(), c.cross_rank(), c.cross_size(), tensor.item())
    c.shutdown()
sys.stdout.flush()
os._exit(0)
"""


def test_the_same_processes_form_worlds_one_after_another(run_ranks):
    for rank, output in enumerate(run_ranks(2, WORLDS)):
        assert output.splitlines() == [f"2 {rank} {rank} 2 0 1 {float(1 + 2 * turn)}" for turn in range(3)]


def test_a_script_that_just_ends_leaves_its_world(run_ranks):
    run_ranks(2, "init()\nworld().barrier()\n")


def test_importing_the_room_loads_little_that_torch_does_not():
    """Backends, watch and launchers wait until a group is formed."""
    code = "import sys, torch.distributed; before = set(sys.modules); import phalanx.collectives; print(*sys.modules.keys() - before)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    foreign = {name for name in run.stdout.split() if not name.startswith("phalanx")}
    assert len(foreign) < 30, foreign
