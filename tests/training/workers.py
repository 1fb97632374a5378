"""A few lines that run on every rank of a real group, with the environment that an agent gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def environment(rank: int, size: int, rendezvous: Path, generation: int = 1) -> dict[str, str]:
    return os.environ | {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "PHALANX_RENDEZVOUS": str(rendezvous),
        "PHALANX_GENERATION": str(generation),
        "PHALANX_ATTEMPT": "1",
        "PHALANX_JOB_UID": "u1",
        "PHALANX_NAMESPACE": "tests",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }


def run_script(script: Path, size: int, scratch: Path, *arguments: str) -> list[str]:
    """Run `python script arguments` on `size` ranks; their outputs. Fails with the stderr of a rank that ended badly."""
    rendezvous = scratch / f"rendezvous-{os.urandom(4).hex()}"
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env=environment(rank, size, rendezvous),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    return [output for output, _ in outputs]
