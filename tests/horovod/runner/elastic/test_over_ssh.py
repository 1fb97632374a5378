"""An elastic job over two hosts, reached by a real sshd: one comes and goes, and both lose a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.horovod.runner.elastic.test_job import SCRIPT, last_steps
from tests.horovod.runner.sshd import SshHosts
from tests.processes import left_behind, wait_until, with_argument

pytestmark = [pytest.mark.root, pytest.mark.slow]

PATIENCE_S = 90.0


def now(folder: Path) -> dict[int, dict[str, Any]]:
    """The last steps of those that still live."""
    return {pid: step for pid, step in last_steps(folder).items() if Path(f"/proc/{pid}").exists()}


def group(folder: Path) -> list[str]:
    """The hosts of the living, by rank, if all of them are in one group."""
    steps = sorted(now(folder).values(), key=lambda step: int(step["rank"]))
    whole = [step["rank"] for step in steps] == list(range(len(steps)))
    return [step["host"] for step in steps if whole and step["size"] == len(steps)]


def test_a_host_comes_and_goes_and_a_worker_is_killed_on_each(tmp_path: Path) -> None:
    hosts_file, script, output = tmp_path / "hosts", tmp_path / "train.py", tmp_path / "output"
    hosts_file.write_text("localhost:2\n")
    script.write_text(SCRIPT)
    options = ["-np", "2", "--min-np", "1", "--host-discovery-script", f"cat {hosts_file}"]
    with SshHosts(2, tmp_path) as hosts, output.open("wb") as file:
        command = [sys.executable, "-m", "phalanx", "horovodrun", *hosts.options(), *options, sys.executable]
        argv = hosts.inside(0, [*command, str(script), str(tmp_path)])
        launcher = subprocess.Popen(argv, stdout=file, stderr=subprocess.STDOUT, env=hosts.environment())

        def reaches(*wanted: str) -> None:
            text = f"{wanted} did not come about"
            wait_until(lambda: launcher.poll() is not None or group(tmp_path) == list(wanted), text, PATIENCE_S)
            assert launcher.poll() is None, output.read_text()

        try:
            reaches("host-0", "host-0")
            hosts_file.write_text("localhost:2\nhost-1:1\n")
            reaches("host-0", "host-0", "host-1")
            (there,) = (pid for pid, step in now(tmp_path).items() if step["host"] == "host-1")
            os.kill(there, signal.SIGKILL)
            wait_until(lambda: there not in now(tmp_path), "it was not killed")
            reaches("host-0", "host-0", "host-1")
            hosts_file.write_text("localhost:2\n")
            reaches("host-0", "host-0")
            hosts_file.write_text("localhost:2\nhost-1:1\n")
            reaches("host-0", "host-0", "host-1")
            (first,) = (pid for pid, step in now(tmp_path).items() if step["rank"] == 0)
            os.kill(first, signal.SIGKILL)
            wait_until(lambda: first not in now(tmp_path), "it was not killed")
            reaches("host-0", "host-0", "host-1")
            (tmp_path / "enough").touch()
            assert launcher.wait(PATIENCE_S) == 0, output.read_text()
        finally:
            launcher.terminate()
            launcher.wait()
        assert not with_argument(str(hosts.directory / "ssh_config")), "ssh is left"
    text = output.read_text()
    assert text.count("phalanx: host host-1 added with 1 slot\n") == 2
    assert "phalanx: host host-1 removed\n" in text
    assert "phalanx: worker 3 on host-1 has left\n" in text
    assert "(worker 2 on host-1) is lost: it was killed by SIGKILL" in text
    assert "phalanx: rank 0 (worker 0 on localhost) is lost: it was killed by SIGKILL" in text
    assert text.count("finished True") == 3
    assert "Traceback" not in text
    assert "frame #" not in text, "torch's own words for a connection that is lost"
    assert not left_behind(tmp_path)
