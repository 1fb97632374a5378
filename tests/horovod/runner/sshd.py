"""Hosts that are reached by a real sshd: network namespaces, with keys, configuration and a client of their own.

Needs root, as whoever marks a test so has seen to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from benchmarks.namespaces import Hosts

SSHD = "/usr/sbin/sshd"
NEEDED = (SSHD, "ssh", "ssh-keygen", "ip", "nsenter", "setpriv", "unshare")
PORT = 2222

_SERVER = """\
Port {port}
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/key.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
PidFile none
"""
_CLIENT = """\
UserKnownHostsFile {directory}/known_hosts
GlobalKnownHostsFile /dev/null
IdentitiesOnly yes
"""
# sshd wants a directory of its own; where this machine has none, only this process and its children see one.
_SERVE = "[ -d /run/sshd ] || { mount -t tmpfs none /run && mkdir /run/sshd; }; exec " + f'{SSHD} -D -e -f "$1"'


class SshHosts(Hosts):
    """As `Hosts`, with sshd on each but the first, where the launcher runs. Host n is `host-n` for ssh as well."""

    def __init__(self, count: int, directory: Path) -> None:
        super().__init__(count)
        missing = [program for program in NEEDED if shutil.which(program) is None]
        if missing:
            pytest.skip(f"there is no {', no '.join(missing)} here")
        self._servers: list[subprocess.Popen[bytes]] = []
        self.directory = directory
        for key in ("host_key", "key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / key)], check=True)
        (directory / "sshd_config").write_text(_SERVER.format(port=PORT, directory=directory))
        names = "".join(f"Host {self.name(number)}\n  HostName {self.address(number)}\n" for number in range(count))
        (directory / "ssh_config").write_text(_CLIENT.format(directory=directory) + names)
        wrapper = directory / "bin" / "ssh"
        wrapper.parent.mkdir()
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {directory}/ssh_config "$@"\n')
        wrapper.chmod(0o755)

    def __enter__(self) -> SshHosts:
        super().__enter__()
        try:
            for number in range(1, self._count):
                argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "-m", "sh", "-c", _SERVE, "sh"]
                with (self.directory / f"sshd-{number}.log").open("wb") as log:
                    config = str(self.directory / "sshd_config")
                    server = subprocess.Popen(self.inside(number, [*argv, config]), stderr=log)
                self._servers.append(server)
            for number in range(1, self._count):
                self._wait_for(number)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *unused: object) -> None:
        for server in self._servers:
            server.kill()
            server.wait()
        super().__exit__(None, None, None)

    def environment(self) -> dict[str, str]:
        """For the launcher: `ssh` is the one with our configuration."""
        path = os.pathsep.join((str(self.directory / "bin"), os.environ["PATH"]))
        return os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}

    def options(self) -> list[str]:
        return ["-p", str(PORT), "-i", str(self.directory / "key")]

    def _wait_for(self, number: int) -> None:
        log = self.directory / f"sshd-{number}.log"
        deadline = time.monotonic() + 10
        while "Server listening" not in log.read_text():
            assert time.monotonic() < deadline, f"sshd does not start: {log.read_text()}"
            time.sleep(0.02)
