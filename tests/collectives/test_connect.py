"""Which transport a group gets: decided once, by all ranks, and said aloud where it is not the fast one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore

from phalanx.collectives import CollectiveError
from phalanx.collectives.connect import Party, connect, parse_choice
from tests.collectives.test_group import LEAVE

SAYS_WHICH = """
group = join(member)
tensor = torch.ones(3)
group.allreduce(tensor).wait()
print(type(group.transport).__name__, tensor.tolist(), group.local_rank, group.local_size, group.cross_rank, group.cross_size)
"""


def test_one_rank_that_cannot_compile_takes_all_to_gloo(start_ranks, tmp_path):
    (first,) = start_ranks(2, SAYS_WHICH + LEAVE, ranks=[0])
    nothing = {"CC": "/nowhere/cc", "PHALANX_C_CACHE": str(tmp_path)}
    (second,) = start_ranks(2, SAYS_WHICH + LEAVE, ranks=[1], extra=nothing)
    outputs = [process.communicate(timeout=60) for process in (first, second)]
    assert [output.split(" ")[0] for output, _ in outputs] == ["Torch", "Torch"], outputs
    assert "no shared memory, so gloo, which is several times slower: rank 1:" in outputs[0][1]
    assert "no shared memory" not in outputs[1][1], "one warning is enough"


def test_hosts_of_equal_size_share_memory_and_connect_between(start_ranks):
    processes = [
        start_ranks(4, SAYS_WHICH + LEAVE, ranks=[r], extra={"PHALANX_HOST": "ab"[r % 2]})[0] for r in range(4)
    ]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [output.strip() for output, _ in outputs] == [
        "Hierarchical [4.0, 4.0, 4.0] 0 2 0 2",
        "Hierarchical [4.0, 4.0, 4.0] 0 2 1 2",
        "Hierarchical [4.0, 4.0, 4.0] 1 2 0 2",
        "Hierarchical [4.0, 4.0, 4.0] 1 2 1 2",
    ], outputs


def test_hosts_of_different_size_go_over_gloo(start_ranks):
    processes = [start_ranks(3, SAYS_WHICH + LEAVE, ranks=[r], extra={"PHALANX_HOST": "aab"[r]})[0] for r in range(3)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [output.strip() for output, _ in outputs] == [
        "Torch [3.0, 3.0, 3.0] 0 2 0 2",
        "Torch [3.0, 3.0, 3.0] 1 2 0 1",
        "Torch [3.0, 3.0, 3.0] 0 1 1 2",
    ], outputs


def test_ranks_that_want_different_transports_are_all_told(start_ranks):
    code = """
try:
    join(member)
except CollectiveError as error:
    print(error, flush=True)
os._exit(0)
"""
    (first,) = start_ranks(2, code, ranks=[0], extra={"PHALANX_TRANSPORT": "gloo"})
    (second,) = start_ranks(2, code, ranks=[1], extra={"PHALANX_TRANSPORT": "shared-memory"})
    for process in (first, second):
        output, errors = process.communicate(timeout=60)
        assert "the ranks want different transports: rank 0: gloo, rank 1: shared-memory" in output, errors


def test_an_unknown_transport_is_refused_with_those_there_are():
    with pytest.raises(CollectiveError, match="no transport 'infiniband'") as refusal:
        parse_choice("infiniband")
    assert "auto, shared-memory, gloo" in refusal.value.remedy


def test_more_ranks_than_share_memory_are_all_told_at_once():
    store, size = HashStore(), 65

    def told(rank: int) -> str:
        party = Party(store, rank, [range(size)], range(size), "", "shared-memory", 20.0, 20.0)
        with pytest.raises(CollectiveError) as raised:
            connect(party)
        return raised.value.message

    with ThreadPoolExecutor(size) as ranks:
        assert set(ranks.map(told, range(size))) == {
            "no shared memory: rank 0: 65 ranks on one host, and 64 at most share memory"
        }
