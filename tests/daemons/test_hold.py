"""Control of a job, between real processes: one holds it, and it is free when that one is gone."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from phalanx.cluster import JobBusy, controller_lease
from phalanx.daemons import hold as module
from phalanx.daemons.hold import ControlLost, hold, open_state
from phalanx.foundation import Home
from tests.processes import wait_until

KEY = ("tests", "small")
HOLDER = """
import sys, time
from phalanx.daemons.hold import hold
from phalanx.foundation import Home
with hold(Home.find(sys.argv[1]), ("tests", "small")):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(home: Home):
    """Another process that controls the job."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(home.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_job_that_is_controlled_cannot_be_controlled_by_another(home: Home, other: subprocess.Popen[str]) -> None:
    with pytest.raises(JobBusy, match="job tests/small is running") as refused, hold(home, KEY):
        pass
    assert "phalanx stop small --namespace tests" in refused.value.remedy
    with hold(home, ("tests", "another")):
        pass


def test_control_is_free_at_once_when_its_holder_is_killed(home: Home, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait()
    with hold(home, KEY) as held:
        held.check(open_state(home))


def test_control_is_given_back_at_the_end(home: Home) -> None:
    state = open_state(home)
    with hold(home, KEY):
        assert state.holder(controller_lease(KEY)) is not None
    assert state.holder(controller_lease(KEY)) is None


def test_control_is_kept_however_long_a_step_takes(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_EVERY_S", 0.05)
    state = open_state(home)
    with hold(home, KEY):
        first = state.holder(controller_lease(KEY))
        assert first is not None
        wait_until(lambda: _expiry(state) > first.expires_ns, "the lease is not renewed")


def _expiry(state) -> int:
    held = state.holder(controller_lease(KEY))
    return held.expires_ns if held is not None else 0


def test_who_was_paused_for_long_finds_out_before_acting(home: Home, other: subprocess.Popen[str]) -> None:
    """The lease of this process ran out and another process took it."""
    with hold(home, ("tests", "another")) as held:
        lost = module.Hold(home, KEY, held.identity)
        with pytest.raises(ControlLost, match="controlled by another process now"):
            lost.check(open_state(home))


def test_who_was_paused_and_missed_by_nobody_goes_on(home: Home) -> None:
    state = open_state(home)
    with hold(home, KEY) as held:
        state.release(controller_lease(KEY), held.identity)
        held.check(state)
        lease = state.holder(controller_lease(KEY))
        assert lease is not None
        assert lease.expires_ns > time.time_ns()
