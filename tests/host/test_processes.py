"""Children that die with their owner, identities that are never reused. Real processes throughout."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from phalanx.foundation import StorageError
from phalanx.host import identity_of, is_alive, own_identity, reap, signal_group, start, terminate, wait_until_dead

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_living_process_has_an_identity_and_a_dead_one_none() -> None:
    child = start(SLEEP, env=os.environ)
    identity = identity_of(child.pid)
    assert identity is not None
    assert identity.startswith(f"{child.pid}@")
    assert is_alive(identity)
    assert terminate(child, 10) == -signal.SIGTERM
    assert not is_alive(identity)
    assert identity_of(child.pid) is None


def test_a_zombie_is_dead() -> None:
    child = start([sys.executable, "-c", ""], env=os.environ)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{child.pid}").exists()
    assert identity_of(child.pid) is None
    child.wait()


def test_the_same_pid_with_another_start_or_boot_is_another_process() -> None:
    own = own_identity()
    head, _, ticks = own.rpartition("-")
    assert is_alive(own)
    assert not is_alive(f"{head}-{int(ticks) + 1}")
    assert not is_alive(own.replace("@", "@0"))
    assert not is_alive("nonsense")
    assert not is_alive("")
    assert not is_alive("99999999@x-1")


def test_identity_holds_for_a_program_with_a_strange_name(tmp_path: Path) -> None:
    strange = tmp_path / ") S 1 2 3"
    strange.symlink_to(sys.executable)
    child = start([str(strange), "-c", "import time; time.sleep(600)"], env=os.environ)
    identity = identity_of(child.pid)
    assert identity is not None
    assert is_alive(identity)
    terminate(child, 10)
    assert not is_alive(identity)


def test_a_child_dies_when_its_owner_is_killed() -> None:
    program = (
        "import os, sys, time; from phalanx.host import start, identity_of\n"
        f"child = start({SLEEP!r}, env=os.environ)\n"
        "print(identity_of(child.pid), flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    identity = _line(owner)
    assert is_alive(identity)
    owner.kill()
    owner.wait()
    assert owner.stdout is not None
    owner.stdout.close()
    assert wait_until_dead(identity, 10)


def test_a_child_that_may_outlive_its_owner_does() -> None:
    program = (
        "import os, sys, time; from phalanx.host import start, identity_of\n"
        f"child = start({SLEEP!r}, env=os.environ, die_with_parent=False)\n"
        "print(identity_of(child.pid), flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    identity = done.stdout.strip()
    assert is_alive(identity)
    os.kill(int(identity.partition("@")[0]), signal.SIGKILL)
    assert wait_until_dead(identity, 10)


def test_a_child_leads_its_own_session_so_that_the_terminal_does_not_reach_it() -> None:
    child = start(SLEEP, env=os.environ)
    try:
        assert os.getsid(child.pid) == os.getpgid(child.pid) == child.pid != os.getsid(0)
    finally:
        terminate(child, 10)


def test_what_a_killed_child_leaves_in_its_session_is_killed_when_it_is_reaped(tmp_path: Path) -> None:
    output = tmp_path / "out"
    child = start(["sh", "-c", "sleep 600 & echo $!; wait"], env=os.environ, output=output)
    while not output.read_text().endswith("\n"):
        assert reap(child) is None
    grandchild = identity_of(int(output.read_text()))
    assert grandchild is not None
    os.kill(child.pid, signal.SIGKILL)
    while (code := reap(child)) is None:
        pass
    assert code == -signal.SIGKILL
    assert wait_until_dead(grandchild, 10)
    assert reap(child) == code


def test_terminate_ends_the_whole_group_and_kills_what_ignores_it(tmp_path: Path) -> None:
    program = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(grandchild.pid, flush=True); time.sleep(600)"
    )
    output = tmp_path / "out"
    child = start([sys.executable, "-c", program], env=os.environ, output=output)
    while not output.read_text().endswith("\n"):
        assert child.poll() is None
    grandchild = identity_of(int(output.read_text()))
    assert grandchild is not None
    assert terminate(child, 0.2) == -signal.SIGKILL
    assert wait_until_dead(grandchild, 10)


def test_output_is_appended_and_errors_go_beside_it_or_apart(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "import sys; print('out', flush=True); print('err', file=sys.stderr)"]
    together, apart, errors = tmp_path / "together", tmp_path / "apart", tmp_path / "errors"
    for _ in range(2):
        start(program, env={}, output=together).wait()
    start(program, env={}, output=apart, errors=errors).wait()
    assert together.read_text() == "out\nerr\nout\nerr\n"
    assert (apart.read_text(), errors.read_text()) == ("out\n", "err\n")


def test_a_child_has_only_the_environment_it_is_given_and_reads_nothing(tmp_path: Path) -> None:
    output = tmp_path / "out"
    program = "import os, sys; print(sorted(k for k in os.environ if k != 'LC_CTYPE'), repr(sys.stdin.read()))"
    assert start([sys.executable, "-c", program], env={"RANK": "3"}, output=output, cwd=tmp_path).wait() == 0
    assert output.read_text() == "['RANK'] ''\n"


def test_an_output_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        start(SLEEP, env={}, output=tmp_path / "nowhere" / "log")


def test_a_program_that_does_not_exist_ends_with_an_error(tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert start([str(tmp_path / "nothing")], env={}, output=output).wait() != 0
    assert "nothing" in output.read_text() or "No such file" in output.read_text()


def test_signalling_a_group_that_is_gone_does_nothing() -> None:
    child = start([sys.executable, "-c", ""], env=os.environ)
    child.wait()
    signal_group(child.pid, signal.SIGTERM)


def test_waiting_for_a_process_that_lives_on_gives_up() -> None:
    assert not wait_until_dead(own_identity(), 0.05)
