"""Limits of control groups, read from trees as the kernel shows them, and from a real group where root can make one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from phalanx.host.cgroups import cpu_limit, group_of, memory_limit

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = (
    "31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:5 - cgroup cgroup rw,cpu,cpuacct\n"
    "32 23 0:28 / /sys/fs/cgroup/memory rw shared:6 - cgroup cgroup rw,memory\n"
)


def tree(root: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts, **files}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_version_2_tells_the_smallest_limit_on_the_way_up(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/user.slice/job"
    above = "sys/fs/cgroup/user.slice"
    root = tree(
        tmp_path,
        "0::/user.slice/job\n",
        V2_MOUNT,
        {
            f"{group}/cpu.stat": "",
            f"{group}/cpu.max": "max 100000\n",
            f"{above}/cpu.max": "150000 100000\n",
            f"{group}/memory.stat": "anon 5\ninactive_file 100\n",
            f"{group}/memory.max": "1000\n",
            f"{group}/memory.current": "400\n",
            f"{above}/memory.max": "5000\n",
            f"{above}/memory.current": "4950\n",
        },
    )
    limit, memory = cpu_limit(root), memory_limit(root)
    assert limit is not None
    assert memory is not None
    assert (limit.value, limit.evidence) == (1.5, str(root / above / "cpu.max"))
    assert (memory.limit, memory.available, memory.evidence) == (5000, 50, str(root / above / "memory.max"))
    (root / above / "memory.max").write_text("max\n")
    nearer = memory_limit(root)
    assert nearer is not None
    assert (nearer.limit, nearer.available) == (1000, 700)


def test_version_1_tells_quota_and_limit(tmp_path: Path) -> None:
    cpu, memory = "sys/fs/cgroup/cpu,cpuacct/box", "sys/fs/cgroup/memory/box"
    root = tree(
        tmp_path,
        "4:memory:/box\n3:cpu,cpuacct:/box\n0::/\n",
        V1_MOUNTS,
        {
            f"{cpu}/cpu.cfs_quota_us": "250000\n",
            f"{cpu}/cpu.cfs_period_us": "100000\n",
            f"{memory}/memory.limit_in_bytes": "2000\n",
            f"{memory}/memory.usage_in_bytes": "1500\n",
            f"{memory}/memory.stat": "inactive_file 1\ntotal_inactive_file 300\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    limit, allowed = cpu_limit(root), memory_limit(root)
    assert limit is not None
    assert allowed is not None
    assert limit.value == 2.5
    assert (allowed.limit, allowed.available) == (2000, 800)


def test_a_container_sees_its_group_at_the_mount_point(tmp_path: Path) -> None:
    """Without a cgroup namespace the path in /proc is the host's, and the mount shows only the part below it."""
    mounts = "33 23 0:28 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    file = "sys/fs/cgroup/memory/memory.limit_in_bytes"
    root = tree(tmp_path, "4:memory:/docker/abc\n", mounts, {file: "77\n"})
    limit = memory_limit(root)
    assert limit is not None
    assert limit.limit == 77


@pytest.mark.parametrize(
    ("groups", "mounts", "files"),
    [
        ("", "", {}),
        ("0::/\n", V2_MOUNT, {}),
        ("0::/\n", V2_MOUNT, {"sys/fs/cgroup/cpu.stat": "", "sys/fs/cgroup/memory.stat": ""}),
        ("4:memory:/a\n3:cpu,cpuacct:/a\n", V1_MOUNTS, {"sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "-1\n"}),
        ("0::/gone\n", V2_MOUNT, {"sys/fs/cgroup/gone/memory.stat": "", "sys/fs/cgroup/gone/memory.max": "max\n"}),
    ],
    ids=["no control groups", "no controllers", "no limits", "unlimited v1", "unlimited v2"],
)
def test_without_a_limit_there_is_none(tmp_path: Path, groups: str, mounts: str, files: dict[str, str]) -> None:
    root = tree(tmp_path, groups, mounts, files)
    assert cpu_limit(root) is None
    assert memory_limit(root) is None


def test_a_mount_point_with_a_space_is_read(tmp_path: Path) -> None:
    mounts = "33 23 0:28 / /sys/fs/my\\040groups rw - cgroup cgroup rw,memory\n"
    root = tree(tmp_path, "4:memory:/\n", mounts, {"sys/fs/my groups/memory.limit_in_bytes": "5\n"})
    limit = memory_limit(root)
    assert limit is not None
    assert limit.limit == 5


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a control group")
def test_a_real_group_with_a_limit_is_seen_from_inside() -> None:
    here = group_of("memory")
    if here is None or not os.access(here.directories[0], os.W_OK):
        pytest.skip("no writable memory control group on this machine")
    group = here.directories[0] / f"phalanx-test-{os.getpid()}"
    group.mkdir()
    try:
        limit_file = group / ("memory.max" if here.version == 2 else "memory.limit_in_bytes")
        if not limit_file.exists():
            pytest.skip("the memory controller is not delegated to new groups")
        limit_file.write_text(str(512 << 20))
        program = (
            "import os, pathlib, sys\n"
            "pathlib.Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid()))\n"
            "from phalanx.host import facts_of_host\n"
            "print(facts_of_host().memory_bytes)\n"
        )
        done = subprocess.run([sys.executable, "-c", program, str(group)], capture_output=True, text=True, check=True)
        assert int(done.stdout) == 512 << 20
    finally:
        group.rmdir()
