"""What `import torch` runs of an installed Phalanx: it makes the backend "phalanx" known to torch.distributed.

torch calls the entry points of the group `torch.backends` (pyproject.toml) at the end of its own import, unless
TORCH_DEVICE_BACKEND_AUTOLOAD is 0; `import phalanx.collectives` does the same. An error here would be one of every
`import torch`, so this file loads no room before a group is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phalanx.collectives.process_group import ProcessGroupPhalanx

NAME = "phalanx"


def register() -> None:
    """Idempotent. Nothing is compiled or connected."""
    import torch.distributed as dist

    if dist.is_available() and NAME not in dist.Backend.backend_list:
        dist.Backend.register_backend(NAME, _create, extended_api=True, devices=["cpu"])


def _create(group: Any, _: object) -> ProcessGroupPhalanx:
    """Called by torch on every rank of a new group, with c10d's DistributedBackendOptions."""
    from phalanx.collectives.backend import create

    return create(group)
