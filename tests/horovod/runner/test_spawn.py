"""Workers as real processes: their output, how they end, and that nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from phalanx.horovod.runner import spawn
from tests.processes import left_behind, wait_until, with_argument

WAITS = "import time; print('waiting', flush=True); time.sleep(600)"


class Said:
    """What a worker wrote."""

    def __init__(self) -> None:
        self.stdout = b""
        self.stderr = b""

    def __call__(self, stream: str, data: bytes) -> None:
        setattr(self, stream, getattr(self, stream) + data)


def start(code: str, said: Said, *, env: dict[str, str] | None = None, secret: str = "", mark: Path | None = None):
    argv = [sys.executable, "-c", code, str(mark or "")]
    return spawn.start("localhost", argv, env or {}, name="rank 0", output=said, secret=secret)


def ended(worker: spawn.Worker) -> int:
    wait_until(lambda: worker.poll() is not None, f"{worker.name} did not end")
    code = worker.poll()
    assert code is not None
    return code


def test_both_streams_come_byte_by_byte_with_the_exit_status():
    said = Said()
    code = "import os, sys; os.write(1, bytes(range(256)) * 1000); os.write(2, b'no line feed'); sys.exit(3)"
    worker = start(code, said)
    assert ended(worker) == 3
    assert said.stdout == bytes(range(256)) * 1000
    assert said.stderr == b"no line feed"
    assert worker.last_words() == "no line feed"


def test_a_worker_has_our_environment_and_its_own_over_it(monkeypatch):
    monkeypatch.setenv("OURS", "1")
    monkeypatch.setenv("BOTH", "1")
    said = Said()
    assert ended(start("import os; print(os.environ['OURS'], os.environ['BOTH'])", said, env={"BOTH": "2"})) == 0
    assert said.stdout == b"1 2\n"


def test_a_worker_that_was_killed_is_said_with_the_signal():
    worker = start("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", Said())
    assert ended(worker) == -signal.SIGKILL


def test_the_secret_is_a_file_of_this_user_alone_that_goes_with_the_worker():
    said = Said()
    code = (
        "import os; path = os.environ['PHALANX_KEY_FILE']\n"
        "print(path, oct(os.stat(path).st_mode & 0o777), open(path).read(), 'hush' in str(os.environ))"
    )
    assert ended(start(code, said, secret="hush")) == 0
    path, *rest = said.stdout.decode().split()
    assert rest == ["0o600", "hush", "False"]
    assert not Path(path).parent.exists()


def test_a_program_that_is_not_there_is_said():
    worker = spawn.start("localhost", ["no-such-program"], {}, name="rank 0", output=Said())
    assert ended(worker) == 127
    assert worker.last_words() == "cannot start 'no-such-program': No such file or directory"


STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", sys.argv[1]], start_new_session=True)
print("waiting", flush=True)
time.sleep(600)
"""


def test_a_stop_ends_what_ignores_it_and_what_left_its_session(tmp_path):
    said = Said()
    worker = start(STUBBORN, said, mark=tmp_path)
    wait_until(lambda: said.stdout, "the worker did not start")
    worker.stop(0.2)
    assert worker.poll() == -signal.SIGKILL
    assert not with_argument(str(tmp_path))


def test_a_worker_that_ends_by_itself_leaves_nothing_either(tmp_path):
    code = STUBBORN.replace("time.sleep(600)\n", "sys.exit(0)\n")
    assert ended(start(code, Said(), mark=tmp_path)) == 0
    assert not with_argument(str(tmp_path))


def test_a_stop_is_asked_for_with_sigterm_first():
    said = Said()
    code = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n" + WAITS
    worker = start(code, said)
    wait_until(lambda: said.stdout, "the worker did not start")
    worker.stop(30)
    assert worker.poll() == 7


def test_several_workers_are_stopped_at_the_same_time():
    said = [Said() for _ in range(3)]
    workers = [start("import signal; signal.signal(15, signal.SIG_IGN)\n" + WAITS, each) for each in said]
    wait_until(lambda: all(each.stdout for each in said), "the workers did not start")
    spawn.stop_all(workers, 0.2)
    assert [worker.poll() for worker in workers] == [-signal.SIGKILL] * 3


LAUNCHER = """
import sys, tempfile, time
from pathlib import Path
from phalanx.horovod.runner import spawn
scratch = Path(sys.argv[2])
say = lambda stream, data: print(data.decode(), flush=True)
worker = spawn.start("localhost", [sys.executable, "-c", sys.argv[1], sys.argv[3]], {}, name="", output=say, secret="x", scratch=scratch)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_a_launcher_that_is_killed(tmp_path, number):
    scratch = Path(tempfile.mkdtemp(dir=tmp_path))
    mark = tmp_path / "mark"
    argv = [sys.executable, "-c", LAUNCHER, STUBBORN, str(scratch), str(mark)]
    launcher = subprocess.Popen(argv, stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": str(tmp_path)})
    assert launcher.stdout is not None
    assert launcher.stdout.readline() == b"waiting\n"
    launcher.send_signal(number)
    launcher.communicate()
    assert not left_behind(mark)
    wait_until(lambda: list(tmp_path.iterdir()) == [], "files are left")


def test_a_host_that_cannot_be_reached_is_said_in_the_words_of_ssh():
    ssh = spawn.Ssh(connect_timeout_s=1)
    worker = spawn.start("no-such-host.invalid", ["true"], {}, name="rank 0", output=Said(), ssh=ssh)
    assert ended(worker) == 255
    assert "no-such-host.invalid" in worker.last_words()


def test_other_hosts_get_our_environment_but_what_belongs_to_this_one():
    here = {
        "PATH": "/bin",
        "LD_LIBRARY_PATH": "/lib",
        "SSH_AUTH_SOCK": "/x",
        "CUDA_VISIBLE_DEVICES": "0",
        "OLDPWD": "/",
    }
    here |= {"BASH_FUNC_module%%": "() { }", "HOSTNAME": "here", "HOROVOD_CYCLE_TIME": "1"}
    assert spawn.exported(here) == {"PATH": "/bin", "LD_LIBRARY_PATH": "/lib", "HOROVOD_CYCLE_TIME": "1"}


def test_what_an_error_says_is_told_and_not_what_there_is_to_do():
    assert spawn.last_line("Traceback\nSomeError: it is wrong\n  To do: mend it\n\n") == "SomeError: it is wrong"
    assert spawn.last_line("  To do: mend it\n") == ""
