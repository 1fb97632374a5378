"""What the control groups of this process allow it: processor time and memory, version 1 and 2 alike.

A limit of any group above counts too, so the smallest is told, with the file it was read from.
Sources: Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst of the kernel; proc(5) for mountinfo.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Version 1 has no word for "no limit": the largest page-aligned int64 stands for it.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True)
class Limit:
    """`value`: cores for processors, bytes for memory. `evidence`: the file that says it."""

    value: float
    evidence: str


@dataclass(frozen=True)
class MemoryLimit:
    limit: int
    used: int
    reclaimable: int
    evidence: str

    @property
    def available(self) -> int:
        """Bytes left below the limit, file cache that the kernel gives back at once counted as free."""
        return max(0, self.limit - self.used + self.reclaimable)


@dataclass(frozen=True)
class Group:
    """The groups that hold this process for one controller, the nearest first."""

    version: int
    directories: tuple[Path, ...]


def group_of(controller: str, root: Path = Path("/")) -> Group | None:
    """The groups of this process for `controller` ("cpu", "memory"); None without control groups.

    `root`: where /proc and /sys are looked for.
    """
    paths = _paths(root)
    for version in (1, 2):
        for kind, options, mounted, mount in _mounts(root):
            if version == 1 and kind == "cgroup" and controller in options and controller in paths:
                return Group(1, tuple(_upwards(root, mount, mounted, paths[controller])))
            if version == 2 and kind == "cgroup2" and "" in paths:
                directories = tuple(_upwards(root, mount, mounted, paths[""]))
                if any((directory / f"{controller}.stat").exists() for directory in directories):
                    return Group(2, directories)
    return None


def cpu_limit(root: Path = Path("/")) -> Limit | None:
    """Cores' worth of processor time allowed; None: no limit."""
    group = group_of("cpu", root)
    found = []
    for directory in group.directories if group else ():
        if group is not None and group.version == 2:
            file = directory / "cpu.max"
            quota, _, period = (_text(file) or "max").partition(" ")
        else:
            file = directory / "cpu.cfs_quota_us"
            quota, period = _text(file) or "-1", _text(directory / "cpu.cfs_period_us") or "100000"
        if quota.isdecimal() and period.isdecimal() and int(period):
            found.append(Limit(int(quota) / int(period), str(file)))
    return min(found, key=lambda limit: limit.value, default=None)


def memory_limit(root: Path = Path("/")) -> MemoryLimit | None:
    """The limit that leaves the least; None: none is set."""
    group = group_of("memory", root)
    found = []
    for directory in group.directories if group else ():
        if group is not None and group.version == 2:
            limit, used, cache = "memory.max", "memory.current", "inactive_file"
        else:
            limit, used, cache = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        allowed, current = _text(directory / limit) or "max", _text(directory / used) or "0"
        if allowed.isdecimal() and int(allowed) < _NO_LIMIT:
            reclaimable = re.search(rf"^{cache} (\d+)$", _text(directory / "memory.stat") or "", re.MULTILINE)
            back = int(reclaimable[1]) if reclaimable else 0
            found.append(MemoryLimit(int(allowed), int(current), back, str(directory / limit)))
    return min(found, key=lambda found_limit: found_limit.available, default=None)


def _text(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None


def _paths(root: Path) -> dict[str, str]:
    """Path of this process's group by controller; "" is version 2's."""
    result: dict[str, str] = {}
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        result |= dict.fromkeys(controllers.split(","), path)
    return result


def _mounts(root: Path) -> Iterator[tuple[str, set[str], str, str]]:
    """(type, options, root of the mount inside its file system, mount point) of every control group mount."""
    for line in (_text(root / "proc/self/mountinfo") or "").splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            mounted, mount = (unescaped(word) for word in fields.split()[3:5])
            yield kind, set(options.split(",")), mounted, mount


def unescaped(word: str) -> str:
    """A path as mountinfo writes it, with its blanks back."""
    return re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), word)


def _upwards(root: Path, mount: str, mounted: str, path: str) -> Iterator[Path]:
    """Directories from the process's group up to the mount point. In a container the group may lie above it."""
    top = root / mount.lstrip("/")
    below = path.removeprefix(mounted.rstrip("/")) if path.startswith(mounted) else ""
    directory = top / below.strip("/")
    while directory != top:
        yield directory
        directory = directory.parent
    yield top
