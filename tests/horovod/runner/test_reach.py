"""What other hosts answer, where the answer is the matter: an ssh of our own says it. The real one is in `test_ssh`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from phalanx.foundation import UsageError
from phalanx.horovod.runner.reach import Host, HostUnreachable, address_for_others, reach
from phalanx.horovod.runner.spawn import Ssh

FACTS = {"launcher": "10.0.0.1", "address": "10.0.0.2", "interfaces": {"eth0": "10.0.0.2"}, "port": 10_001}


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """answer(text, code): what every ssh writes and ends with; each call adds a line to `calls`."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def write(text: str, code: int = 0) -> None:
        (tmp_path / "answer").write_text(text)
        (tmp_path / "ssh").write_text(f"#!/bin/sh\necho call >> {tmp_path}/calls\ncat {tmp_path}/answer\nexit {code}\n")
        (tmp_path / "ssh").chmod(0o755)

    return write


def ask(*names: str) -> dict[str, Host]:
    return reach(names, Ssh(), 30, lambda _: None)


def test_an_answer_may_come_after_a_greeting(answer):
    answer(f"Welcome to worker-0!\n{json.dumps(FACTS)}\n")
    assert ask("worker-0.invalid") == {"worker-0.invalid": Host(name="worker-0.invalid", **FACTS)}


@pytest.mark.parametrize("text", ["bye", "[1]", '{"address": "10.0.0.2"}', json.dumps(FACTS | {"more": 1})])
def test_an_answer_that_is_none_of_ours_is_shown(answer, text):
    answer(f"{text}\n")
    with pytest.raises(HostUnreachable) as refused:
        ask("worker-0.invalid")
    said = f"worker-0.invalid cannot be reached: it answers {text[:80]!r}, as another Phalanx than ours would"
    assert refused.value.message == said


def test_a_host_that_refuses_at_first_is_asked_again_and_all_that_fail_are_named(answer, tmp_path):
    answer("", 255)
    with pytest.raises(HostUnreachable) as refused:
        ask("worker-0.invalid", "worker-1.invalid")
    lines = refused.value.message.splitlines()
    assert sorted(line.strip() for line in lines) == [
        f"worker-{number}.invalid cannot be reached: ssh ended with 255" for number in (0, 1)
    ]
    assert (tmp_path / "calls").read_text().count("call") == 6


def test_a_host_that_has_answered_badly_is_not_asked_again(answer, tmp_path):
    answer("", 127)
    with pytest.raises(HostUnreachable, match="ssh ended with 127"):
        ask("worker-0.invalid")
    assert (tmp_path / "calls").read_text().count("call") == 1


def test_a_host_is_reached_by_an_interface_that_was_asked_for_else_as_ssh_does():
    ours = Host("localhost", "", "", {"lo": "127.0.0.1", "eth0": "10.0.0.1"}, 1)
    other = Host("worker-0", **FACTS)
    hosts = {"localhost": ours, "worker-0": other}
    assert address_for_others(hosts, "worker-0", []) == "10.0.0.2"
    assert address_for_others(hosts, "localhost", []) == "10.0.0.1", "as ssh connects to others from here"
    assert address_for_others({"localhost": ours}, "localhost", []) == "127.0.0.1"
    assert address_for_others(hosts, "localhost", ["ib0", "lo"]) == "127.0.0.1"
    with pytest.raises(UsageError, match="there is no interface ib0, ib1 with an address on worker-0"):
        address_for_others(hosts, "worker-0", ["ib0", "ib1"])
