"""What launchers tell a process in its environment: its rank, how many ranks there are, and where they meet.

| launcher | rank, size | on its host | where they meet |
|---|---|---|---|
| ours | RANK, WORLD_SIZE | LOCAL_RANK, LOCAL_WORLD_SIZE | PHALANX_RENDEZVOUS, a file |
| torchrun | the same | the same | MASTER_ADDR, MASTER_PORT |
| Open MPI | OMPI_COMM_WORLD_RANK, _SIZE | OMPI_COMM_WORLD_LOCAL_RANK, _LOCAL_SIZE | below |
| MPICH, Intel MPI | PMI_RANK, PMI_SIZE | MPI_LOCALRANKID, MPI_LOCALNRANKS | below |
| Slurm's srun | SLURM_PROCID, SLURM_STEP_NUM_TASKS (SLURM_NTASKS) | SLURM_LOCALID, SLURM_STEP_TASKS_PER_NODE | below |
| PMIx | PMIX_RANK, WORLD_SIZE | | below |

The first line of the table that has its rank counts: launchers nest, and torchrun under srun or mpirun is
torchrun. Where they meet: PHALANX_RENDEZVOUS; else MASTER_ADDR and MASTER_PORT; else, if the launcher says that all
are on this host, a file of their own (see `launcher_file`); else the first host of SLURM_STEP_NODELIST, at a port
made of the numbers of job and step. Slurm counts only inside a step: the script that sbatch runs has SLURM_PROCID
too, and is one process. Knows nothing of torch or of forming a group.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from phalanx.collectives.errors import CollectiveError
from phalanx.collectives.identity import start_ticks
from phalanx.foundation import ensure_private_directory
from phalanx.host.processes import stat_of

Environment = Mapping[str, str]

# Below the ports that kernels give to clients (32768 and up), so that ours is free unless a service has it.
_FIRST_PORT, _PORTS = 10_000, 20_000
_NODES = r"(?:[^\[\],]|\[[^\[\]]+\])+"  # one element of a node list of Slurm: brackets have commas of their own


@dataclass(frozen=True)
class Address:
    """A TCP store. Rank 0 holds it, unless `held_by_agent`: then the launcher's own process does (torchrun)."""

    host: str
    port: int
    held_by_agent: bool = False

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Told:
    """What a launcher says of this process. None: it does not say."""

    rank: int
    size: int
    local_rank: int | None
    local_size: int | None


@dataclass(frozen=True)
class _Launcher:
    rank: str
    size: tuple[str, ...]  # the first that is set counts
    local_rank: str = ""
    local_size: str = ""


_SLURM = _Launcher("SLURM_PROCID", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), "SLURM_LOCALID")
_LAUNCHERS = (
    _Launcher("RANK", ("WORLD_SIZE",), "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    _Launcher(
        "OMPI_COMM_WORLD_RANK",
        ("OMPI_COMM_WORLD_SIZE",),
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    _Launcher("PMI_RANK", ("PMI_SIZE",), "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    _SLURM,
    _Launcher("PMIX_RANK", ("WORLD_SIZE",)),
)


def told_by(environment: Environment) -> Told:
    """This process's place; rank 0 of 1 where no launcher speaks. Raises CollectiveError for what cannot be."""
    launcher = next((known for known in _LAUNCHERS if _speaks(known, environment)), None)
    world = number(environment, "WORLD_SIZE")
    if launcher is None:
        if world not in (None, 1):
            raise CollectiveError(f"WORLD_SIZE is {world}, but nothing says which rank this is", remedy="set RANK")
        return Told(0, 1, None, None)
    rank = number(environment, launcher.rank)
    name = next((name for name in launcher.size if name in environment), launcher.size[0])
    size = number(environment, name)
    assert rank is not None
    if size is None:
        raise CollectiveError(f"{launcher.rank} is {rank}, but {name} is not set", remedy=f"set {name}")
    _agree("WORLD_SIZE", world, name, size)
    local_size = number(environment, launcher.local_size)
    if launcher is _SLURM:
        local_size = _slurm_local_size(environment, name, size)
        _agree("PMIX_RANK", number(environment, "PMIX_RANK"), launcher.rank, rank)
    local_rank = number(environment, launcher.local_rank)
    _check(launcher, rank, size, local_rank, local_size)
    return Told(rank, size, local_rank, local_size)


def meeting_point(environment: Environment, told: Told) -> Path | Address | None:
    """Where this process meets the others; None: it is alone, or nothing says. Raises CollectiveError."""
    if file := environment.get("PHALANX_RENDEZVOUS"):
        return Path(file)
    if told.size == 1:
        return None
    if host := environment.get("MASTER_ADDR"):
        agent = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        return Address(host, _port(environment), held_by_agent=agent)
    if "RANK" in environment:
        return None
    if told.local_size == told.size:
        return launcher_file(environment)
    if nodes := environment.get("SLURM_STEP_NODELIST"):
        return Address(first_host(nodes), _port(environment))
    return None


def launcher_file(environment: Environment) -> Path:
    """The file in which the ranks of one mpirun or srun of this host meet.

    It lies in a directory that only this user can enter (XDG_RUNTIME_DIR, else TMPDIR, else /tmp) and is called
    after the launcher: its pid and start time, which no other process of this boot has, and PMIx's name of the job,
    because one launcher may have several. Files of launchers that have ended are removed. Raises CollectiveError.
    """
    launcher = _launcher_process(environment)
    base = Path(environment.get("XDG_RUNTIME_DIR") or environment.get("TMPDIR") or "/tmp")
    directory = ensure_private_directory(base / f"phalanx-{os.getuid()}")
    found = directory.lstat()
    if directory.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise CollectiveError(
            f"{directory} is not a directory that only this user can enter",
            remedy="remove it, or set PHALANX_RENDEZVOUS to the path of a new file",
        )
    here = f"launcher-{os.stat('/proc/self/ns/pid').st_ino}"  # a directory may be shared by containers, pids are not
    for old in directory.glob(f"{here}-*"):
        pid, start = old.name.split("-")[2:4]
        if start_ticks(int(pid)) != start:
            old.unlink(missing_ok=True)
    job = re.sub(r"\W", "_", environment.get("PMIX_NAMESPACE", ""))
    return directory / f"{here}-{launcher}-{start_ticks(launcher)}-{job}"


def tasks_per_node(text: str) -> list[int]:
    """Slurm's `4(x2),3` is [4, 4, 3]. Raises CollectiveError."""
    counts: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip(), re.ASCII)
        if found is None:
            raise CollectiveError(f"SLURM_STEP_TASKS_PER_NODE is {text!r}, which is not like 4(x2),3")
        counts += [int(found[1])] * int(found[2] or 1)
    return counts


def first_host(nodes: str) -> str:
    """Of Slurm's `n[01-03,7],login`: n01. Raises CollectiveError."""
    found = re.fullmatch(rf"({_NODES})(?:,{_NODES})*", nodes.strip())
    host = re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", found[1]) if found else ""
    if not re.fullmatch(r"[\w.-]+", host):
        raise CollectiveError(
            f"SLURM_STEP_NODELIST is {nodes!r}, which is not like n[01-03,7]", remedy="set MASTER_ADDR"
        )
    return host


def _speaks(launcher: _Launcher, environment: Environment) -> bool:
    if launcher is _SLURM and not {"SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE"} & environment.keys():
        return False
    return launcher.rank in environment


def number(environment: Environment, name: str) -> int | None:
    if name not in environment:
        return None
    try:
        return int(environment[name])
    except ValueError:
        raise CollectiveError(
            f"{name} is {environment[name]!r}, not a number", remedy=f"set {name} to an integer"
        ) from None


def _agree(name: str, value: int | None, other: str, expected: int) -> None:
    if value is not None and value != expected:
        raise CollectiveError(
            f"{name} is {value}, but {other} is {expected}", remedy=f"unset {name}, or set it to what is true"
        )


def _check(launcher: _Launcher, rank: int, size: int, local_rank: int | None, local_size: int | None) -> None:
    if not 0 <= rank < size or not 0 <= (local_rank or 0) < (size if local_size is None else local_size) <= size:
        of_host = "" if local_rank is None and local_size is None else f" (local {local_rank} of {local_size})"
        names = (launcher.rank, launcher.size[0], launcher.local_rank, launcher.local_size)
        raise CollectiveError(
            f"rank {rank} of {size}{of_host} is impossible", remedy=f"check {', '.join(name for name in names if name)}"
        )


def _slurm_local_size(environment: Environment, name: str, size: int) -> int | None:
    text = environment.get("SLURM_STEP_TASKS_PER_NODE")
    if text is None:
        return None
    counts = tasks_per_node(text)
    _agree(f"the sum of SLURM_STEP_TASKS_PER_NODE ({text})", sum(counts), name, size)
    node = number(environment, "SLURM_NODEID")
    if len(set(counts)) == 1:
        return counts[0]
    if node is None:
        return None
    if not 0 <= node < len(counts):
        raise CollectiveError(f"SLURM_NODEID is {node}, but SLURM_STEP_TASKS_PER_NODE is {text}")
    return counts[node]


def _port(environment: Environment) -> int:
    port = number(environment, "MASTER_PORT")
    if port is None and "SLURM_PROCID" in environment:
        job = number(environment, "SLURM_JOB_ID") or 0
        port = _FIRST_PORT + (31 * job + (number(environment, "SLURM_STEP_ID") or 0)) % _PORTS
    if port is None or not 0 < port < 65536:
        problem = "is not set" if port is None else f"is {port}"
        raise CollectiveError(f"MASTER_PORT {problem}", remedy="set MASTER_PORT to a free port of rank 0's host")
    return port


def _launcher_process(environment: Environment) -> int:
    """The process that gave us our rank: the nearest above us that has another, or none. Between may be shells."""
    name = next(known.rank for known in _LAUNCHERS if _speaks(known, environment))
    mine = f"{name}={environment[name]}".encode()
    pid = os.getppid()
    while pid > 1 and mine in _environment_of(pid):
        pid = _parent_of(pid)
    if pid == 0:
        raise CollectiveError(
            "the launcher is not to be seen from here, so that its ranks cannot meet by themselves",
            remedy="set PHALANX_RENDEZVOUS to the path of a new file that all ranks can open",
        )
    return pid


def _environment_of(pid: int) -> list[bytes]:
    """As it was started with; nothing of a process of somebody else, such as a launcher that runs as root."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (PermissionError, FileNotFoundError, ProcessLookupError):
        return []


def _parent_of(pid: int) -> int:
    fields = stat_of(pid)
    return int(fields[1]) if fields else 0
