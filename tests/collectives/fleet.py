"""`python -m tests.collectives.fleet ORDERS`: many ranks on several hosts for the price of one import of torch.

ORDERS is a JSON file: `code`, and for each rank `holder` (a process in the namespaces of its host), `environment` and
`output`, a file for what it prints (and its errors beside it, in a `.log`). Every rank is a fork of this process that enters its host, and runs the code there with its own
environment. Exit status: how many ended badly.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path

import torch

import phalanx.collectives


def main(orders: dict) -> int:
    pids = {}
    for member in orders["members"]:
        pid = os.fork()
        if pid == 0:
            run(orders["code"], **member)
        pids[pid] = member
    return sum(os.waitpid(pid, 0)[1] != 0 for pid in pids)


def run(code: str, holder: int, environment: dict[str, str], output: str) -> None:
    for descriptor, path in ((1, output), (2, f"{output}.log")):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    for kind in ("net", "uts"):
        enter(Path(f"/proc/{holder}/ns/{kind}"))
    os.environ.update(environment)
    exec(code, {"torch": torch, "os": os, "sys": sys} | vars(phalanx.collectives))
    os._exit(0)  # what goes wrong before ends this process in the ordinary way


def enter(namespace: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with namespace.open() as file:
        if libc.setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), str(namespace))


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text())))
