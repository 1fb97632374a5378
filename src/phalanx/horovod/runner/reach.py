"""Whether the hosts of a job can be reached, and by which addresses they reach each other; asked before all else.

Each host is asked through ssh, all at the same time, by the command that will start its workers.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from phalanx.foundation import PhalanxError, UsageError
from phalanx.horovod.runner import remote
from phalanx.horovod.runner.hosts import is_local
from phalanx.horovod.runner.spawn import Ssh, last_line

_ATTEMPTS = 3  # sshd refuses some when many come at once (MaxStartups)
_EVERY_S = 0.02


class HostUnreachable(PhalanxError):
    """A host of the job does not answer, or cannot run our Python."""


@dataclass(frozen=True)
class Host:
    """What a host says of itself. `launcher`, `address`: of us and of it, as ssh connects them; "" for our own."""

    name: str
    launcher: str
    address: str
    interfaces: Mapping[str, str]
    port: int


def reach(hosts: Sequence[str], ssh: Ssh, timeout_s: float, say: Callable[[str], None]) -> dict[str, Host]:
    """Ask every host. Raises HostUnreachable naming those that cannot be reached within `timeout_s`, and why."""
    deadline = time.monotonic() + timeout_s
    found: dict[str, Host | str] = {}
    asked = []
    for name in dict.fromkeys(hosts):
        if is_local(name):
            found[name] = Host(name=name, **remote.facts())
        else:
            asked.append(_Question(name, ssh))
    try:
        while asked:
            for question in list(asked):
                answer = question.answer(deadline)
                if answer is not None:
                    found[question.name] = answer
                    asked.remove(question)
                    say(f"{question.name} {'answers' if isinstance(answer, Host) else 'does not answer'}")
            time.sleep(_EVERY_S)
    finally:
        for question in asked:
            question.give_up()
    failed = [f"{name} cannot be reached: {answer}" for name, answer in found.items() if isinstance(answer, str)]
    if failed:
        raise HostUnreachable(
            "\n  ".join(failed),
            remedy="check that `ssh HOST true` works from here without a password, and that Phalanx is installed there "
            "at the same place as here; -p and -i name another port and key",
        )
    return {name: answer for name, answer in found.items() if isinstance(answer, Host)}


def address_for_others(hosts: Mapping[str, Host], name: str, interfaces: Sequence[str]) -> str:
    """The address by which the other hosts of the job reach the host `name`. Raises UsageError without such."""
    host = hosts[name]
    for interface in interfaces:
        if interface in host.interfaces:
            return host.interfaces[interface]
    if interfaces:
        raise UsageError(
            f"there is no interface {', '.join(interfaces)} with an address on {name}",
            remedy=f"--network-interfaces takes one that all hosts have; there: {', '.join(host.interfaces)}",
        )
    if host.address:
        return host.address
    return next((other.launcher for other in hosts.values() if other.launcher), "127.0.0.1")


class _Question:
    """One host that is asked, again if it refuses at first."""

    def __init__(self, name: str, ssh: Ssh) -> None:
        self.name = name
        self._ssh = ssh
        self._attempts = 0
        self._reason = "no answer within --start-timeout"
        self._begin()

    def answer(self, deadline: float) -> Host | str | None:
        """What the host says of itself, or why it does not; None as long as neither is known."""
        if self._process.poll() is None:
            if time.monotonic() < deadline:
                return None
            self.give_up()
            return self._reason
        output, errors = self._process.communicate()
        lines = output.splitlines()
        if self._process.returncode == 0 and lines:
            try:
                return Host(name=self.name, **json.loads(lines[-1]))  # a shell's own greeting may come before
            except (ValueError, TypeError):  # not one line of JSON, or not with what ours has
                return f"it answers {lines[-1][:80]!r}, as another Phalanx than ours would"
        self._reason = last_line(errors) or f"ssh ended with {self._process.returncode}"
        through = self._process.returncode != 255  # again will not help
        if through or self._attempts == _ATTEMPTS or time.monotonic() > deadline:
            return self._reason
        self._begin()
        return None

    def give_up(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _begin(self) -> None:
        self._attempts += 1
        self._process = subprocess.Popen(
            self._ssh.command(self.name, ["--facts"]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
