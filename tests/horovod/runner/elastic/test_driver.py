"""Elastic jobs as a person sees them on the launching terminal, where their hosts are wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.horovod.runner.test_launch import horovodrun, of_ranks
from tests.processes import left_behind, wait_until


def test_a_discovery_script_that_is_not_there_or_may_not_be_run_is_refused_at_once_with_one_message(tmp_path: Path):
    script = tmp_path / "hosts.sh"
    for said in ("ended with exit code 127: ", "ended with exit code 126: "):
        done = horovodrun("-np", "1", "--host-discovery-script", str(script), "true")
        assert done.returncode == 2
        first, second = done.stderr.splitlines()
        assert first.startswith(f"phalanx: {script}: {said}")
        assert second == f"  To do: try by hand: {script}"
        script.write_text("#!/bin/sh\necho localhost:1\n")  # but nobody may run it


def test_a_discovery_script_that_hangs_is_ended_with_one_message(tmp_path: Path):
    script = f"sleep 600; echo {tmp_path}"
    done = horovodrun("-np", "1", "--start-timeout", "1", "--host-discovery-script", script, "true")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == f"phalanx: {script}: did not end within 1 s"
    assert len(done.stderr.splitlines()) == 2
    assert not left_behind(tmp_path, 0)


def test_a_discovery_script_that_fails_later_is_said_once_and_the_job_goes_on(tmp_path: Path):
    asked, hosts = tmp_path / "asked", tmp_path / "hosts"
    hosts.write_text("localhost:1\n")
    script = f"echo >> {asked}; cat {hosts} && rm {hosts}"
    code = f"import os, time\nwhile os.path.getsize({str(asked)!r}) < 4: time.sleep(0.01)\nprint('done')"
    done = horovodrun("-np", "1", "--host-discovery-script", script, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert of_ranks(done.stdout) == {0: ["done"]}
    assert done.stderr.count("ended with exit code 1") == 1
    assert "; the hosts that it named last still count\n" in done.stderr


def test_a_job_that_waits_for_hosts_says_so_at_once_and_ends_when_they_do_not_come():
    waits = ["-np", "3", "--elastic-timeout", "1", "--host-discovery-script", "echo localhost:2"]
    done = horovodrun(*waits, "true")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "phalanx: 2 slots so far, 3 to begin with: waiting for others for 1 s (--elastic-timeout)",
        "phalanx: there were fewer than 3 slots for 1 s",
        "  To do: the hosts have 2 slots: name more, or lower -np, or raise --elastic-timeout",
    ]


HANGS = "sh -c 'echo > $0/asked; sleep 600' {} & wait"
WAITS = "import sys, time; open(sys.argv[1] + '/started', 'w'); time.sleep(600)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("script", [HANGS, "echo localhost:2"], ids=["while it asks", "while it runs"])
def test_nothing_is_left_when_the_launcher_of_an_elastic_job_is_ended(tmp_path: Path, number: int, script: str):
    program = [sys.executable, "-c", WAITS, str(tmp_path)]
    options = ["-np", "2", "--min-np", "1", "--host-discovery-script", script.format(tmp_path)]
    launcher = subprocess.Popen(
        [sys.executable, "-m", "phalanx", "horovodrun", *options, *program],
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    wait_until(lambda: list(tmp_path.glob("asked")) + list(tmp_path.glob("started")), "nothing was started")
    launcher.send_signal(number)
    _, errors = launcher.communicate(timeout=30)
    assert b"Traceback" not in errors
    assert not left_behind(tmp_path)
    wait_until(lambda: not list(tmp_path.glob("phalanx-*")), "files are left")
