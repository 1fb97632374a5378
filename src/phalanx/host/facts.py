"""What this machine is and can do: each fact with the file or command that it was read from.

Reads and asks, changes nothing, takes well under a second. Judges nothing: what a fact means for a
job is for admission, planning and `phalanx doctor` to say.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from phalanx.host import cgroups, processors
from phalanx.host.commands import said_by
from phalanx.job import Fact, HostFacts

YES, NO = "yes", "no"


def facts_of_host(directory: Path | None = None, root: Path = Path("/")) -> HostFacts:
    """The facts of this host; free disk space is that of `directory` (which, or a parent of which, exists).

    `root`: where /proc, /sys and /dev are looked for.
    """
    place = directory if directory is not None else Path.cwd()
    cores, core_facts = processors.usable_cores(root)
    total, available, memory_facts = _memory(root)
    disk = disk_free(place)
    facts = [
        *core_facts,
        *memory_facts,
        Fact(name="disk.free", value=str(disk), evidence=f"statvfs {nearest_directory(place)}"),
        Fact(name="disk.filesystem", value=_filesystem(place, root), evidence="/proc/self/mountinfo"),
        *_shared_memory(root),
        *processors.model_facts(root),
        *processors.gpu_facts(root),
        Fact(name="kernel", value=platform.release(), evidence="uname"),
        Fact(name="python", value=platform.python_version(), evidence="platform"),
        *_torch(),
        *_isolation(root),
        *_compiler(),
    ]
    return HostFacts(
        host=os.uname().nodename,
        cores=cores,
        memory_bytes=total,
        memory_available_bytes=available,
        disk_free_bytes=disk,
        facts=tuple(facts),
    )


def nearest_directory(path: Path) -> Path:
    """`path`, or its nearest parent that exists."""
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path


def disk_free(path: Path) -> int:
    """Bytes that this user may still write on the file system of `path` (or of its nearest existing parent)."""
    space = os.statvfs(nearest_directory(path))
    return space.f_bavail * space.f_frsize


def _filesystem(path: Path, root: Path) -> str:
    """Type of the file system that holds `path`: of the innermost mount above it."""
    place, kind, depth = nearest_directory(path).resolve(), "unknown", -1
    try:
        lines = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return kind
    for line in lines:
        fields, _, rest = line.partition(" - ")
        mount = Path(cgroups.unescaped(fields.split()[4]))
        if place.is_relative_to(mount) and len(mount.parts) >= depth:  # a later mount hides an earlier one
            kind, depth = rest.split()[0], len(mount.parts)
    return kind


def _memory(root: Path) -> tuple[int, int, list[Fact]]:
    """(bytes there are, bytes that can be had now, facts), each the smaller of machine and control group."""
    meminfo = {}
    for line in (root / "proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        meminfo[name] = int(value.split()[0]) * 1024
    total, available = meminfo["MemTotal"], meminfo["MemAvailable"]
    facts = [
        Fact(name="memory.total", value=str(total), evidence="/proc/meminfo MemTotal"),
        Fact(name="memory.swap", value=str(meminfo.get("SwapTotal", 0)), evidence="/proc/meminfo SwapTotal"),
    ]
    limit = cgroups.memory_limit(root)
    evidence = "/proc/meminfo MemAvailable"
    if limit is not None:
        facts.append(Fact(name="memory.limit", value=str(limit.limit), evidence=limit.evidence))
        total = min(total, limit.limit)
        if limit.available < available:
            available, evidence = limit.available, limit.evidence
    facts.append(Fact(name="memory.available", value=str(available), evidence=evidence))
    return total, available, facts


def _shared_memory(root: Path) -> Iterator[Fact]:
    directory = root / "dev/shm"
    if directory.is_dir():
        space = os.statvfs(directory)
        yield Fact(name="shm.free", value=str(space.f_bavail * space.f_frsize), evidence="statvfs /dev/shm")


def _torch() -> Iterator[Fact]:
    """Asked of the installed distribution: importing torch takes seconds."""
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        version = ""
    yield Fact(name="torch", value=version or NO, evidence="importlib.metadata")


def _isolation(root: Path) -> Iterator[Fact]:
    """What boxes for workers could be built from."""
    yield _namespaces()
    seccomp = (root / "proc/sys/kernel/seccomp/actions_avail").exists()
    yield Fact(name="seccomp", value=YES if seccomp else NO, evidence="/proc/sys/kernel/seccomp/actions_avail")
    yield _kvm(root / "dev/kvm")
    group = cgroups.group_of("memory", root)
    if group is None:
        yield Fact(name="cgroup.version", value="none", evidence="/proc/self/mountinfo")
        return
    nearest = group.directories[0]
    yield Fact(name="cgroup.version", value=str(group.version), evidence=str(nearest))
    yield Fact(name="cgroup.writable", value=YES if os.access(nearest, os.W_OK) else NO, evidence=str(nearest))


def _namespaces() -> Fact:
    """Tried, not read: sysctls, AppArmor and seccomp can each forbid it."""
    argv = ["unshare", "--user", "--map-root-user", "--net", "--mount", "true"]
    failed = said_by(argv)[1]
    return Fact(name="namespaces", value=f"{NO}: {failed}" if failed else YES, evidence=" ".join(argv))


def _kvm(device: Path) -> Fact:
    if not device.exists():
        value = f"{NO}: no such device"
    elif not os.access(device, os.R_OK | os.W_OK):
        value = f"{NO}: this user may not open it"
    else:
        value = YES
    return Fact(name="kvm", value=value, evidence="/dev/kvm")


def _compiler() -> Iterator[Fact]:
    for name in ("cc", "gcc", "clang"):
        path = shutil.which(name)
        if path is not None:
            said, failed = said_by([path, "--version"])
            if not failed:
                yield Fact(name="compiler", value=said.splitlines()[0] if said else name, evidence=path)
                return
    yield Fact(name="compiler", value=NO, evidence="PATH: cc, gcc, clang")
