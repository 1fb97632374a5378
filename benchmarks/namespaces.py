"""Network namespaces that stand for hosts: each its own interface, address and name, all on one bridge. Needs root.

Nothing of it has a name on this machine: a namespace lives as long as the process that holds it, which dies with the
process that made it. Knows nothing of what runs there.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from types import TracebackType

_HOLD = 'hostname "$1" && ip link set dev lo up && echo ready && exec sleep infinity'


class Hosts:
    """A context: `count` hosts `host-0`, ... with addresses 10.77.0.1, ... on `eth0`.

    `rate`: what each can send, in the words of tc-tbf(8), such as `1gbit`; "": as fast as the kernel can.
    """

    def __init__(self, count: int, rate: str = "") -> None:
        self._count = count
        self._rate = rate
        self._holders: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Hosts:
        try:
            bridge = self._hold("bridge")
            _in(bridge, "ip link add name br0 type bridge", "ip link set dev br0 up")
            for number in range(self._count):
                holder = self._hold(self.name(number))
                _in(
                    bridge,
                    f"ip link add name port{number} type veth peer name eth0 netns {holder}",
                    f"ip link set dev port{number} master br0 up",
                )
                _in(holder, f"ip addr add {self.address(number)}/24 dev eth0", "ip link set dev eth0 up")
                if self._rate:
                    _in(holder, f"tc qdisc add dev eth0 root tbf rate {self._rate} burst 256kb latency 50ms")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for holder in self._holders:
            holder.kill()
            holder.communicate()

    def name(self, number: int) -> str:
        return f"host-{number}"

    def address(self, number: int) -> str:
        return f"10.77.0.{number + 1}"

    def holder(self, number: int) -> int:
        """The pid of the process whose network and UTS namespaces these are."""
        return self._holders[number + 1].pid

    def inside(self, number: int, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` on that host."""
        return ["nsenter", "-t", str(self.holder(number)), "-n", "-u", "--", *argv]

    def _hold(self, name: str) -> int:
        """Start a process in namespaces of its own; its pid, once it is in them."""
        argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "-n", "-u", "sh", "-c", _HOLD, "sh", name]
        holder = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self._holders.append(holder)
        assert holder.stdout is not None
        if not holder.stdout.readline():
            raise OSError(f"cannot make a network namespace for {name}: needs root, unshare, setpriv and ip")
        return holder.pid


def _in(holder: int, *commands: str) -> None:
    for command in commands:
        subprocess.run(
            ["nsenter", "-t", str(holder), "-n", *command.split()], check=True, capture_output=True, text=True
        )
