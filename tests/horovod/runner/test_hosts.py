"""Hosts, slots and ranks: against what Horovod 0.28.1 answers for the same input, written down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.foundation import UsageError
from phalanx.horovod.runner.hosts import HostSlots, Slot, assign, is_local, parse_hostfile, parse_hosts


def test_hosts_are_names_with_slots():
    assert parse_hosts("worker-0:2, 10.11.11.11:4") == [HostSlots("worker-0", 2), HostSlots("10.11.11.11", 4)]


def test_an_address_of_version_six_stands_in_brackets():
    assert parse_hosts("[::1]:2") == [HostSlots("::1", 2)]


def test_a_host_that_is_named_twice_has_the_slots_of_both():
    assert parse_hosts("a:1,b:1,a:2") == [HostSlots("a", 3), HostSlots("b", 1)]


@pytest.mark.parametrize("text", ["", "a", "a:", ":2", "a:2,", "a:two", "a:-1", "a b:2", "-oProxyCommand:2", "a:1:2"])
def test_what_is_no_host_is_refused_with_what_is_one(text):
    with pytest.raises(UsageError, match="worker-0:2,worker-1:2"):
        parse_hosts(text)


def test_a_hostfile_has_a_host_on_each_line(tmp_path):
    file = tmp_path / "hosts"
    file.write_text("worker-0 slots=2\n\n# a comment\n  10.0.0.1\tslots = 4 max_slots=8 # another\n")
    assert parse_hostfile(file) == [HostSlots("worker-0", 2), HostSlots("10.0.0.1", 4)]


def test_a_line_of_a_hostfile_that_is_wrong_is_named(tmp_path):
    file = tmp_path / "hosts"
    file.write_text("worker-0 slots=2\nworker-1\n")
    with pytest.raises(UsageError, match=f"{file}:2: 'worker-1' is not like `worker-0 slots=2`"):
        parse_hostfile(file)


def test_a_hostfile_that_is_not_there_or_empty_or_no_text_is_named(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        parse_hostfile(tmp_path / "none")
    for content in (b"", b"\xff\xfe\0"):
        (tmp_path / "hosts").write_bytes(content)
        with pytest.raises(UsageError, match=str(tmp_path / "hosts")):
            parse_hostfile(tmp_path / "hosts")


def test_ranks_fill_a_host_before_the_next():
    assert assign(parse_hosts("a:2,b:2"), 3) == [
        Slot("a", 0, 3, local_rank=0, local_size=2, cross_rank=0, cross_size=2),
        Slot("a", 1, 3, local_rank=1, local_size=2, cross_rank=0, cross_size=1),
        Slot("b", 2, 3, local_rank=0, local_size=1, cross_rank=1, cross_size=2),
    ]


def test_a_host_without_slots_has_no_rank():
    assert [slot.host for slot in assign(parse_hosts("a:0,b:2"), 2)] == ["b", "b"]


def test_more_processes_than_slots_are_refused_with_both_numbers():
    with pytest.raises(UsageError, match=r"5 processes were asked for, but there are 4 slots \(localhost:4\)"):
        assign(parse_hosts("localhost:4"), 5)


def test_no_process_is_refused():
    with pytest.raises(UsageError, match="0 processes"):
        assign(parse_hosts("localhost:4"), 0)


@given(slots=st.lists(st.integers(0, 4), min_size=1, max_size=5), data=st.data())
def test_every_rank_has_a_place_of_its_own(slots, data):
    if not sum(slots):
        return
    hosts = [HostSlots(f"host-{number}", count) for number, count in enumerate(slots)]
    places = assign(hosts, data.draw(st.integers(1, sum(slots))))
    assert [place.rank for place in places] == list(range(len(places)))
    for host in hosts:
        mine = [place for place in places if place.host == host.host]
        assert len(mine) <= host.slots
        assert [place.local_rank for place in mine] == list(range(len(mine)))
        assert {place.local_size for place in mine} <= {len(mine)}
    for local_rank in range(max(slots)):
        column = [place for place in places if place.local_rank == local_rank]
        assert [place.cross_rank for place in column] == list(range(len(column)))
        assert {place.cross_size for place in column} <= {len(column)}


def test_this_machine_is_known_by_its_names_and_addresses():
    assert is_local("localhost")
    assert is_local("127.0.0.1")
    assert is_local("127.0.0.2")
    assert not is_local("192.0.2.1")  # for documentation, RFC 5737
    assert not is_local("no-such-host.invalid")
