"""The same script under real launchers. It is told nothing but what the launcher tells it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, sys
import torch
import phalanx.collectives as c

c.init()
tensor = torch.tensor([float(2 ** c.rank())])
c.world().allreduce(tensor).wait()
where = type(c.world().membership.rendezvous).__name__
line = f"{c.size()} {c.rank()} {c.local_rank()} {c.local_size()} {c.cross_rank()} {c.cross_size()} {tensor.item():g} {where}"
os.write(1, (line + chr(10)).encode())  # one write: ranks share this pipe
c.shutdown()
os._exit(0)
"""


def launched(argv: list[str], tmp_path: Path, **extra: str) -> list[str]:
    """The lines of all ranks, sorted, of a run in which nothing is left over from this process's environment."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    known = ("PATH", "HOME", "VIRTUAL_ENV", "PYTHONPATH", "PHALANX_HOME")
    environment = {name: os.environ[name] for name in known if name in os.environ}
    environment |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "TMPDIR": str(tmp_path)} | extra
    run = subprocess.run(
        [*argv, str(script)], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    return sorted(run.stdout.splitlines())


def expected(size: int, where: str) -> list[str]:
    return [f"{size} {rank} {rank} {size} 0 1 {2**size - 1} {where}" for rank in range(size)]


def needs(kind: str, *programs: str) -> str:
    """The first of `programs` that is of this `kind`, as it says of itself."""
    for path in filter(None, map(shutil.which, programs)):
        if kind in subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout:
            return path
    pytest.skip(f"no {kind} here: apt-get install openmpi-bin mpich")


OPEN_MPI_AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def test_under_open_mpi_they_meet_in_a_file_of_their_own(tmp_path):
    mpirun = needs("Open MPI", "mpirun.openmpi", "mpirun")
    argv = [mpirun, "--oversubscribe", "-n", "2", sys.executable]
    assert launched(argv, tmp_path, **OPEN_MPI_AS_ROOT) == expected(2, "PosixPath")
    (file,) = (tmp_path / f"phalanx-{os.getuid()}").iterdir()
    assert launched(argv, tmp_path, **OPEN_MPI_AS_ROOT) == expected(2, "PosixPath")
    assert not file.exists(), "the next run removes what the last left"


def test_under_open_mpi_a_given_master_counts(tmp_path, free_port):
    mpirun = needs("Open MPI", "mpirun.openmpi", "mpirun")
    argv = [mpirun, "--oversubscribe", "-n", "2", sys.executable]
    master = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port)}
    assert launched(argv, tmp_path, **OPEN_MPI_AS_ROOT, **master) == expected(2, "Address")


def test_under_hydra_a_shell_may_be_between(tmp_path):
    mpiexec = needs("HYDRA", "mpiexec.hydra", "mpirun.mpich", "mpirun")
    argv = [mpiexec, "-n", "2", "sh", "-c", '"$@"; exit $?', "sh", sys.executable]
    assert launched(argv, tmp_path) == expected(2, "PosixPath")


def test_under_hydra_one_rank_after_another_may_run_several_scripts(tmp_path):
    """The file is that of the launcher: the second script finds what the first wrote, and is not misled."""
    mpiexec = needs("HYDRA", "mpiexec.hydra", "mpirun.mpich", "mpirun")
    argv = [mpiexec, "-n", "2", "sh", "-c", '"$@" && "$@"; exit $?', "sh", sys.executable]
    assert launched(argv, tmp_path) == sorted(expected(2, "PosixPath") * 2)


def test_under_torchrun_the_agents_store_is_used(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    assert launched([*torchrun, "--nproc-per-node", "2", "--standalone"], tmp_path) == expected(2, "Address")


def test_under_torchrun_a_restart_is_a_new_generation(tmp_path):
    """The first time, rank 1 ends before it joins; rank 0 has signed in by then. All are started again."""
    trouble = tmp_path / "trouble"
    trouble.write_text(
        "import os, sys, time\n"
        "sys.argv = sys.argv[1:]\n"
        "if os.environ['TORCHELASTIC_RESTART_COUNT'] == '0' and os.environ['RANK'] == '1':\n"
        "    sys.exit(3)\n"
        "exec(open(sys.argv[0]).read())\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    lines = launched(
        [
            *torchrun,
            "--master-addr",
            "127.0.0.1",
            "--rdzv-backend",
            "c10d",
            "--rdzv-endpoint",
            "127.0.0.1:0",
            str(trouble),
        ],
        tmp_path,
    )
    assert lines == expected(2, "Address")
