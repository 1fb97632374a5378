"""What every test gets: a home of its own, and tests that this machine cannot run skipped with the reason printed."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from phalanx.foundation import Home

settings.register_profile("suite", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# A shell that starts the suite in the background has it ignore Ctrl-C, and every process that a test starts would too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@functools.cache
def missing_root() -> str:
    if os.geteuid() != 0:
        return "needs root: run `sudo make test`"
    probe = subprocess.run(["unshare", "-um", "true"], capture_output=True, text=True, check=False)
    return "" if probe.returncode == 0 else f"root without the right to make namespaces: {probe.stderr.strip()}"


@functools.cache
def missing_kvm() -> str:
    return "" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "no usable /dev/kvm"


@functools.cache
def missing_gpu() -> str:
    import torch

    return "" if torch.cuda.is_available() else "no CUDA device"


NEEDS: dict[str, Callable[[], str]] = {"root": missing_root, "kvm": missing_kvm, "gpu": missing_gpu}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, missing in NEEDS.items():
        if item.get_closest_marker(marker) and (reason := missing()):
            pytest.skip(reason)


@pytest.fixture(autouse=True)
def _no_home_but_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that forgets to name a home cannot reach the person's own."""
    monkeypatch.setenv("PHALANX_HOME", str(tmp_path / "phalanx-home"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.find(tmp_path / "phalanx-home")


@pytest.fixture
def mount_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """mount_disk("256k"): an empty file system of its own, of that size. Its tests are marked `root`."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        disk = tmp_path / f"disk-{len(mounted)}"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=True)
        mounted.append(disk)
        return disk

    yield mount
    for disk in mounted:
        subprocess.run(["umount", "-l", str(disk)], check=True)
