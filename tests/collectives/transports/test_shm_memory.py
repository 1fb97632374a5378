"""Who may open the shared buffer, what a small /dev/shm is told as, and what many groups and much work leave: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributed import FileStore, HashStore, PrefixStore

from phalanx.collectives.transports.library import version
from phalanx.collectives.transports.shm import SharedMemory
from tests.collectives.transports.team import CONTEXT, Seat, Team, left_by
from tests.processes import wait_until

CONTEXT.set_forkserver_preload([__name__])


def works(seat: Seat) -> None:
    transport = seat.join()
    seat.say("joined")
    tensor = torch.ones(100_000)
    transport.allreduce(tensor)
    seat.say(tensor[-1].item())
    transport.barrier()
    transport.close()


# ---- who may come in


def test_the_buffer_is_private_and_its_name_gone_once_all_are_in(team: Team) -> None:
    meeting = team.meeting()
    first = team.start_one(0, 2, meeting, works)
    wait_until(lambda: left_by([first.pid]), "no buffer was made")
    (name,) = left_by([first.pid])
    path = Path("/dev/shm", name)
    assert path.stat().st_mode & 0o7777 == 0o600
    assert len(name.rpartition("-")[2]) == 32, "128 random bits"
    if os.geteuid() == 0:
        done = subprocess.run(["cat", path], user=65534, group=65534, extra_groups=[], capture_output=True, check=False)
        assert b"Permission denied" in done.stderr
    second = team.start_one(1, 2, meeting, works)
    for rank in (first, second):
        assert rank.hear() == "joined"
    assert not path.exists()


def comes_with(seat: Seat, words: str) -> None:
    store = HashStore()
    store.set("buffer", words)
    SharedMemory(store, seat.rank, seat.size, timeout_s=2.0)


@pytest.mark.parametrize("change", ["another token", "another name", "a name elsewhere", "another version"])
def test_who_does_not_know_the_token_is_refused_and_harms_nobody(team: Team, change: str) -> None:
    meeting = team.meeting()
    first = team.start_one(0, 2, meeting, works)
    wait_until(lambda: left_by([first.pid]), "no buffer was made")
    (name,) = left_by([first.pid])
    words = {
        "another token": f"{name} {'0' * 32} {version()}",
        "another name": f"{name[:-32]}{'0' * 32} {'0' * 32} {version()}",
        "a name elsewhere": f"../../etc/passwd {'0' * 32} {version()}",
        "another version": f"{name} {'0' * 32} {'0' * 16}",
    }[change]
    failure = team.start_one(1, 2, meeting, comes_with, words).fails()
    assert failure.kind == "CollectiveError", failure
    second = team.start_one(1, 2, meeting, works)
    for rank in (first, second):
        assert rank.hear() == "joined"
        assert rank.hear() == 2.0


# ---- /dev/shm

IN_A_SMALL_DEV_SHM = r"""
import os, sys, torch
from torch.distributed import FileStore
from phalanx.collectives.errors import CollectiveError
from phalanx.collectives.transports.shm import SharedMemory
children = []
for rank in range(2):
    child = os.fork()
    if not child:
        try:
            transport = SharedMemory(FileStore(sys.argv[1], 2), rank, 2, timeout_s=20)
            tensor = torch.ones(5_000_000)
            transport.allreduce(tensor)
            said = f"sum {tensor[-1].item()}"
        except CollectiveError as error:
            said = str(error).replace("\n", " ")
        os.write(1, f"{said}\n".encode())
        os._exit(0)
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
print("left", [name for name in os.listdir("/dev/shm") if name.startswith("phalanx")], flush=True)
"""


@pytest.mark.root
@pytest.mark.parametrize(
    ("size", "fill", "said"),
    [("64k", 0, "no shared buffer of"), ("16m", 15, "no shared buffer of"), ("16m", 0, "sum 2.0")],
)
def test_a_dev_shm_too_small_or_full_is_said_by_every_rank_and_kills_none(
    tmp_path: Path, size: str, fill: int, said: str
) -> None:
    """In a mount namespace with a /dev/shm of its own."""
    shell = f'mount -t tmpfs -o size={size} tmpfs /dev/shm; head -c {fill}M /dev/zero > /dev/shm/others; exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", shell, "sh", sys.executable, "-c", IN_A_SMALL_DEV_SHM, str(tmp_path / "store")],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *ranks, left = done.stdout.strip().splitlines()
    assert len(ranks) == 2, done.stdout
    assert all(said in words for words in ranks), ranks
    if "sum" not in said:
        assert all("/dev/shm: No space left on device" in words for words in ranks), ranks
        assert any("To do: make it larger (docker run --shm-size" in words for words in ranks), ranks
    assert left == "left []"


# ---- over and over


def cycles(seat: Seat, many: int) -> None:
    """Forms and closes `many` groups; says what this process holds early and late."""
    store, size = FileStore(str(seat.meeting), seat.size), seat.size
    tensor, rows = torch.ones(100_000), torch.ones(1000)  # made once: the store's keys would settle between new ones
    for number in range(many):
        if number == 10:
            seat.say(holds())
        transport = SharedMemory(PrefixStore(str(number), store), seat.rank, size, timeout_s=60.0)
        ticket = transport.allreduce(tensor, asynchronous=True)
        transport.allgather_ragged(rows)
        transport.wait(ticket)
        transport.barrier()
        if number % 2:
            transport.close()
        else:
            del transport
    seat.say(holds())


def holds() -> dict[str, int]:
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "files": len(os.listdir("/proc/self/fd")),
        "threads": int(status["Threads"]),
        "mappings": len(Path("/proc/self/maps").read_text().splitlines()),
        "MiB": int(status["RssAnon"].split()[0]) >> 10,
    }


@pytest.mark.parametrize("many", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_groups_that_come_and_go_leave_nothing(team: Team, many: int) -> None:
    ranks = team.start(2, cycles, many)
    for rank in ranks:
        before, after = rank.hear(), rank.hear(250)
        assert after["files"] <= before["files"]
        assert after["threads"] <= before["threads"]
        assert after["mappings"] <= before["mappings"] + 10
        assert after["MiB"] <= before["MiB"] + 10, "a group that is not given back is some MiB"
    assert left_by(team.pids()) == []


@pytest.mark.parametrize(("size", "largest"), [(2, 4 << 20), (4, 1 << 20)])
def test_random_operations_give_right_results(tmp_path: Path, size: int, largest: int) -> None:
    soak_for(5, size, largest)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_four_ranks_work_for_long_and_every_result_is_right() -> None:
    """PHALANX_SOAK_MINUTES=10 for longer."""
    soak_for(60 * float(os.environ.get("PHALANX_SOAK_MINUTES", "1")), 4, 32 << 20)


def soak_for(seconds: float, size: int, largest: int) -> None:
    command = [sys.executable, "-m", "tests.collectives.transports.soak", f"--ranks={size}", f"--largest={largest}"]
    done = subprocess.run(
        [*command, f"--seconds={seconds}"], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every result right" in done.stdout
