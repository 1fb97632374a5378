"""Horovod's exceptions, which its scripts catch by name. They are plain RuntimeErrors there, and so here."""

from __future__ import annotations


class HorovodInternalError(RuntimeError):
    """A collective operation failed: a rank is gone, or the ranks do not mean the same. Elastic runs go on from it."""


class HostsUpdatedInterrupt(RuntimeError):
    """Hosts or workers were added or removed. `skip_sync`: only removed, so that nobody needs the state."""

    def __init__(self, skip_sync: bool) -> None:
        super().__init__("the hosts of this job have changed")
        self.skip_sync = skip_sync


class HorovodVersionMismatchError(ImportError):
    """Never raised here, where nothing is compiled against one version of a framework; scripts may catch it."""

    def __init__(self, name: str, version: str, installed_version: str | None) -> None:
        super().__init__(get_version_mismatch_message(name, version, installed_version))
        self.name = name
        self.version = version
        self.installed_version = installed_version


def get_version_mismatch_message(name: str, version: str, installed_version: str | None) -> str:
    """`version` is there, and `installed_version` was expected."""
    return f"{name} {version} is installed, but {installed_version} was when this was built"
