"""What launchers say in the environment: each one's variables, which of two counts, and what cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.collectives.errors import CollectiveError
from phalanx.collectives.identity import start_ticks
from phalanx.collectives.launchers import (
    Address,
    Told,
    first_host,
    launcher_file,
    meeting_point,
    tasks_per_node,
    told_by,
)

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "PMIX_RANK": "5",
    "PMIX_NAMESPACE": "1361379329",
}
HYDRA = {"PMI_RANK": "5", "PMI_SIZE": "8", "PMI_FD": "6", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NODELIST": "n[01-02]",
}
PLACE = Told(rank=5, size=8, local_rank=1, local_size=4)


@pytest.mark.parametrize("environment", [TORCHRUN, OPEN_MPI, HYDRA, SLURM], ids=["torchrun", "ompi", "hydra", "slurm"])
def test_every_launcher_is_understood(environment):
    assert told_by(environment) == PLACE


def test_without_a_launcher_a_process_is_alone():
    for environment in ({}, {"WORLD_SIZE": "1"}, {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}):
        told = told_by(environment)
        assert told == Told(0, 1, None, None)
        assert meeting_point(environment, told) is None


def test_the_inner_of_two_launchers_counts():
    around = SLURM | {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
    for inner in (TORCHRUN, OPEN_MPI, HYDRA):
        assert told_by(around | inner) == PLACE
    assert told_by(OPEN_MPI | {"RANK": "0", "WORLD_SIZE": "1"}) == Told(0, 1, None, None)


def test_a_job_script_of_slurm_is_one_process():
    """sbatch runs it with the numbers of the job, before any step."""
    script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "77"}
    assert told_by(script) == Told(0, 1, None, None)


def test_slurms_own_pmi_and_pmix_agree_with_it():
    assert told_by(SLURM | {"PMIX_RANK": "5"}) == PLACE
    assert told_by({"PMIX_RANK": "1", "WORLD_SIZE": "2"}) == Told(1, 2, None, None)


def test_slurm_with_unequal_hosts():
    unequal = SLURM | {"SLURM_STEP_TASKS_PER_NODE": "4,2(x2)"}
    assert told_by(unequal).local_size == 2
    assert told_by(unequal | {"SLURM_NODEID": "0"}).local_size == 4
    del unequal["SLURM_NODEID"]
    assert told_by(unequal).local_size is None


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RANK": "x"}, "RANK is 'x', not a number"),
        ({"RANK": "", "WORLD_SIZE": "2"}, "RANK is '', not a number"),
        ({"RANK": "1"}, "RANK is 1, but WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE is 4, but nothing says which rank this is"),
        (TORCHRUN | {"RANK": "8"}, "rank 8 of 8 .* is impossible"),
        (TORCHRUN | {"RANK": "-1"}, "impossible"),
        (TORCHRUN | {"LOCAL_RANK": "4"}, r"local 4 of 4\) is impossible\n  To do: check RANK, WORLD_SIZE, LOCAL_RANK"),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "9"}, "impossible"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "rank 0 of 0 is impossible"),
        ({"OMPI_COMM_WORLD_RANK": "0"}, "OMPI_COMM_WORLD_SIZE is not set"),
        (OPEN_MPI | {"WORLD_SIZE": "4"}, "WORLD_SIZE is 4, but OMPI_COMM_WORLD_SIZE is 8"),
        (HYDRA | {"PMI_SIZE": "3"}, "rank 5 of 3"),
        ({"PMIX_RANK": "0"}, "PMIX_RANK is 0, but WORLD_SIZE is not set"),
        (SLURM | {"PMIX_RANK": "4"}, "PMIX_RANK is 4, but SLURM_PROCID is 5"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "4"}, r"\(4\) is 4, but SLURM_STEP_NUM_TASKS is 8"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "four"}, "'four', which is not like"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "5,3", "SLURM_NODEID": "2"}, "SLURM_NODEID is 2"),
    ],
)
def test_what_cannot_be_is_refused_with_the_variables_name(environment, said):
    with pytest.raises(CollectiveError, match=said):
        told_by(environment)


def test_where_they_meet():
    def where(environment):
        return meeting_point(environment, told_by(environment))

    master = {"MASTER_ADDR": "n01", "MASTER_PORT": "29500"}
    assert where(TORCHRUN | master) == Address("n01", 29500)
    assert where(TORCHRUN | master | {"TORCHELASTIC_USE_AGENT_STORE": "True"}) == Address("n01", 29500, True)
    assert where(TORCHRUN | master | {"TORCHELASTIC_USE_AGENT_STORE": "False"}) == Address("n01", 29500)
    assert where(TORCHRUN | master | {"PHALANX_RENDEZVOUS": "/r"}) == Path("/r")
    assert where(TORCHRUN) is None
    assert where(OPEN_MPI) is None, "several hosts, and nothing says where"
    assert where(OPEN_MPI | master) == Address("n01", 29500)
    assert where(SLURM) == Address("n01", 10_000 + 31 * 77 + 2)
    assert where(SLURM | {"MASTER_PORT": "4000"}) == Address("n01", 4000)
    assert where(SLURM | {"MASTER_ADDR": "n02"}).host == "n02"


@pytest.mark.parametrize(
    ("port", "said"), [({}, "is not set"), ({"MASTER_PORT": "0"}, "is 0"), ({"MASTER_PORT": "65536"}, "is 65536")]
)
def test_an_impossible_port_is_refused(port, said):
    environment = TORCHRUN | {"MASTER_ADDR": "n01"} | port
    with pytest.raises(CollectiveError, match=f"MASTER_PORT {said}"):
        meeting_point(environment, told_by(environment))


def as_slurm_writes(counts: list[int]) -> str:
    runs = [(count, len(list(run))) for count, run in groupby(counts)]
    return ",".join(f"{count}(x{length})" if length > 1 else str(count) for count, length in runs)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40))
def test_tasks_per_node_are_read_as_slurm_writes_them(counts):
    assert tasks_per_node(as_slurm_writes(counts)) == counts


@pytest.mark.parametrize("text", ["", "x2", "4(2)", "4(x2", "4(x2),", "-1", "4 4"])
def test_tasks_per_node_in_another_form_are_refused(text):
    with pytest.raises(CollectiveError, match="SLURM_STEP_TASKS_PER_NODE"):
        tasks_per_node(text)


@given(
    prefix=st.from_regex(r"[a-z][a-z-]{0,6}", fullmatch=True),
    ranges=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 9)), min_size=1, max_size=4),
    suffix=st.sampled_from(["", "-ib", ".cluster.local"]),
    rest=st.sampled_from(["", ",login", ",gpu[1-2,9]"]),
)
def test_the_first_host_of_a_list_is_found(prefix, ranges, suffix, rest):
    inside = ",".join(f"{low:02d}-{low + more:02d}" if more else f"{low:02d}" for low, more in ranges)
    assert first_host(f"{prefix}[{inside}]{suffix}{rest}") == f"{prefix}{ranges[0][0]:02d}{suffix}"
    assert first_host(f"{prefix}{suffix}{rest}") == f"{prefix}{suffix}"


def test_a_host_may_have_several_ranges_in_its_name():
    assert first_host("rack[1-2]node[03-04],x") == "rack1node03"


@pytest.mark.parametrize("text", ["", "n[01", "[]", ",", "n]1", "a b"])
def test_a_list_of_hosts_in_another_form_is_refused(text):
    with pytest.raises(CollectiveError, match="SLURM_STEP_NODELIST"):
        first_host(text)


ASK = "import os; from phalanx.collectives.launchers import launcher_file as f; print(f(os.environ))"


def ask(environment: dict[str, str], *wrapper: str) -> str:
    argv = [*wrapper, sys.executable, "-c", ASK]
    return subprocess.run(argv, env=os.environ | environment, check=True, capture_output=True, text=True).stdout.strip()


def test_ranks_of_one_launcher_get_one_file_whatever_shells_are_between(tmp_path):
    environment = HYDRA | {"XDG_RUNTIME_DIR": str(tmp_path)}
    first = ask(environment | {"PMI_RANK": "0"})
    second = ask(environment | {"PMI_RANK": "1"}, "sh", "-c", '"$@"; exit $?', "sh")
    assert first == second
    assert f"-{os.getpid()}-{start_ticks(os.getpid())}-" in first
    assert launcher_file(environment) != Path(first), "ours was started by another"
    job = launcher_file(environment | {"PMIX_NAMESPACE": "prte/7@1"})
    assert job.name.endswith("-prte_7_1"), "a launcher may have several jobs"


def test_files_of_launchers_that_have_ended_are_removed(tmp_path):
    environment = HYDRA | {"XDG_RUNTIME_DIR": str(tmp_path)}
    alive = launcher_file(environment)
    alive.touch()
    dead = alive.with_name(alive.name.replace(f"-{os.getppid()}-", "-4194305-"))
    elsewhere = alive.with_name("launcher-1-4194305-7-")
    dead.touch()
    elsewhere.touch()
    launcher_file(environment)
    assert alive.exists()
    assert not dead.exists()
    assert elsewhere.exists(), "in another pid namespace it may live"


def test_only_this_user_can_enter_where_the_file_is(tmp_path):
    environment = HYDRA | {"XDG_RUNTIME_DIR": str(tmp_path)}
    directory = launcher_file(environment).parent
    assert directory.stat().st_mode & 0o777 == 0o700
    directory.chmod(0o755)
    with pytest.raises(CollectiveError, match="only this user can enter"):
        launcher_file(environment)
    directory.rmdir()
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    directory.symlink_to(other)
    with pytest.raises(CollectiveError, match="only this user can enter"):
        launcher_file(environment)
