"""A disk that fills up under a running job, from end to end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from phalanx.foundation import Home
from tests.e2e.terminal import Terminals
from tests.processes import left_behind


@pytest.fixture
def small_disk(mount_disk: Callable[[str], Path]) -> Path:
    """A file system of its own, of 64 MiB."""
    return mount_disk("64m")


@pytest.mark.root
def test_a_disk_that_fills_up_ends_the_run_with_one_message_and_keeps_the_checkpoint(
    finished: Terminals, small_disk: Path, tmp_path: Path
) -> None:
    terminals = Terminals(Home.find(small_disk / "home"), tmp_path)
    terminals.prepare(finished, steps=100_000)
    command = terminals.phalanx("resume", "small")
    terminals.wait_for_step(21)
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "ballast").write_bytes(bytes(80 << 20))
    assert command.wait() == 1, command.said
    assert "the disk is full" in command.stderr
    assert "free space there" in command.stderr
    assert left_behind(terminals.home.root) == {}
    (small_disk / "ballast").unlink()
    kept = terminals.checkpointed()
    assert kept >= 20
    again = terminals.phalanx("resume", "small")
    generation = terminals.job().job.status.generation
    terminals.wait_for_step(kept + 1, generation=generation + 1)
    again.interrupt()
    assert again.wait() == 130
