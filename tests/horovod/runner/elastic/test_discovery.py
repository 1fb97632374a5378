"""Discovery by a real script: what it names, and one message for what it does wrong."""

from __future__ import annotations

import queue
from pathlib import Path

import pytest

from phalanx.horovod.runner.elastic.discovery import HERE, Discovery, DiscoveryFailed, parse
from phalanx.horovod.runner.elastic.roster import Host
from tests.processes import left_behind


def test_lines_are_hosts_in_their_order():
    assert parse("b.invalid:2\n\n  localhost:1 \n", None) == (
        Host("b.invalid", 2, "b.invalid"),
        Host("localhost", 1, HERE),
    )


def test_a_host_without_slots_has_those_of_the_option():
    assert parse("localhost\n", 3) == (Host("localhost", 3, HERE),)
    with pytest.raises(DiscoveryFailed, match="no slots of localhost"):
        parse("localhost\n", None)


@pytest.mark.parametrize("text", ["a:b", "a 2", "-oProxyCommand=x:2", "a:-1", "Traceback (most recent call last):"])
def test_rubbish_is_shown(text):
    with pytest.raises(DiscoveryFailed, match="no host with its slots"):
        parse(text, 1)


def test_each_change_is_told_once_and_what_goes_wrong_too(tmp_path: Path):
    hosts = tmp_path / "hosts"
    hosts.write_text("localhost:2\n")
    told: queue.SimpleQueue = queue.SimpleQueue()
    with Discovery(f"cat {hosts}", None, tmp_path / "scratch", 30, told.put):
        assert told.get(timeout=30) == (Host("localhost", 2, HERE),)
        hosts.unlink()
        assert "exit code 1" in told.get(timeout=30).message
        hosts.write_text("localhost:3\n")
        assert told.get(timeout=30) == (Host("localhost", 3, HERE),)
    assert told.empty()


def test_a_script_that_hangs_is_ended_with_all_that_it_started_and_said(tmp_path: Path):
    told: queue.SimpleQueue = queue.SimpleQueue()
    hangs = f"sh -c 'sleep 600; echo {tmp_path}' & wait"
    with Discovery(hangs, None, tmp_path / "scratch", 0.2, told.put):
        assert "did not end within 0.2 s" in told.get(timeout=30).message
    assert not left_behind(tmp_path)
