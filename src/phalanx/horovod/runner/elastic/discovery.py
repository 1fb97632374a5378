"""Which hosts there are: a program of the user's says so, again and again; a line is `host:slots`, or `host`.

What it does wrong is said once, and the hosts that it named last still count. Knows no workers.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from phalanx.foundation import PhalanxError
from phalanx.horovod.runner import spawn
from phalanx.horovod.runner.elastic.roster import Host
from phalanx.horovod.runner.hosts import NAME, is_local
from phalanx.horovod.runner.launch import how_it_ended

HERE = "localhost"  # the machine of all hosts that are this one

_EVERY_S = 1.0
_LOOK_S = 0.01
_HOST = re.compile(NAME + r"(?::([0-9]+))?", re.ASCII)


class DiscoveryFailed(PhalanxError):
    """The program failed, hung, or wrote what names no hosts."""


Tell: TypeAlias = Callable[[tuple[Host, ...] | DiscoveryFailed], None]


class Discovery:
    """A context: a thread that runs `script`, a command for the shell, each second until it is left.

    `tell`: called in that thread with the hosts, and with what went wrong, whenever that is another thing than before.
    `slots`: of hosts that are named without. `scratch`: a directory to remove if we are killed. `timeout_s`: for one
    run.
    """

    def __init__(self, script: str, slots: int | None, scratch: Path, timeout_s: float, tell: Tell) -> None:
        self._script = script
        self._slots = slots
        self._scratch = scratch
        self._timeout_s = timeout_s
        self._tell = tell
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="discovery", daemon=True)

    def __enter__(self) -> Discovery:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        hosts: tuple[Host, ...] | None = None
        said = ""
        while not self._stop.is_set():
            try:
                found = parse(self._ask(), self._slots)
                said = ""
                if found != hosts:
                    hosts = found
                    self._tell(found)
            except DiscoveryFailed as error:
                if error.message != said and not self._stop.is_set():
                    said = error.message
                    self._tell(error)
            self._stop.wait(_EVERY_S)

    def _ask(self) -> str:
        """What the program writes. It ends with us, and so does whatever it has started."""
        written: list[bytes] = []

        def keep(stream: str, data: bytes) -> None:
            if stream == "stdout":
                written.append(data)

        argv = ["/bin/sh", "-c", self._script]
        program = spawn.start(HERE, argv, {}, name="discovery", output=keep, scratch=self._scratch)
        deadline = time.monotonic() + self._timeout_s
        while program.poll() is None:
            if self._stop.wait(_LOOK_S) or time.monotonic() > deadline:
                program.stop(0)
                raise DiscoveryFailed(
                    f"did not end within {self._timeout_s:g} s", remedy="it must say what is there now, and end"
                )
        if program.poll():
            words = program.last_words()
            raise DiscoveryFailed(
                f"{how_it_ended(program)}{f': {words}' if words else ''}", remedy=f"try by hand: {self._script}"
            )
        return b"".join(written).decode(errors="replace")


def parse(text: str, slots: int | None) -> tuple[Host, ...]:
    """The hosts, in the order of their lines; `slots`: of those that name none. Raises DiscoveryFailed."""
    found: dict[str, int] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        match = _HOST.fullmatch(line)
        if match is None:
            raise DiscoveryFailed(
                f"wrote {line[:80]!r}, which is no host with its slots", remedy="it must write lines such as worker-0:2"
            )
        if match[2] is None and slots is None:
            raise DiscoveryFailed(f"names no slots of {line}", remedy="write host:slots, or give --slots-per-host")
        found[match[1].strip("[]")] = int(match[2]) if match[2] is not None else slots or 0
    return tuple(host_of(name, count) for name, count in found.items())


def host_of(name: str, slots: int) -> Host:
    """With its machine."""
    return Host(name, slots, HERE if is_local(name) else name)
