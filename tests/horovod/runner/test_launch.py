"""Jobs started by `phalanx horovodrun` as a person does: what the processes are told, and how a job ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import left_behind, wait_until, with_argument

ENVIRONMENT = "import os; print(*(os.environ.get(name, '-') for name in '{}'.split()))"


def horovodrun(
    *arguments: str, env: dict[str, str] | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "phalanx", "horovodrun", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | (env or {}),
        timeout=timeout,
        check=False,
    )


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def of_ranks(said: str, stream: str = "stdout") -> dict[int, list[str]]:
    """The lines that each rank wrote."""
    found: dict[int, list[str]] = {}
    for line in said.splitlines():
        match = re.fullmatch(rf"\[(\d+)\]<{stream}>:(.*)", line)
        if match:
            found.setdefault(int(match[1]), []).append(match[2])
    return found


def test_each_process_is_told_its_place_in_our_words_and_in_horovods():
    names = (
        "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE HOROVOD_RANK HOROVOD_SIZE HOROVOD_LOCAL_RANK HOROVOD_LOCAL_SIZE "
        "HOROVOD_CROSS_RANK HOROVOD_CROSS_SIZE HOROVOD_HOSTNAME HOROVOD_CONTROLLER HOROVOD_CPU_OPERATIONS PYTHONUNBUFFERED"
    )
    done = horovodrun("-np", "2", *python(ENVIRONMENT.format(names)))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert of_ranks(done.stdout) == {
        0: ["0 2 0 2 0 2 0 2 0 1 localhost gloo gloo 1"],
        1: ["1 2 1 2 1 2 1 2 0 1 localhost gloo gloo 1"],
    }


def test_two_names_of_this_machine_are_two_hosts():
    names = "HOROVOD_RANK HOROVOD_LOCAL_RANK HOROVOD_LOCAL_SIZE HOROVOD_CROSS_RANK HOROVOD_CROSS_SIZE PHALANX_HOST"
    done = horovodrun("-np", "3", "-H", "localhost:2,127.0.0.1:1", *python(ENVIRONMENT.format(names)))
    assert of_ranks(done.stdout) == {0: ["0 0 2 0 2 localhost"], 1: ["1 1 2 0 1 localhost"], 2: ["2 0 1 1 2 127.0.0.1"]}


TRAINS = """
import torch
import horovod.torch as hvd

hvd.init()
total = hvd.allreduce(torch.ones(3) * hvd.rank(), op=hvd.Sum, name="total")
print(hvd.rank(), hvd.size(), hvd.local_rank(), hvd.local_size(), hvd.cross_rank(), hvd.cross_size(), total.tolist())
"""


def test_an_unmodified_script_runs_on_what_looks_like_two_hosts(tmp_path):
    (tmp_path / "train.py").write_text(TRAINS)
    hosts = ["-np", "3", "-H", "localhost:2,127.0.0.1:1"]
    done = horovodrun(*hosts, sys.executable, str(tmp_path / "train.py"), env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert of_ranks(done.stdout) == {
        0: ["0 3 0 2 0 2 [3.0, 3.0, 3.0]"],
        1: ["1 3 1 2 0 1 [3.0, 3.0, 3.0]"],
        2: ["2 3 0 1 1 2 [3.0, 3.0, 3.0]"],
    }


def test_a_script_that_dies_before_it_joins_the_others_is_named(tmp_path):
    dies = "import os, sys\nif os.environ['HOROVOD_RANK'] == '1': sys.exit('no licence')\n"
    (tmp_path / "train.py").write_text(dies + TRAINS)
    done = horovodrun("-np", "2", sys.executable, str(tmp_path / "train.py"), env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2] == "phalanx: rank 1 on localhost: ended with exit code 1: no licence"
    assert not left_behind(tmp_path, 0)


def test_options_reach_the_processes_as_variables():
    names = "HOROVOD_FUSION_THRESHOLD HOROVOD_CYCLE_TIME HOROVOD_TIMELINE NCCL_SOCKET_IFNAME HOROVOD_GLOO_IFACE"
    options = ["--fusion-threshold-mb", "2", "--cycle-time-ms=3.5", "--timeline-filename", "t.json", "-np=1"]
    done = horovodrun(*options, "--network-interfaces", "lo", *python(ENVIRONMENT.format(names)))
    assert of_ranks(done.stdout) == {0: ["2097152 3.5 t.json lo lo"]}


def test_processes_meet_in_a_private_directory_that_goes_away(tmp_path):
    code = (
        "import os; path = os.environ['PHALANX_RENDEZVOUS']; print(path, oct(os.stat(os.path.dirname(path)).st_mode))"
    )
    done = horovodrun("-np", "1", *python(code), env={"TMPDIR": str(tmp_path)})
    path, mode = of_ranks(done.stdout)[0][0].split()
    assert Path(path).parent.parent == tmp_path
    assert mode == "0o40700"
    assert list(tmp_path.iterdir()) == []


def test_torch_shows_no_c_plus_plus_unless_it_is_asked_to():
    show = python(ENVIRONMENT.format("TORCH_CPP_LOG_LEVEL"))
    assert of_ranks(horovodrun("-np", "1", *show).stdout) == {0: ["ERROR"]}
    assert of_ranks(horovodrun("-np", "1", *show, env={"TORCH_CPP_LOG_LEVEL": "INFO"}).stdout) == {0: ["INFO"]}


def test_what_another_launcher_told_us_is_not_passed_on():
    theirs = {"RANK": "7", "MASTER_ADDR": "nowhere", "TORCHELASTIC_USE_AGENT_STORE": "True", "PHALANX_GENERATION": "3"}
    done = horovodrun("-np", "1", *python(ENVIRONMENT.format(" ".join(theirs))), env=theirs)
    assert of_ranks(done.stdout) == {0: ["0 - - -"]}


def test_options_after_the_program_are_the_programs():
    done = horovodrun("-np", "1", *python("import sys; print(sys.argv[1:])", "-np", "3", "--help", "--verbose", "-H"))
    assert of_ranks(done.stdout) == {0: ["['-np', '3', '--help', '--verbose', '-H']"]}


def test_both_streams_come_to_both_streams_and_to_files(tmp_path):
    code = "import sys; print('out'); print('err', file=sys.stderr)"
    done = horovodrun("-np", "2", "--output-filename", str(tmp_path / "logs"), *python(code))
    assert sorted(done.stdout.splitlines()) == ["[0]<stdout>:out", "[1]<stdout>:out"]
    assert sorted(done.stderr.splitlines()) == ["[0]<stderr>:err", "[1]<stderr>:err"]
    for rank in range(2):
        assert (tmp_path / "logs" / f"rank.{rank}" / "stdout").read_text() == f"[{rank}]<stdout>:out\n"
        assert (tmp_path / "logs" / f"rank.{rank}" / "stderr").read_text() == f"[{rank}]<stderr>:err\n"


def test_what_can_mean_nothing_is_said_once_and_the_job_goes_on():
    done = horovodrun("-np", "2", "--mpi", "--autotune", *python("print('on')"))
    assert done.returncode == 0
    assert sorted(done.stderr.splitlines()) == [
        "phalanx: --autotune has no effect: Phalanx does not tune itself while a job runs",
        "phalanx: --mpi has no effect: nothing here goes through MPI",
    ]
    assert of_ranks(done.stdout) == {0: ["on"], 1: ["on"]}


def test_a_configuration_file_comes_after_what_was_typed(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("params: {fusion_threshold_mb: 1, cycle_time_ms: 7, pace: 3}\n")
    names = "HOROVOD_FUSION_THRESHOLD HOROVOD_CYCLE_TIME"
    options = ["-np", "1", "--config-file", str(file), "--cycle-time-ms", "9"]
    done = horovodrun(*options, *python(ENVIRONMENT.format(names)))
    assert of_ranks(done.stdout) == {0: ["1048576 9.0"]}
    assert done.stderr == f"phalanx: {file}:1: params.pace is not known, and has no effect\n"


FAILS = """
import os, signal, sys, time
if os.environ["RANK"] == "1":
    print("about to fail", file=sys.stderr, flush=True)
    exec(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: sys.exit("was asked to stop"))
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("sys.exit(3)", "ended with exit code 3: about to fail"),
        ("raise ValueError('bad batch')", "ended with exit code 1: ValueError: bad batch"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL: about to fail"),
        ("os.abort()", "was killed by SIGABRT: about to fail"),
    ],
)
def test_the_first_rank_that_fails_ends_the_job_with_one_message(tmp_path, how, said):
    done = horovodrun("-np", "3", *python(FAILS, how, str(tmp_path)))
    assert done.returncode == 1
    ours = [line for line in done.stderr.splitlines() if not line.startswith("[")]
    assert ours == [f"phalanx: rank 1 on localhost: {said}", "  To do: look at what it wrote, above"]
    assert not left_behind(tmp_path, 0)


def test_the_rank_that_failed_first_is_named_and_not_those_that_followed():
    code = (
        "import os, sys, time\n"
        "path = os.environ['PHALANX_RENDEZVOUS']\n"
        "if os.environ['RANK'] == '2': open(path, 'w').close(); sys.exit('the cause')\n"
        "while not os.path.exists(path): time.sleep(0.001)\n"
        "time.sleep(0.1); sys.exit('a consequence')\n"
    )
    done = horovodrun("-np", "3", *python(code))
    assert "phalanx: rank 2 on localhost: ended with exit code 1: the cause\n" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-np", "5", "-H", "localhost:4", "true"], "5 processes were asked for, but there are 4 slots (localhost:4)"),
        (["true"], "it is not said how many processes to start"),
        (["-np", "2"], "there is no program to run"),
        (["-np", "2", "no-such-program"], "there is no program 'no-such-program'"),
        (["-np", "2", "--min-np", "1", "no-such-program"], "there is no program 'no-such-program'"),
        (["-np", "2", "-H", "localhost", "true"], "'localhost' is no host with its slots"),
        (["-np", "2", "-hostfile", "/no/such", "true"], "/no/such: cannot be read: No such file or directory"),
        (["-np", "1", "--cycle-time-ms", "-1", "true"], "--cycle-time-ms is -1.0"),
        (["-np", "0", "true"], "--num-proc is 0"),
        (["-np", "3", "--max-np", "2", "true"], "--max-np 2 is less than -np 3"),
        (["-np", "1", "--min-np", "2", "true"], "2 processes were asked for, but there is 1 slot (localhost:1)"),
        (
            ["-np", "3", "--min-np", "1", "-H", "localhost:2", "true"],
            "3 processes were asked for, but there are 2 slots (localhost:2)",
        ),
    ],
)
def test_what_cannot_be_meant_is_one_message_and_starts_nothing(arguments, said):
    done = horovodrun(*arguments)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first == f"phalanx: {said}"
    assert second.startswith("  To do: ")


def test_a_host_that_cannot_be_reached_is_named_with_what_ssh_said():
    done = horovodrun("-np", "3", "-H", "localhost:1,no-such-host.invalid:2", "true")
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first.startswith("phalanx: no-such-host.invalid cannot be reached: ssh: Could not resolve hostname")
    assert "`ssh HOST true`" in second


WAITS = "import time; print('waiting', flush=True); time.sleep(600)"


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, b"phalanx: interrupted\n"),
        (signal.SIGTERM, 143, b"phalanx: ended by SIGTERM\n"),
        (signal.SIGKILL, -signal.SIGKILL, b""),
    ],
)
def test_nothing_is_left_when_the_launcher_is_ended(tmp_path, number, code, said):
    argv = [sys.executable, "-m", "phalanx", "horovodrun", "-np", "2", *python(WAITS, str(tmp_path))]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    launcher = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert launcher.stdout is not None
    for _ in range(2):
        assert b"waiting" in launcher.stdout.readline()
    launcher.send_signal(number)
    _, errors = launcher.communicate(timeout=30)
    assert (launcher.returncode, errors) == (code, said)
    assert not left_behind(tmp_path)
    wait_until(lambda: list(tmp_path.iterdir()) == [], "files are left")


def test_a_reader_that_leaves_ends_the_job(tmp_path):
    code = "import sys, time\nwhile True: print('y' * 100, flush=True)"
    argv = [sys.executable, "-m", "phalanx", "horovodrun", "-np", "2", *python(code, str(tmp_path))]
    launcher = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert launcher.stdout is not None
    assert launcher.stdout.readline()
    launcher.stdout.close()
    assert launcher.wait(30) == 141
    assert not with_argument(str(tmp_path))


@pytest.mark.parametrize("elastic", [[], ["--min-np", "1"]])
def test_output_that_cannot_be_written_ends_the_job_with_one_message(tmp_path, elastic):
    code = "import time\nprint('y', flush=True)\ntime.sleep(600)"
    argv = [sys.executable, "-m", "phalanx", "horovodrun", "-np", "2", *elastic, *python(code, str(tmp_path))]
    with open("/dev/full", "w") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2] == "phalanx: cannot write: No space left on device"
    assert "Traceback" not in done.stderr
    assert not left_behind(tmp_path, 0)


def test_help_and_check_build_load_no_torch_here(capfd):
    code = (
        "import sys\nfrom phalanx.cli.main import main\n"
        "assert main(['horovodrun', '--help']) == 0\n"
        "assert main(['horovodrun', '--check-build']) == 0\n"
        "assert main(['horovodrun', '-v']) == 0\n"
        "assert main(['horovodrun', '-np', '1', 'true']) == 0\n"
        "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    said = capfd.readouterr().out
    for option in ("-np, --num-proc", "-hostfile, --hostfile", "--blacklist-cooldown-range", "-prefix-timestamp"):
        assert option in said
    assert "Horovod v0.28.1:" in said
    assert "[X] PyTorch" in said
    assert "[ ] MPI" in said
    assert "[X] Gloo" in said
    assert "\n0.28.1\n" in said


def test_the_rank_that_is_the_cause_is_named_and_not_the_one_whose_operation_failed_of_it():
    script = """
import sys, torch
import horovod.torch as hvd
hvd.init()
if hvd.rank() == 1:
    sys.exit(3)
hvd.allreduce(torch.ones(1))
"""
    done = horovodrun("-np", "2", *python(script))
    assert done.returncode == 1
    assert "phalanx: rank 1 on localhost: ended with exit code 3" in done.stderr


def test_a_timeline_that_cannot_be_written_is_said_before_anything_starts(tmp_path):
    missing = str(tmp_path / "missing" / "timeline.json")
    elastic = ["--min-np", "1", "--timeline-filename", missing]
    for given, env in ((elastic[2:], {}), ([], {"HOROVOD_TIMELINE": missing}), (elastic, {})):
        done = horovodrun("-np", "2", *given, *python("print('started')"), env=env)
        assert done.returncode == 2
        assert "started" not in done.stdout
        assert f"phalanx: the timeline {missing} cannot be written" in done.stderr
