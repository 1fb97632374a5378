"""Jobs over several hosts: a real sshd in network namespaces, each with its own address and name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.horovod.runner import sshd
from tests.horovod.runner.sshd import SshHosts
from tests.horovod.runner.test_launch import of_ranks
from tests.processes import left_behind, wait_until, with_argument

pytestmark = pytest.mark.root


def launcher_argv(hosts: SshHosts, *arguments: str) -> list[str]:
    """Of a launcher on the first host."""
    argv = [sys.executable, "-m", "phalanx", "horovodrun", *hosts.options(), *arguments]
    return hosts.inside(0, argv)


def horovodrun(hosts: SshHosts, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        launcher_argv(hosts, *arguments),
        env=hosts.environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    with SshHosts(3, tmp_path_factory.mktemp("ssh")) as found:
        yield found


def test_where_these_tests_cannot_run_they_say_what_is_missing(tmp_path, monkeypatch):
    for program in ("ip", "nsenter", "setpriv", "unshare"):
        (tmp_path / program).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sshd, "NEEDED", ("/no/such/sshd", *sshd.NEEDED[1:]))
    with pytest.raises(pytest.skip.Exception, match="there is no /no/such/sshd, no ssh, no ssh-keygen here"):
        SshHosts(2, tmp_path)


PLACES = """
import os, socket
names = "RANK LOCAL_RANK LOCAL_WORLD_SIZE HOROVOD_CROSS_RANK HOROVOD_CROSS_SIZE MASTER_ADDR PHALANX_HOST OURS"
print(*(os.environ.get(name, "-") for name in names.split()), socket.gethostname(), os.getcwd())
"""


def test_the_processes_of_each_host_are_told_their_places_and_where_rank_0_is(hosts, monkeypatch):
    monkeypatch.setenv("OURS", "with spaces and 'quotes'")
    names = ["-np", "5", "-H", "10.77.0.1:2,host-1:2,10.77.0.3:1"]
    done = horovodrun(hosts, *names, "--verbose", sys.executable, "-c", PLACES)
    assert done.returncode == 0, done.stderr
    rest = f"with spaces and 'quotes' host-{{}} {os.getcwd()}"
    assert of_ranks(done.stdout) == {
        0: [f"0 0 2 0 3 10.77.0.1 10.77.0.1 {rest.format(0)}"],
        1: [f"1 1 2 0 2 10.77.0.1 10.77.0.1 {rest.format(0)}"],
        2: [f"2 0 2 1 3 10.77.0.1 host-1 {rest.format(1)}"],
        3: [f"3 1 2 1 2 10.77.0.1 host-1 {rest.format(1)}"],
        4: [f"4 0 1 2 3 10.77.0.1 10.77.0.3 {rest.format(2)}"],
    }
    assert "phalanx: host-1 answers\n" in done.stderr
    assert "phalanx: rank 4 of 5 starts on 10.77.0.3\n" in done.stderr


def test_rank_0_may_be_on_another_host_than_the_launcher(hosts):
    done = horovodrun(hosts, "-np", "2", "-H", "host-2:1,localhost:1", sys.executable, "-c", PLACES)
    assert [line.split()[5] for lines in of_ranks(done.stdout).values() for line in lines] == ["10.77.0.3"] * 2


def test_an_interface_is_taken_at_its_word(hosts):
    names = ["-np", "2", "-H", "host-1:1,host-2:1", "--network-interfaces"]
    done = horovodrun(hosts, *names, "eth0", sys.executable, "-c", PLACES)
    assert done.stdout.count("10.77.0.2") == 2
    done = horovodrun(hosts, *names, "ib0", sys.executable, "-c", PLACES)
    assert done.stderr.startswith("phalanx: there is no interface ib0 with an address on host-1\n")
    assert done.returncode == 2


def test_a_process_that_fails_on_another_host_is_named_and_the_others_are_stopped(hosts, tmp_path):
    code = "import os, sys, time\nif os.environ['RANK'] == '2': sys.exit('no data here')\ntime.sleep(600)"
    names = ["-np", "3", "-H", "host-0:1,host-1:1,host-2:1".replace("host-0", "localhost")]
    done = horovodrun(hosts, *names, sys.executable, "-c", code, str(tmp_path))
    assert done.returncode == 1
    ours = [line for line in done.stderr.splitlines() if not line.startswith("[")]
    assert ours[0] == "phalanx: rank 2 on host-2: ended with exit code 1: no data here"
    assert not left_behind(tmp_path, 0)


WAITS = "import time; print('waiting', flush=True); time.sleep(600)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_on_any_host_when_the_launcher_is_ended(hosts, tmp_path, number):
    argv = launcher_argv(hosts, "-np", "2", "-H", "host-1:1,host-2:1", sys.executable, "-c", WAITS, str(tmp_path))
    environment = hosts.environment() | {"TMPDIR": str(tmp_path)}
    launcher = subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment)
    assert launcher.stdout is not None
    for _ in range(2):
        assert b"waiting" in launcher.stdout.readline()
    launcher.send_signal(number)
    launcher.communicate(timeout=30)
    assert not left_behind(tmp_path)
    wait_until(lambda: not with_argument(str(hosts.directory / "ssh_config")), "ssh is left")
    assert list(tmp_path.iterdir()) == []


def test_a_connection_that_is_cut_ends_the_job_and_what_ran_there(hosts, tmp_path):
    argv = launcher_argv(hosts, "-np", "2", "-H", "localhost:1,host-1:1", sys.executable, "-c", WAITS, str(tmp_path))
    launcher = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=hosts.environment())
    assert launcher.stdout is not None
    for _ in range(2):
        assert b"waiting" in launcher.stdout.readline()
    (ssh,) = (pid for pid, line in with_argument(str(hosts.directory / "ssh_config")).items() if "remote" in line)
    os.kill(ssh, signal.SIGKILL)
    _, errors = launcher.communicate(timeout=30)
    assert errors.startswith(b"phalanx: rank 1 on host-1: was killed by SIGKILL")
    assert launcher.returncode == 1
    assert not left_behind(tmp_path)


def test_a_host_without_our_python_is_named(hosts, tmp_path):
    code = (
        "import sys; sys.executable = '/no/such/python'\n"
        "from phalanx.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    argv = [sys.executable, "-c", code, "horovodrun", *hosts.options(), "-np", "1", "-H", "host-1:1", "true"]
    done = subprocess.run(
        hosts.inside(0, argv), env=hosts.environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("phalanx: host-1 cannot be reached: ")
    assert "/no/such/python" in done.stderr.splitlines()[0]


def test_a_host_without_our_key_is_named_in_the_words_of_ssh(hosts, tmp_path):
    key = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    done = horovodrun(hosts, "-i", str(key), "-np", "2", "-H", "localhost:1,host-1:1", "true")
    assert done.returncode == 1
    assert "phalanx: host-1 cannot be reached: " in done.stderr
    assert "Permission denied (publickey)" in done.stderr


def test_a_host_that_never_answers_is_named_within_the_start_timeout(hosts):
    done = horovodrun(hosts, "--start-timeout", "2", "-np", "2", "-H", "localhost:1,10.77.0.99:1", "true", timeout=20)
    assert done.stderr.startswith("phalanx: 10.77.0.99 cannot be reached: ")
    assert done.returncode == 1


CALLS = """
import os, sys
import phalanx.horovod as hvd

def where(word):
    return word, int(os.environ["HOROVOD_RANK"]), os.uname().nodename

if __name__ == "__main__":
    key, port = sys.argv[1:]
    print(hvd.run(where, ("here",), num_proc=2, hosts="localhost:1,host-1:1", ssh_identity_file=key, ssh_port=int(port)))
"""


def test_a_function_is_called_on_every_host(hosts, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(CALLS)
    argv = hosts.inside(0, [sys.executable, str(script), str(hosts.directory / "key"), hosts.options()[1]])
    done = subprocess.run(argv, env=hosts.environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "[('here', 0, 'host-0'), ('here', 1, 'host-1')]\n", done.stderr


TRAINS = """
import os
import torch
import horovod.torch as hvd

hvd.init()
total = hvd.allreduce(torch.full((1000,), float(hvd.rank())), op=hvd.Sum, name="total")
rows = hvd.allgather(torch.tensor([hvd.rank()]), name="rows")
assert rows.tolist() == list(range(hvd.size())), rows
print(hvd.size(), hvd.rank(), hvd.local_rank(), hvd.local_size(), hvd.cross_rank(), hvd.cross_size(),
      total.unique().tolist(), os.uname().nodename)
hvd.shutdown()
"""


@pytest.mark.slow
def test_four_hosts_of_four_processes_are_sixteen(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(TRAINS)
    with SshHosts(4, tmp_path) as hosts:
        names = ",".join(f"{hosts.address(0) if number == 0 else hosts.name(number)}:4" for number in range(4))
        options = ["-np", "16", "-H", names, "--start-timeout", "120", "--gloo-timeout-seconds", "240"]
        done = horovodrun(hosts, *options, sys.executable, str(script), timeout=280)
    assert done.returncode == 0, done.stderr
    assert of_ranks(done.stdout) == {
        rank: [f"16 {rank} {rank % 4} 4 {rank // 4} 4 [120.0] host-{rank // 4}"] for rank in range(16)
    }
