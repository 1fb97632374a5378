"""Operations of a group against the same arithmetic done in one process, and what is said when a member is gone."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from phalanx.collectives import CollectiveError, Group, Membership, join

LEAVE = "\ngroup.close(); sys.stdout.flush(); os._exit(0)\n"
BOTH = pytest.mark.parametrize("transport", ["shared-memory", "gloo"])


@pytest.mark.parametrize("size", [2, 3])
def test_reductions_equal_the_same_arithmetic_in_one_process(run_ranks, size):
    code = """
    import json
    group = join(member)
    out = {}
    for op in ("sum", "max", "min"):
        tensor = torch.randn(1000, generator=torch.Generator().manual_seed(group.rank))
        group.allreduce(tensor, op, name="t").wait()
        out[op] = tensor.tolist()
    print(json.dumps(out))
    """
    rows = torch.stack([torch.randn(1000, generator=torch.Generator().manual_seed(rank)) for rank in range(size)])
    expected = {"sum": rows.sum(0), "max": rows.amax(0), "min": rows.amin(0)}
    outputs = run_ranks(size, code.replace("\n    ", "\n") + LEAVE)
    assert len(set(outputs)) == 1, "every rank must hold the same bits"
    for op, values in json.loads(outputs[0]).items():
        torch.testing.assert_close(torch.tensor(values), expected[op], rtol=1e-6, atol=1e-6)


def test_broadcast_allgather_and_barrier(run_ranks):
    code = """
group = join(member)
tensor = torch.full((3,), float(group.rank))
group.broadcast(tensor, root=1).wait()
rows = group.allgather(torch.tensor([group.rank, 10 * group.rank]))
group.barrier()
print(tensor.tolist(), rows.tolist())
"""
    assert set(run_ranks(3, code + LEAVE)) == {"[1.0, 1.0, 1.0] [0, 0, 1, 10, 2, 20]"}


def test_several_operations_may_be_under_way_at_once(run_ranks):
    code = """
group = join(member)
tensors = [torch.full((1000,), float(i + group.rank)) for i in range(20)]
handles = [group.allreduce(tensor) for tensor in tensors]
for handle in reversed(handles):
    handle.wait()
print([tensor[7].item() for tensor in tensors])
"""
    assert set(run_ranks(2, code + LEAVE)) == {str([2.0 * i + 1 for i in range(20)])}


def test_a_group_of_one_computes_the_identity_and_opens_no_socket():
    group = join(Membership())
    tensor = torch.arange(4.0)
    group.allreduce(tensor).wait()
    group.broadcast(tensor).wait()
    group.barrier()
    assert tensor.tolist() == [0, 1, 2, 3]
    assert group.allgather(tensor).tolist() == [0, 1, 2, 3]
    assert (group.cross_rank, group.cross_size) == (0, 1)
    group.close()
    with pytest.raises(CollectiveError, match="closed"):
        group.barrier()


def test_hosts_are_counted_from_local_size():
    group = Group(Membership(rank=5, size=6, local_rank=1, local_size=2, rendezvous=Path("unused")), None)
    assert (group.cross_rank, group.cross_size) == (2, 3)


WAITS_FOR_A_PEER = """
group = join(member)
print("joined", flush=True)
if group.rank == 1:
    DEED
try:
    while True:
        group.allreduce(torch.ones(100_000), name="gradients").wait()
except PeerLost as error:
    print(error.ranks, error, flush=True)
    os._exit(76)
"""


@BOTH
def test_a_killed_rank_is_named(start_ranks, transport):
    deed = WAITS_FOR_A_PEER.replace("DEED", "time.sleep(600)")
    first, second, third = start_ranks(3, deed, extra={"PHALANX_TRANSPORT": transport})
    for process in (first, second, third):
        assert process.stdout is not None
        assert process.stdout.readline() == "joined\n"
    os.kill(second.pid, signal.SIGKILL)
    output, _ = first.communicate(timeout=30)
    assert first.returncode == 76
    assert output.startswith("(1,)")
    assert f"allreduce sum float32[100000] 'gradients': rank 1 (pid {second.pid}) ended" in output
    assert third.wait(timeout=30) == 76


@BOTH
def test_a_survivor_that_left_first_is_not_blamed(start_ranks, transport):
    """Rank 2 is stopped while rank 1 is killed and rank 0 leaves because of it: it finds two dead, one of them guilty."""
    deed = WAITS_FOR_A_PEER.replace("DEED", "time.sleep(600)")
    first, second, third = start_ranks(3, deed, extra={"PHALANX_TRANSPORT": transport})
    for process in (first, second, third):
        assert process.stdout is not None
        assert process.stdout.readline() == "joined\n"
    os.kill(third.pid, signal.SIGSTOP)
    os.kill(second.pid, signal.SIGKILL)
    assert first.wait(timeout=30) == 76
    os.kill(third.pid, signal.SIGCONT)
    said = f"allreduce sum float32[100000] 'gradients': rank 1 (pid {second.pid}) ended"
    for survivor in (first, third):
        output, errors = survivor.communicate(timeout=30)
        assert output.startswith("(1,)"), errors
        assert said in output


@BOTH
def test_a_rank_that_gives_up_says_why(start_ranks, transport):
    deed = WAITS_FOR_A_PEER.replace("DEED", "group.abort('its disk is full'); os._exit(1)")
    first, second = start_ranks(2, deed, extra={"PHALANX_TRANSPORT": transport})
    output, _ = first.communicate(timeout=30)
    assert first.returncode == 76
    assert "rank 1: its disk is full" in output
    second.wait(timeout=30)


def test_a_stopped_rank_that_goes_on_is_waited_for(start_ranks):
    code = """
group = join(member)
total = torch.zeros(1)
for i in range(30):
    tensor = torch.ones(1000)
    group.allreduce(tensor).wait()
    total += tensor[0]
    if i == 5 and group.rank == 1:
        print("five", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)  # itself: from outside, all might be over by then
print(total.item())
"""
    first, second = start_ranks(2, code + LEAVE)
    assert second.stdout is not None
    second.stdout.readline()
    time.sleep(0.5)
    assert first.poll() is None
    os.kill(second.pid, signal.SIGCONT)
    assert "60.0" in first.communicate(timeout=30)[0]


@BOTH
def test_an_operation_that_is_not_finished_in_time_is_an_error_of_its_own(start_ranks, transport):
    code = """
group = join(member, operation_timeout_s=1.0)
if group.rank == 1:
    time.sleep(600)
try:
    group.allreduce(torch.ones(10), name="gradients").wait()
except CollectiveTimeout as error:
    print(error, flush=True)
    os._exit(0)
"""
    first, _ = start_ranks(2, code, extra={"PHALANX_TRANSPORT": transport})
    output, errors = first.communicate(timeout=30)
    assert "allreduce sum float32[10] 'gradients': not finished by all ranks" in output, errors
    assert "rank 1" in output


@pytest.mark.root
def test_sockets_listen_on_loopback_only_whatever_the_host_is_called(start_ranks):
    """Another host name, in its own UTS and mount namespaces, that resolves to an address of another interface."""
    code = """
import subprocess
group = join(member)
group.allreduce(torch.ones(10)).wait()
own = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}
for name in ("tcp", "tcp6"):
    for line in open(f"/proc/net/{name}").readlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
            print(name, fields[1].split(":")[0])
group.barrier()
"""
    shell = "hostname elsewhere; printf '192.0.2.7 elsewhere\\n' > HOSTS; mount --bind HOSTS /etc/hosts; exec \"$@\""
    hosts = Path(os.environ.get("TMPDIR", "/tmp")) / f"hosts-{os.getpid()}"
    prefix = ("unshare", "-um", "sh", "-c", shell.replace("HOSTS", str(hosts)), "sh")
    try:
        processes = start_ranks(2, code + LEAVE, prefix=prefix, extra={"PHALANX_TRANSPORT": "gloo"})
        outputs = [process.communicate(timeout=60) for process in processes]
    finally:
        hosts.unlink(missing_ok=True)
    for output, errors in outputs:
        listening = output.split("\n")[:-1]
        assert listening, errors
        assert set(listening) == {"tcp 0100007F"}, listening
