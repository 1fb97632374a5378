"""What becomes of the others when a rank dies, fails, leaves or never comes; and of children that a rank forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Start = Callable[..., list[subprocess.Popen[str]]]

PRELUDE = """
import os, signal, sys, time
import torch
import phalanx.horovod.torch as hvd
hvd.init()
rank, size = hvd.rank(), hvd.size()
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start(size, code, **variables) -> processes of the ranks, their output in pipes."""
    started: list[subprocess.Popen[str]] = []

    def run(size: int, code: str, **variables: str) -> list[subprocess.Popen[str]]:
        for rank in range(size):
            environment = os.environ | {
                "RANK": str(rank),
                "WORLD_SIZE": str(size),
                "PHALANX_RENDEZVOUS": str(tmp_path / "meeting"),
                "OMP_NUM_THREADS": "1",
            }
            started.append(
                subprocess.Popen(
                    [sys.executable, "-c", PRELUDE + textwrap.dedent(code)],
                    env=environment | variables,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return started

    yield run
    for process in started:
        process.kill()
        process.communicate()


def outputs(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit status, output and errors of each."""
    told = [process.communicate(timeout=60) for process in processes]
    return [(process.returncode, *each) for process, each in zip(processes, told, strict=True)]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_fails_what_is_in_flight_on_all_others_by_its_number(start: Start, victim: int) -> None:
    processes = start(
        3,
        f"""
        hvd.allreduce(torch.ones(1))
        if rank == {victim}:
            os.kill(os.getpid(), signal.SIGKILL)
        handles = [hvd.allreduce_async(torch.ones(n), name=str(n)) for n in (1, 10, 10**6)]
        for handle in handles:
            try:
                hvd.synchronize(handle)
            except hvd.HorovodInternalError as error:
                print(error)
        try:
            hvd.allreduce(torch.ones(1))
        except hvd.HorovodInternalError as error:
            print(error)
        print(hvd.is_initialized(), hvd.rank() == rank)
        """,
    )
    for rank, (status, output, errors) in enumerate(outputs(processes)):
        if rank == victim:
            assert status == -signal.SIGKILL
            continue
        assert status == 0, errors
        lines = output.splitlines()
        assert len(lines) == 5, output
        assert all(f"rank {victim}" in line for line in lines[:4]), output
        assert lines[4] == "True True"


def test_a_rank_that_ends_of_an_error_tells_the_others_which(start: Start) -> None:
    processes = start(
        3,
        """
        if rank == 1:
            raise KeyError("no such column")
        try:
            hvd.allreduce(torch.ones(1))
        except hvd.HorovodInternalError as error:
            print(error)
        """,
    )
    told = outputs(processes)
    assert "KeyError: 'no such column'" in told[1][2]
    for rank in (0, 2):
        status, output, _ = told[rank]
        assert status == 0
        assert "rank 1 has ended" in output
        assert "no such column" in output


def test_a_rank_that_shuts_down_ends_it_for_all_but_what_was_begun_is_done(start: Start) -> None:
    processes = start(
        2,
        """
        total = hvd.allreduce_async(torch.full((10**6,), float(rank)), name="begun", op=hvd.Sum)
        if rank == 1:
            hvd.synchronize(total)
            hvd.shutdown()
            sys.exit()
        pending = hvd.allreduce_async(torch.ones(1), name="alone")
        try:
            hvd.synchronize(pending)
        except hvd.HorovodInternalError as error:
            print(error)
        print(hvd.synchronize(total)[0].item())
        """,
    )
    (status, output, errors), _ = outputs(processes)
    assert status == 0, errors
    refused, total = output.splitlines()
    assert "rank 1 has shut down" in refused
    assert total == "1.0"


def test_announcements_that_no_socket_has_room_for_hold_nobody_up(start: Start) -> None:
    processes = start(
        2,
        """
        for step in range(3):
            small = [hvd.allreduce_async(torch.ones(3, dtype=kind), name=f"{kind}{step}")
                     for kind in (torch.float32, torch.float64, torch.int32)]
            many = hvd.grouped_allreduce_async([torch.ones(1)] * 20_000, name=f"many{step}", op=hvd.Sum)
            for handle in small:
                hvd.synchronize(handle)
            print(sum(tensor.item() for tensor in hvd.synchronize(many)))
        """,
    )
    for status, output, errors in outputs(processes):
        assert (status, output) == (0, "40000.0\n" * 3), errors


def test_names_that_come_only_once_are_not_remembered(start: Start) -> None:
    processes = start(
        2,
        """
        from phalanx.horovod.common.basics import basics
        engine = basics.engine
        for step in range(5000):
            hvd.allreduce(torch.ones(1))
            hvd.allreduce(torch.ones(2), name="again")
        for step in range(100):
            hvd.allgather(torch.ones(step + 1), name="grows")
        known = engine._coordinator._known[1] if rank == 0 else []
        print(len(engine._seen) < 5000, len(engine._numbers), len(known))
        """,
    )
    for rank, (status, output, errors) in enumerate(outputs(processes)):
        assert (status, output) == (0, f"True 1 {1 - rank}\n"), errors


def test_all_may_end_at_once_after_their_last_operation_and_nothing_is_said(start: Start) -> None:
    processes = start(
        4,
        """
        for step in range(20):
            hvd.allreduce(torch.ones(1000))
        """,
    )
    assert outputs(processes) == [(0, "", "")] * 4


def test_a_forked_child_leaves_the_ranks_alone(start: Start) -> None:
    processes = start(
        2,
        """
        from torch.utils.data import DataLoader
        seed = lambda worker: torch.manual_seed(hvd.rank() * 100 + worker)
        loader = DataLoader(list(range(8)), num_workers=2, multiprocessing_context="fork", worker_init_fn=seed)
        for batch in loader:
            hvd.allreduce(batch.double())
        child = os.fork()
        if child == 0:
            assert (hvd.rank(), hvd.size(), hvd.is_initialized()) == (rank, size, True)  # as Horovod's answer
            try:
                hvd.allreduce(torch.ones(1))
            except hvd.HorovodInternalError as error:
                assert "forked child" in str(error)
                sys.exit()  # its atexit must not shut the parent's down
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        print(hvd.allreduce(torch.ones(1), op=hvd.Sum).item())
        """,
    )
    for status, output, errors in outputs(processes):
        assert (status, output) == (0, "2.0\n"), errors


def test_who_keeps_the_others_waiting_is_told_and_ends_it_when_that_is_wanted(start: Start) -> None:
    processes = start(
        3,
        """
        if rank == 1:
            hvd.allreduce(torch.ones(1), name="another")
        hvd.allreduce(torch.ones(1), name="wanted")
        """,
        HOROVOD_STALL_CHECK_TIME_SECONDS="1",
        HOROVOD_STALL_SHUTDOWN_TIME_SECONDS="2",
    )
    told = outputs(processes)
    assert "rank 1 is missing for: allreduce.wanted" in told[0][2]
    assert "rank 0 is missing for: allreduce.another" in told[0][2]
    for status, _, errors in told:
        assert status == 1
        assert "has waited for rank" in errors.splitlines()[-1]


def test_interrupting_a_rank_that_waits_ends_it_and_the_others(start: Start) -> None:
    processes = start(
        2,
        """
        print("waits", flush=True)
        if rank == 1:
            time.sleep(60)
        hvd.allreduce(torch.ones(1))
        """,
    )
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
    begun = time.monotonic()
    processes[0].send_signal(signal.SIGINT)
    assert processes[0].wait(timeout=20) != 0
    assert time.monotonic() - begun < 15  # not the minutes that an operation may take
    processes[1].kill()
