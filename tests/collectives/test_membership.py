"""Tokens from the environment, who is on which host, and forming (or not forming) a group."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.collectives import CollectiveError, CollectiveTimeout, Membership, PeerLost
from phalanx.collectives.identity import Identity
from phalanx.collectives.launchers import Address
from phalanx.collectives.membership import Place, Register, place_among


def test_the_token_is_read_from_torchruns_variables():
    token = Membership.from_environment(
        {
            "RANK": "3",
            "WORLD_SIZE": "4",
            "LOCAL_RANK": "1",
            "LOCAL_WORLD_SIZE": "2",
            "PHALANX_RENDEZVOUS": "/r",
            "PHALANX_GENERATION": "7",
            "TORCHELASTIC_RESTART_COUNT": "1",
            "PHALANX_HOST": "left",
        }
    )
    assert token == Membership(3, 4, 1, 2, generation=7, rendezvous=Path("/r"), host="left")


def test_torchruns_restarts_are_generations():
    environment = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "1"}
    token = Membership.from_environment(environment | {"TORCHELASTIC_RESTART_COUNT": "2"})
    assert (token.generation, token.rendezvous) == (2, Address("h", 1))


def test_an_empty_environment_is_one_worker_alone():
    assert Membership.from_environment({}) == Membership()


def test_who_is_not_told_where_the_others_are_is_told_what_to_set():
    with pytest.raises(CollectiveError, match=r"rank 1 of 2 is not told where.*\n.*PHALANX_RENDEZVOUS.*MASTER_ADDR"):
        Membership.from_environment({"RANK": "1", "WORLD_SIZE": "2"})


def test_an_impossible_place_is_refused():
    with pytest.raises(CollectiveError, match="rank 2 of 2"):
        Membership(rank=2, size=2)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.randoms())
def test_places_on_unequal_hosts_are_as_horovod_counts_them(counts, random):
    """local_rank counts within a host; cross_rank counts the hosts that have such a local rank."""
    ranks = list(range(sum(counts)))
    random.shuffle(ranks)
    cuts = [sum(counts[:i]) for i in range(len(counts) + 1)]
    hosts = sorted(sorted(ranks[low:high]) for low, high in itertools.pairwise(cuts))
    places = {rank: place_among(hosts, rank) for rank in ranks}
    assert len({(place.local_rank, place.cross_rank) for place in places.values()}) == len(ranks)
    for host in hosts:
        assert [places[rank].local_rank for rank in host] == list(range(len(host)))
    for rank, place in places.items():
        host = next(host for host in hosts if rank in host)
        before = [other for other in hosts[: hosts.index(host)] if len(other) > place.local_rank]
        assert place.local_size == len(host)
        assert place.cross_rank == len(before)
        assert place.cross_size == sum(len(other) > place.local_rank for other in hosts)


def test_one_alone_is_the_only_one_of_its_host():
    assert place_among([[0]], 0) == Place(0, 1, 0, 1)


def meet(*members: Membership, timeout_s: float = 20.0) -> list[Register]:
    """Registers of this process that meet each other: each in a thread of its own."""
    registers = [Register(member) for member in members]
    with ThreadPoolExecutor(len(registers)) as threads:
        list(threads.map(lambda register: register.meet(timeout_s), registers))
    return registers


def in_file(path: Path, hosts: list[str], generation: int = 0) -> list[Membership]:
    size = len(hosts)
    return [
        Membership(rank, size, rank, size, generation, path / "rendezvous", host) for rank, host in enumerate(hosts)
    ]


def test_members_of_a_machine_are_of_one_host_unless_told_otherwise(tmp_path):
    for register in meet(*in_file(tmp_path, ["", "", ""])):
        assert register.hosts() == [[0, 1, 2]]
    registers = meet(*in_file(tmp_path, ["b", "a", "b", "b"]))
    for register in registers:
        assert register.hosts() == [[0, 2, 3], [1]]
    assert [register.place() for register in registers] == [
        Place(0, 3, 0, 2),
        Place(0, 1, 1, 2),
        Place(1, 3, 0, 1),
        Place(2, 3, 0, 1),
    ]


def test_a_file_needs_no_address(tmp_path):
    assert {register.address for register in meet(*in_file(tmp_path, ["", ""]))} == {""}


def test_processes_meet_again_and_again_in_one_store(tmp_path):
    for _ in range(3):
        first, second = meet(*in_file(tmp_path, ["", ""]))
        first.store.set("said", "now")
        assert second.store.get("said") == b"now"
        second.store.set("said", "past")
    first, second = meet(*in_file(tmp_path, ["", ""]))
    assert not second.store.check(["said"])


def test_who_comes_too_late_is_told_so_and_may_try_again_with_the_others(tmp_path):
    first, second, third = (Register(member) for member in in_file(tmp_path, ["", "", ""]))
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(third.meet, 30.0)
        with pytest.raises(CollectiveTimeout, match=r"rank 1(, 2)? did not join within 0\.5 s") as said:
            first.meet(0.5)
        for late in (lambda: waiting.result(30), lambda: second.meet(30.0)):
            with pytest.raises(CollectiveTimeout) as again:
                late()
            assert str(again.value) == str(said.value)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda register: register.meet(30.0), (first, second, third)))
    assert second.hosts() == [[0, 1, 2]]


def test_two_processes_of_one_rank_are_both_told(tmp_path):
    first, _ = in_file(tmp_path, ["", ""])
    twin = Register(first)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(Register(first).meet, 30.0)
        while not has_signed_in(first):
            time.sleep(0.01)
        for meet_too in (lambda: twin.meet(30.0), lambda: waiting.result(30)):
            with pytest.raises(CollectiveError, match=rf"there are two of rank 0: pid {os.getpid()} on .*, and pid"):
                meet_too()


def has_signed_in(member: Membership) -> bool:
    assert isinstance(member.rendezvous, Path)
    return member.rendezvous.exists() and b"member/0" in member.rendezvous.read_bytes()


def test_an_identity_is_gone_when_its_process_is(tmp_path):
    child = subprocess.Popen(["sleep", "600"])
    own = Identity.own()
    start = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
    identity = Identity(own.node, own.host, own.machine, child.pid, start)
    assert not identity.is_gone()
    child.kill()
    child.wait()
    assert identity.is_gone()
    assert not Identity(own.node, own.host, "another machine", child.pid, start).is_gone()
    assert str(identity) == f"pid {child.pid}"
    assert str(Identity("elsewhere", "", "", 7, "")) == "pid 7 on elsewhere"


# Over TCP.


def over_tcp(port: int, size: int = 2) -> list[Membership]:
    return [Membership(rank, size, rank, size, rendezvous=Address("127.0.0.1", port)) for rank in range(size)]


def in_processes(members: list[Membership], do: Callable[[Register], object]) -> list[object]:
    """What `do` returns in a process for each member, after they have met and before they have left."""
    context = multiprocessing.get_context("fork")
    pipes = []
    for member in members:
        ours, theirs = context.Pipe()
        process = context.Process(target=_child, args=(member, do, theirs))
        process.start()
        pipes.append((process, ours))
        theirs.close()
    answers = [_received(ours) for _, ours in pipes]
    for process, _ in pipes:
        process.join(30)
        process.kill()
    return answers


def _received(pipe) -> object:
    try:
        return pipe.recv() if pipe.poll(30) else None
    except EOFError:
        return None


def _child(member, do, pipe) -> None:
    register = Register(member)
    register.meet(20.0)
    answer = do(register)
    register.close()
    pipe.send(answer)
    os._exit(0)


def test_a_tcp_store_listens_on_the_masters_address_alone(free_port):
    def listening(register: Register) -> object:
        own = {os.readlink(fd) for fd in map(str, Path("/proc/self/fd").iterdir()) if os.path.lexists(fd)}
        lines = [line for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
        rows = [line.split() for line in lines]
        return {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own}, register.address

    ours, theirs = in_processes(over_tcp(free_port), listening)
    assert ours == ({f"0100007F:{free_port:04X}"}, "127.0.0.1")
    assert theirs == (set(), "127.0.0.1")


def test_rank_0_keeps_the_store_until_all_have_left(free_port):
    def do(register: Register) -> object:
        if register.place().local_rank == 1:
            while not register.store.check(["left/0"]):  # rank 0 is on its way out
                time.sleep(0.01)
            register.store.set("still", "there")
            return register.store.get("still")
        return None

    assert in_processes(over_tcp(free_port), do) == [None, b"there"]


def test_they_meet_again_over_one_port(free_port):
    def do(register: Register) -> object:
        for _ in range(3):
            register.meet(20.0)
        return register.hosts()

    assert in_processes(over_tcp(free_port), do) == [[[0, 1]], [[0, 1]]]


def test_a_store_that_ends_while_they_meet_is_rank_0_lost(free_port):
    first, second, _ = over_tcp(free_port, 3)
    context = multiprocessing.get_context("fork")
    holder = context.Process(target=lambda: Register(first).meet(60.0))
    holder.start()
    with ThreadPoolExecutor(1) as threads:
        register = Register(second)
        meeting = threads.submit(register.meet, 60.0)
        while not hasattr(register, "store"):
            time.sleep(0.01)
        holder.kill()
        with pytest.raises(PeerLost, match=f"the register at 127.0.0.1:{free_port} went away") as raised:
            meeting.result(30)
        assert raised.value.ranks == (0,)
    holder.join()


def test_rank_0_that_does_not_come_is_named(free_port):
    with pytest.raises(
        CollectiveTimeout, match=f"rank 0 did not answer at 127.0.0.1:{free_port} within 0.2 s"
    ) as raised:
        Register(over_tcp(free_port)[1]).meet(0.2)
    assert raised.value.missing == (0,)


def test_a_taken_port_is_said_with_what_to_set(free_port):
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port))
        other.listen()
        with pytest.raises(CollectiveError, match=r"cannot listen at .* already in use\n.*MASTER_PORT"):
            Register(over_tcp(free_port)[0]).meet(1.0)


def test_an_address_of_another_host_is_said(free_port):
    with pytest.raises(CollectiveError, match=r"cannot listen at 192\.0\.2\.77:.*\n.*MASTER_ADDR"):
        Register(Membership(0, 2, 0, 2, rendezvous=Address("192.0.2.77", free_port))).meet(1.0)
    with pytest.raises(CollectiveError, match="no host that is known here"):
        Register(Membership(0, 2, 0, 2, rendezvous=Address("no.such.host.invalid", free_port))).meet(1.0)


def test_a_master_that_only_its_own_host_reaches_is_refused_for_several_hosts(free_port):
    with pytest.raises(CollectiveError, match="where other hosts do not reach it"):
        Register(Membership(0, 2, 0, 1, rendezvous=Address("localhost", free_port))).meet(1.0)


# Forming the group.


def test_ranks_that_do_not_come_are_named(start_ranks):
    code = """
from pathlib import Path
Path(f"{member.rendezvous}-{member.rank}").touch()
while not all(Path(f"{member.rendezvous}-{rank}").exists() for rank in (0, 2)):
    time.sleep(0.01)
try:
    join(member, timeout_s=4.0)
except CollectiveTimeout as error:
    print(error.missing, error, flush=True)
    os._exit(0)
"""
    for rank in start_ranks(3, code, ranks=[0, 2]):
        output, errors = rank.communicate(timeout=60)
        assert output.startswith("(1,) generation 1: rank 1 did not join within 4 s"), errors
        assert errors == "waiting for rank 1 to join\n", "said once, while there is still time to do something"


def test_an_address_at_which_nobody_answers_is_said_while_there_is_time(start_ranks, free_port):
    code = """
try:
    join(member, timeout_s=4.0)
except CollectiveTimeout as error:
    print(error.missing, flush=True)
    os._exit(0)
"""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port), "PHALANX_RENDEZVOUS": ""}
    (rank,) = start_ranks(2, code, ranks=[1], extra=place)
    output, errors = rank.communicate(timeout=60)
    assert output == "(0,)\n", errors
    assert f"waiting for rank 0 to answer at 127.0.0.1:{free_port}" in errors


def test_a_member_of_another_generation_is_not_taken_for_ours(start_ranks):
    code = """
try:
    join(member, timeout_s=1.5)
except CollectiveTimeout as error:
    print(error.missing, flush=True)
    os._exit(0)
"""
    (first,) = start_ranks(2, code, ranks=[0])
    (second,) = start_ranks(2, code, ranks=[1], extra={"PHALANX_GENERATION": "2"})
    assert first.communicate(timeout=30)[0] == "(1,)\n"
    assert second.communicate(timeout=30)[0] == "(0,)\n"
