"""`hvd.elastic`: training that goes on when workers come and go. `phalanx.horovod.common.elastic` has the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from phalanx.horovod.common.elastic import State, run_fn
from phalanx.horovod.torch.elastic.sampler import ElasticSampler
from phalanx.horovod.torch.elastic.state import TorchState
from phalanx.horovod.torch.mpi_ops import init, shutdown

P = ParamSpec("P")
R = TypeVar("R")
AnyState = TypeVar("AnyState", bound=State)


def run(func: Callable[Concatenate[AnyState, P], R]) -> Callable[Concatenate[AnyState, P], R]:
    """Decorates `train(state, ...)`, which then begins again from `state` whenever the group has changed.

    All ranks have rank 0's state before each beginning. No operation may come between `hvd.init()` and this: workers
    that are added would wait in it for those that came before.
    """
    return run_fn(func, _reset)


def _reset() -> None:
    shutdown()
    init()


__all__ = ["ElasticSampler", "TorchState", "run"]
