"""Where workers go and what they are started with, compared with what torchrun sets."""

from __future__ import annotations

import sys
from pathlib import Path

from phalanx.cluster import place, worker_specs
from phalanx.job import WorkerSpec
from tests.cluster.made import UID, make_job, make_plan


def specs(workers: int = 3, generation: int = 2, fallback: int = -1) -> list[WorkerSpec]:
    job, plan = make_job(workers=workers, attempt=4), make_plan(workers).model_copy(update={"threads": 2})
    placement = place(job, plan, generation, "here")
    return worker_specs(job, plan, placement, Path("/runs/a"), Path("/spool"), fallback)


def test_every_rank_of_the_mesh_is_placed_once_on_the_named_agent() -> None:
    placement = place(make_job(attempt=4), make_plan(3), 2, "here")
    assert [(m.rank, m.local_rank, m.host, m.address) for m in placement.members] == [
        (rank, rank, "here", "127.0.0.1") for rank in range(3)
    ]
    assert (placement.job_uid, placement.attempt, placement.generation) == (UID, 4, 2)


def test_rank_and_size_come_by_environment_as_torchrun_does_it() -> None:
    for rank, spec in enumerate(specs()):
        said = {name: spec.env[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")}
        assert said == {"RANK": str(rank), "WORLD_SIZE": "3", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "3"}


def test_workers_of_one_generation_meet_in_one_file_that_no_other_generation_uses() -> None:
    first, second = specs(generation=1), specs(generation=2)
    assert len({spec.env["PHALANX_RENDEZVOUS"] for spec in first}) == 1
    assert first[0].env["PHALANX_RENDEZVOUS"] != second[0].env["PHALANX_RENDEZVOUS"]


def test_a_worker_listens_on_loopback_and_uses_the_threads_of_the_plan() -> None:
    env = specs()[1].env
    assert (env["GLOO_SOCKET_IFNAME"], env["OMP_NUM_THREADS"]) == ("lo", "2")


def test_a_worker_knows_whose_it_is() -> None:
    env = specs()[0].env
    names = ("PHALANX_JOB_UID", "PHALANX_NAMESPACE", "PHALANX_ATTEMPT", "PHALANX_GENERATION")
    assert [env[name] for name in names] == [UID, "tests", "4", "2"]


def test_the_program_is_this_python_s_worker_and_takes_the_fallback() -> None:
    argv = specs(fallback=1)[0].argv
    assert argv[:3] == (sys.executable, "-m", "phalanx.training.worker")
    assert dict(zip(argv[3::2], argv[4::2], strict=True)) == {
        "--run-dir": "/runs/a",
        "--spool": "/spool",
        "--fallback": "1",
    }
