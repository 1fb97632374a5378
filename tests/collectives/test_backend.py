"""The torch.distributed backend over real processes: its operations, what is built on them, and what goes wrong."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CHECKS = Path(__file__).with_name("backend_checks.py")


def names(group: str) -> list[str]:
    """The checks of `group`, read from the file: importing it here would cost seconds."""
    lines = CHECKS.read_text().splitlines()
    functions = [after for line, after in itertools.pairwise(lines) if line == f'@check("{group}")']
    return [line.split("(")[0].removeprefix("def ") for line in functions]


def run_checks(groups: str, size: int, where: Path, *, hosts: int = 1, **extra: str) -> dict[str, str]:
    """On `hosts` that are so by name only. For each check that was run: "", or what went wrong on the first rank where something did."""
    environment = os.environ | {
        "WORLD_SIZE": str(size),
        "PHALANX_RENDEZVOUS": str(where / "rendezvous"),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, str(CHECKS), str(where / "results"), *groups.split()],
            env=environment | {"RANK": str(rank), "PHALANX_HOST": f"host-{rank * hosts // size}"} | extra,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    found: dict[str, str] = {}
    try:
        for rank, process in enumerate(ranks):
            _, errors = process.communicate(timeout=240)
            results = where / f"results-{rank}"
            words = json.loads(results.read_text()) if results.exists() else {}
            if process.returncode != 0:
                words[errors.splitlines()[0] if errors else "start"] = (
                    f"rank {rank} ended with {process.returncode}: {errors}"
                )
            found |= {name: found.get(name) or text for name, text in words.items()}
    finally:
        for process in ranks:
            process.kill()
            process.communicate()
    return found


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return run_checks("operations", 3, tmp_path_factory.mktemp("operations"))


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """`behaviour` last: it breaks the group."""
    before = set(Path("/dev/shm").glob("phalanx-*"))
    found = run_checks("frameworks life behaviour", 2, tmp_path_factory.mktemp("two"))
    left = set(Path("/dev/shm").glob("phalanx-*")) - before
    mine = [path.name for path in left if not Path(f"/proc/{path.name.split('-')[1]}").exists()]
    return found | {"left behind": ", ".join(mine)}


@pytest.mark.parametrize("name", names("operations"))
def test_an_operation_gives_what_every_rank_can_compute_alone(operations: dict[str, str], name: str) -> None:
    assert operations.get(name, f"not reached: {operations}") == ""


@pytest.mark.parametrize("name", names("frameworks"))
def test_what_is_built_on_torch_distributed_runs_unchanged(two_ranks: dict[str, str], name: str) -> None:
    assert two_ranks.get(name, f"not reached: {two_ranks}") == ""


@pytest.mark.parametrize("name", [*names("life"), "left behind"])
def test_groups_come_and_go_without_a_trace(two_ranks: dict[str, str], name: str) -> None:
    assert two_ranks.get(name, f"not reached: {two_ranks}") == ""


@pytest.mark.slow
def test_all_of_it_runs_with_torchs_debugging_and_compiled_by_inductor(tmp_path: Path) -> None:
    debugging = {"TORCH_DISTRIBUTED_DEBUG": "DETAIL", "TORCH_FR_BUFFER_SIZE": "100", "COMPILE_WITH": "inductor"}
    for group in ("operations", "frameworks"):
        place = tmp_path / group
        place.mkdir()
        assert run_checks(group, 2, place, **debugging) == dict.fromkeys(names(group), "")


@pytest.mark.slow
@pytest.mark.parametrize(("size", "hosts", "transport"), [(4, 2, "auto"), (2, 1, "gloo")])
def test_all_of_it_runs_over_the_other_transports(tmp_path: Path, size: int, hosts: int, transport: str) -> None:
    groups = ["operations", "frameworks", "life", "behaviour"]
    found = run_checks(" ".join(groups), size, tmp_path, hosts=hosts, PHALANX_TRANSPORT=transport)
    assert found == dict.fromkeys([name for group in groups for name in names(group)], "")


@pytest.mark.parametrize("name", names("behaviour"))
def test_a_work_behaves_as_torch_expects(two_ranks: dict[str, str], name: str) -> None:
    assert two_ranks.get(name, f"not reached: {two_ranks}") == ""


def test_a_killed_rank_is_named_in_backward_and_by_an_error_that_is_torchs_too(
    start_ranks: Callable[..., list[subprocess.Popen[str]]],
) -> None:
    code = """
        import torch.distributed as dist
        where = f"file://{os.environ['PHALANX_RENDEZVOUS']}-torch"
        dist.init_process_group("phalanx", init_method=where, rank=member.rank, world_size=member.size)
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 4))
        model(torch.ones(2, 4)).sum().backward()
        if member.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            model(torch.ones(2, 4)).sum().backward()
        except RuntimeError as error:
            print("rank 1" in str(error), str(error).replace(chr(10), " "))
        try:
            dist.all_reduce(torch.ones(2))
        except dist.DistBackendError as error:
            print(isinstance(error, RuntimeError), type(error).__name__, error.ranks)
        """
    first, second = start_ranks(2, code)
    output, errors = first.communicate(timeout=60)
    backward, blocking = output.splitlines()
    assert backward.startswith("True"), output + errors
    assert blocking == "True PeerLost (1,)", errors
    second.communicate(timeout=60)


def test_a_rank_that_does_not_come_is_named_while_there_is_time_and_when_it_is_up(
    start_ranks: Callable[..., list[subprocess.Popen[str]]],
) -> None:
    code = """
        import datetime, torch.distributed as dist
        where = f"file://{os.environ['PHALANX_RENDEZVOUS']}-torch"
        limit = datetime.timedelta(seconds=4)
        try:
            dist.init_process_group("phalanx", init_method=where, rank=0, world_size=2, timeout=limit)
        except CollectiveTimeout as error:
            print(error.missing, error.message)
            os._exit(0)
        """
    (first,) = start_ranks(2, code, ranks=[0])
    output, errors = first.communicate(timeout=60)
    assert output == "(1,) rank 1 did not join within 4 s\n", errors
    assert "waiting for rank 1 to join" in errors


def test_a_script_of_torchruns_runs_unchanged_where_phalanx_is_installed(tmp_path: Path) -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["torch.backends"]
    installed = tmp_path / "phalanx_ml-0.dist-info"  # as pip writes it: the checkout's own may be older
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: phalanx-ml\nVersion: 0\n")
    lines = "".join(f"{name} = {where}\n" for name, where in points.items())
    (installed / "entry_points.txt").write_text(f"[torch.backends]\n{lines}")
    script = tmp_path / "script.py"
    script.write_text(
        "import torch, torch.distributed as dist\n"
        'dist.init_process_group("phalanx")\n'
        "tensor = torch.tensor([dist.get_rank() + 1.0])\n"
        "dist.all_reduce(tensor)\n"
        "print(int(tensor), flush=True)\n"
        "dist.destroy_process_group()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "".join(done.stdout.split()) == "33"
