"""Groups over several hosts: network namespaces on one bridge, each with its own address and host name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.namespaces import Hosts

pytestmark = pytest.mark.root


def on_hosts(counts: list[int], code: str, tmp_path: Path, bad: int = 0) -> list[str]:
    """What each rank prints; `counts`: of the ranks of each host; `bad`: how many may end badly."""
    size = sum(counts)
    with Hosts(len(counts)) as hosts:
        members = []
        for number, count in enumerate(counts):
            for local_rank in range(count):
                rank = len(members)
                environment = {
                    "RANK": str(rank),
                    "WORLD_SIZE": str(size),
                    "LOCAL_RANK": str(local_rank),
                    "LOCAL_WORLD_SIZE": str(count),
                    "MASTER_ADDR": hosts.address(0),
                    "MASTER_PORT": "29500",
                    "PHALANX_HOST": hosts.name(number),
                    "GLOO_SOCKET_IFNAME": "eth0",
                }
                output = str(tmp_path / f"rank-{rank}.out")
                members.append({"holder": hosts.holder(number), "environment": environment, "output": output})
        orders = tmp_path / "orders.json"
        orders.write_text(json.dumps({"code": code, "members": members}))
        run = subprocess.run(
            [sys.executable, "-m", "tests.collectives.fleet", str(orders)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            timeout=120,
            check=False,
        )
        outputs = [Path(member["output"]) for member in members]
        logs = "\n".join(path.with_suffix(".out.log").read_text()[-2000:] for path in outputs)
        assert run.returncode == bad, logs
        return [path.read_text() for path in outputs]


PLACES = """
group = init()
total = torch.full((1000,), float(rank()))
group.allreduce(total, name="total").wait()
roots = torch.full((1000,), float(rank()))
group.broadcast(roots, root=size() - 1, name="roots").wait()
rows = group.allgather(torch.tensor([rank()]), name="rows")
assert rows.flatten().tolist() == list(range(size())), rows
assert total.unique().tolist() == [size() * (size() - 1) / 2], total
assert roots.unique().tolist() == [size() - 1], roots
print(size(), rank(), local_rank(), local_size(), cross_rank(), cross_size(), os.uname().nodename, type(group.transport).__name__)
sys.stdout.flush()
shutdown()
"""


def test_four_hosts_of_four_processes_are_sixteen(tmp_path):
    outputs = on_hosts([4, 4, 4, 4], PLACES, tmp_path)
    transport = "Hierarchical" if shutil.which("cc") else "Torch"
    for rank, output in enumerate(outputs):
        assert output == f"16 {rank} {rank % 4} 4 {rank // 4} 4 host-{rank // 4} {transport}\n"


def test_hosts_may_have_different_numbers_of_ranks(tmp_path):
    outputs = on_hosts([3, 1, 2], PLACES, tmp_path)
    assert outputs == [
        "6 0 0 3 0 3 host-0 Torch\n",
        "6 1 1 3 0 2 host-0 Torch\n",
        "6 2 2 3 0 1 host-0 Torch\n",
        "6 3 0 1 1 3 host-1 Torch\n",
        "6 4 0 2 2 3 host-2 Torch\n",
        "6 5 1 2 1 2 host-2 Torch\n",
    ]


LOSES_THE_LAST = """
import signal
group = init()
if rank() == size() - 1:
    os.kill(os.getpid(), signal.SIGKILL)
try:
    while True:
        group.allreduce(torch.ones(100_000), name="gradients").wait()
except PeerLost as error:
    print(error.ranks, error.where, str(error).splitlines()[0], flush=True)
shutdown()  # rank 0 holds the register: it waits until the others have read there why they failed
"""


def test_a_rank_that_dies_on_another_host_is_named_on_all(tmp_path):
    *survivors, _ = on_hosts([2, 2], LOSES_THE_LAST, tmp_path, bad=1)
    for rank, said in enumerate(survivors):
        assert said.startswith(f"(3,) rank {rank} "), said
        assert "'gradients': rank 3 (pid" in said
