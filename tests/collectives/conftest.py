"""Real processes in a real group: a fixture that runs the same few lines on every rank."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PRELUDE = """
import os, signal, sys, time
import torch
from phalanx.collectives import *
member = Membership.from_environment(os.environ)
"""


@pytest.fixture
def start_ranks(tmp_path: Path) -> Iterator[Callable[..., list[subprocess.Popen[str]]]]:
    """start(size, code, ranks=None, extra={}) -> processes whose stdout and stderr are pipes; all are gone after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(
        size: int,
        code: str,
        *,
        ranks: list[int] | None = None,
        extra: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
    ) -> list[subprocess.Popen[str]]:
        mine = []
        for rank in range(size) if ranks is None else ranks:
            environment = os.environ | {
                "RANK": str(rank),
                "WORLD_SIZE": str(size),
                "PHALANX_RENDEZVOUS": str(tmp_path / "rendezvous"),
                "PHALANX_GENERATION": "1",
                "GLOO_SOCKET_IFNAME": "lo",
                "OMP_NUM_THREADS": "1",
            }
            mine.append(
                subprocess.Popen(
                    [*prefix, sys.executable, "-c", PRELUDE + textwrap.dedent(code)],
                    env=environment | (extra or {}),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        started.extend(mine)
        return mine

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run_ranks(start_ranks: Callable[..., list[subprocess.Popen[str]]]) -> Callable[..., list[str]]:
    """run(size, code) -> each rank's stdout; the test fails with the stderr of a rank that ended badly."""

    def run(size: int, code: str, **options: object) -> list[str]:
        processes = start_ranks(size, code, **options)
        outputs = [process.communicate(timeout=60) for process in processes]
        for process, (_, errors) in zip(processes, outputs, strict=True):
            assert process.returncode == 0, errors
        return [output.strip() for output, _ in outputs]

    return run


@pytest.fixture
def free_port() -> int:
    """Of the loopback, and free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
