"""The one group of this process, for scripts that want no object to pass around: init, then size, rank and the rest.

    import phalanx.collectives as collectives

    collectives.init()                      # under torchrun, mpirun, srun or our launcher; alone without any
    collectives.world().allreduce(tensor, "average").wait()

Knows nothing of launchers or transports; `membership` and `group` do.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Mapping

from phalanx.collectives.errors import CollectiveError
from phalanx.collectives.group import Group, join
from phalanx.collectives.membership import Membership
from phalanx.collectives.watch import why_it_ends

log = logging.getLogger(__name__)

_lock = threading.Lock()
_world: Group | None = None


def init(environment: Mapping[str, str] = os.environ, *, timeout_s: float = 60.0) -> Group:
    """Form the group of all processes that the launcher started, once; later calls return the same.

    `environment`: see `launchers` for the variables. It is left again at the end of the process, or by `shutdown`,
    after which all may call this anew. Raises CollectiveTimeout naming who did not come within `timeout_s`, and
    CollectiveError for a launcher's variables that cannot be.
    """
    global _world
    with _lock:
        if _world is None:
            _world = join(Membership.from_environment(environment), timeout_s=timeout_s)
            atexit.register(_leave)
        return _world


def shutdown() -> None:
    """Leave the group; nothing if there is none. Called by all, after their last operation. Never raises."""
    global _world
    with _lock:
        group, _world = _world, None
        atexit.unregister(_leave)
    if group is not None:
        try:
            group.close()
        except RuntimeError as error:  # it broke before: whoever waited was told then
            log.debug("closing the group: %s", error)


def _leave() -> None:
    """At the end of the process: if it ends of an error, the others are told which."""
    if _world is not None and (reason := why_it_ends()):
        _world.abort(reason)
    shutdown()


def is_initialized() -> bool:
    """Whether `init` has formed a group that `shutdown` has not left."""
    return _world is not None


def world() -> Group:
    """The group that `init` formed. Raises CollectiveError before it and after `shutdown`."""
    group = _world
    if group is None:
        raise CollectiveError("there is no group yet", remedy="call phalanx.collectives.init() first")
    return group


def size() -> int:
    """Number of ranks."""
    return world().size


def rank() -> int:
    """Of this process: 0 to size - 1."""
    return world().rank


def local_rank() -> int:
    """Of this process among those of its host: 0 to local_size - 1."""
    return world().local_rank


def local_size() -> int:
    """Number of ranks of this host."""
    return world().local_size


def cross_rank() -> int:
    """Number of this host among the hosts that have a rank with this local rank."""
    return world().cross_rank


def cross_size() -> int:
    """Number of hosts that have a rank with this local rank."""
    return world().cross_size


def _forget() -> None:
    """In a forked child: the group and its connections are the parent's."""
    global _world, _lock
    _world, _lock = None, threading.Lock()
    atexit.unregister(_leave)


os.register_at_fork(after_in_child=_forget)
