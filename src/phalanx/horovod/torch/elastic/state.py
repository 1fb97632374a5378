"""Models, optimizers, samplers and Python objects as one state; a handler keeps each kind, and more can be added."""

from __future__ import annotations

import copy
from typing import Any, TypeAlias

import torch

from phalanx.horovod.common.elastic import ObjectState
from phalanx.horovod.torch.elastic.sampler import ElasticSampler
from phalanx.horovod.torch.functions import broadcast_object, broadcast_optimizer_state, broadcast_parameters
from phalanx.horovod.torch.mpi_ops import rank


class StateHandler:
    """Keeps one object of a state. Of your own: `set_handler_registry`; NotImplementedError is Horovod's."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def save(self) -> None:
        """Keep a copy in memory."""
        raise NotImplementedError

    def restore(self) -> None:
        """Go back to that copy."""
        raise NotImplementedError

    def sync(self) -> None:
        """Give every rank what rank 0 has."""
        raise NotImplementedError

    def set_value(self, value: Any) -> None:
        """Another object takes the place of this one."""
        self.value = value
        self.save()


class _StateDictHandler(StateHandler):
    """Of whatever has `state_dict` and `load_state_dict`."""

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.save()

    def save(self) -> None:
        self._saved = copy.deepcopy(self.value.state_dict())

    def restore(self) -> None:
        self.value.load_state_dict(copy.deepcopy(self._saved))  # an optimizer takes the tensors themselves


class ModelStateHandler(_StateDictHandler):
    """Of a torch module."""

    def sync(self) -> None:
        broadcast_parameters(self.value.state_dict(), root_rank=0)
        self.save()


class OptimizerStateHandler(_StateDictHandler):
    """Of a torch optimizer."""

    def sync(self) -> None:
        broadcast_optimizer_state(self.value, root_rank=0)
        self.save()


class SamplerStateHandler(_StateDictHandler):
    """Of an ElasticSampler."""

    def sync(self) -> None:
        self.value.load_state_dict(broadcast_object(self.value.state_dict()))
        self.save()


Registry: TypeAlias = list[tuple[type, type[StateHandler]]]

_handler_registry: Registry = [
    (torch.nn.Module, ModelStateHandler),
    (torch.optim.Optimizer, OptimizerStateHandler),
    (ElasticSampler, SamplerStateHandler),
]


def get_handler_registry() -> Registry:
    """Types and their handlers; the first that fits an object counts."""
    return _handler_registry


def set_handler_registry(registry: Registry) -> None:
    """For states that are made from now on."""
    global _handler_registry
    _handler_registry = registry


class TorchState(ObjectState):
    """A model, an optimizer and whatever else is to be kept, each an attribute of this.

    What has no handler is kept as a Python object: pickled to the others, and not copied when it is saved.
    """

    _handlers: dict[str, StateHandler]

    def __init__(
        self, model: torch.nn.Module | None = None, optimizer: torch.optim.Optimizer | None = None, **kwargs: Any
    ) -> None:
        values = kwargs | {"model": model, "optimizer": optimizer}
        self._handlers = {name: handler for name, value in values.items() if (handler := _handler_of(value))}
        for name, handler in self._handlers.items():
            super().__setattr__(name, handler.value)
        plain = {name: value for name, value in values.items() if name not in self._handlers}
        super().__init__(bcast_object=broadcast_object, get_rank=rank, **plain)

    def save(self) -> None:
        for handler in self._handlers.values():
            handler.save()
        super().save()

    def restore(self) -> None:
        for handler in self._handlers.values():
            handler.restore()
        super().restore()

    def sync(self) -> None:
        for handler in self._handlers.values():
            handler.sync()
        super().sync()

    def reset(self) -> None:
        for handler in self._handlers.values():
            if isinstance(handler, SamplerStateHandler):  # no sync may follow, where somebody only left
                handler.value.reset()

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "_handlers" and name in self._handlers:
            self._handlers[name].set_value(value)
        super().__setattr__(name, value)


def _handler_of(value: Any) -> StateHandler | None:
    return next((handler(value) for known, handler in _handler_registry if isinstance(value, known)), None)
