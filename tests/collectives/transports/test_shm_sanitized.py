"""The C of the shared-memory transport under sanitizers, its ranks as threads of one process (ranks_as_threads.c)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from phalanx.collectives.transports import library

PROGRAM = Path(__file__).with_name("ranks_as_threads.c")
FLAGS = ["-std=c11", "-O1", "-g", "-pthread", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-format-truncation"]
SEEDS = int(os.environ.get("PHALANX_FAULT_TRIALS", "10"))

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc: apt install gcc libc6-dev")


def compiled(folder: Path, *flags: str) -> Path:
    program = folder / "ranks_as_threads"
    command = ["gcc", *FLAGS, *flags, f"-I{Path(library.__file__).parent}", str(PROGRAM), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find" in done.stderr:
        pytest.skip(f"gcc without {' '.join(flags)}")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr, done.stderr
    return program


def run(program: Path, seed: int, rounds: int) -> None:
    options = {"TSAN_OPTIONS": "halt_on_error=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
    done = subprocess.run(
        [str(program), str(seed), str(rounds)],
        env=os.environ | options, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-20_000:]
    assert done.stdout.startswith(f"{rounds} rounds, "), done.stdout


def test_ranks_as_threads_get_right_results_and_right_errors(tmp_path: Path) -> None:
    run(compiled(tmp_path), seed=1, rounds=30)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["thread", "address,undefined"])
def test_no_sanitizer_finds_anything(tmp_path: Path, kind: str) -> None:
    program = compiled(tmp_path, f"-fsanitize={kind}", "-fno-sanitize-recover=all")
    for seed in range(1, SEEDS + 1):
        run(program, seed, rounds=20)
