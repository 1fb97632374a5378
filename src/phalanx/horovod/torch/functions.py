"""Parameters, optimizer states and whole Python objects between the ranks.

Objects are pickled (cloudpickle: functions and classes of the script as well). Unpickling runs what the sender wants
run: these are for the ranks of one authenticated job, and for nothing that comes from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cloudpickle
import torch
from torch import Tensor

from phalanx.horovod.torch.handles import only_tensors
from phalanx.horovod.torch.mpi_ops import (
    ProcessSet,
    allgather,
    broadcast_,
    broadcast_async_,
    global_process_set,
    rank,
    size,
    synchronize,
)

_LENGTH = 8  # bytes of a length before each object, negative before a reason why there is none


def broadcast_parameters(params: dict[str, Any] | Sequence[Any], root_rank: int) -> None:
    """Give every rank the tensors of `root_rank`, in place: `model.state_dict()`, or a list of parameters.

    Of a list, elements may be (name, tensor). Raises ValueError for anything else, as iterators are; TypeError for what
    is no tensor in them.
    """
    if isinstance(params, dict):
        named = sorted(params.items())
    elif isinstance(params, list):
        named = [entry if isinstance(entry, tuple) else (None, entry) for entry in params]
    else:
        raise ValueError(f"invalid params of type: {type(params)}; model.state_dict(), or a list, is wanted")
    only_tensors("broadcast_parameters", (tensor for _, tensor in named))
    # Dense in the order of its dimensions: another rank's may have another layout.
    dense = [tensor.detach().contiguous() for _, tensor in named]
    handles = [broadcast_async_(same, root_rank, name) for same, (name, _) in zip(dense, named, strict=True)]
    for handle in handles:
        synchronize(handle)
    for same, (_, tensor) in zip(dense, named, strict=True):
        if not tensor.is_contiguous():
            tensor.detach().copy_(same)


def broadcast_optimizer_state(
    optimizer: torch.optim.Optimizer, root_rank: int, model: torch.nn.Module | None = None
) -> None:
    """Give every rank the state and the options (learning rates and so on) of `root_rank`'s optimizer.

    Its parameters are not touched, and no step is taken. Afterwards those to be trained have a gradient (zero, where
    there was none and nothing has been trained yet). `model`: whose embeddings may have sparse ones.
    Raises ValueError for LBFGS, and for an optimizer with other parameter groups than the root's.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError("cannot broadcast torch.optim.LBFGS state")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not optimizer.state:
        _make_gradients(optimizer, parameters, model)
    mine = [(optimizer.state.get(parameter) or {}) for parameter in parameters]
    told = broadcast_object(_told_of(optimizer, mine), root_rank, "optimizer_state")
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    if told["sizes"] != sizes:
        raise ValueError(
            f"the optimizer of rank {rank()} has parameter groups of {sizes} parameters, and that of rank "
            f"{root_rank} of {told['sizes']}"
        )
    if rank() != root_rank:
        for parameter, before, entries in zip(parameters, mine, told["state"], strict=True):
            if entries or parameter in optimizer.state:
                optimizer.state[parameter] = {
                    name: value.place_for(before.get(name), parameter) if isinstance(value, _Tensor) else value
                    for name, value in entries.items()
                }
        for group, options in zip(optimizer.param_groups, told["options"], strict=True):
            for name, value in options.items():
                _set_option(group, name, value)
    moving = [
        (f"optimizer_state.{number}.{name}", optimizer.state[parameters[number]][name])
        for number, entries in enumerate(told["state"])
        for name, value in entries.items()
        if isinstance(value, _Tensor)
    ]
    broadcast_parameters(moving, root_rank)


class _Tensor:
    """Stands for a tensor of the state, which travels by itself."""

    def __init__(self, tensor: Tensor, parameter: Tensor) -> None:
        self.shape = tensor.shape
        self.dtype = tensor.dtype
        self.beside = tensor.device == parameter.device  # a step may be counted on the CPU for one on a GPU

    def place_for(self, before: object, parameter: Tensor) -> Tensor:
        """Where it will arrive: the tensor that was there, if it fits."""
        if isinstance(before, Tensor) and before.shape == self.shape and before.dtype == self.dtype:
            return before
        like = parameter if self.beside and parameter.shape == self.shape else None
        if like is not None:
            return torch.empty_like(like, dtype=self.dtype, requires_grad=False)
        return torch.empty(self.shape, dtype=self.dtype, device=parameter.device if self.beside else "cpu")


def _told_of(optimizer: torch.optim.Optimizer, state: list[dict[str, Any]]) -> dict[str, Any]:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        "sizes": [len(group["params"]) for group in optimizer.param_groups],
        "options": [
            {name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups
        ],
        "state": [
            {name: _Tensor(value, parameter) if torch.is_tensor(value) else value for name, value in entries.items()}
            for parameter, entries in zip(parameters, state, strict=True)
        ],
    }


def _set_option(group: dict[str, Any], name: str, value: Any) -> None:
    """A learning rate may be a tensor that a compiled step, or a schedule, holds."""
    before = group.get(name)
    if torch.is_tensor(before) and torch.is_tensor(value) and before.shape == value.shape:
        before.copy_(value)
    else:
        group[name] = value


def _make_gradients(optimizer: torch.optim.Optimizer, parameters: list[Tensor], model: torch.nn.Module | None) -> None:
    """Zero, for those to be trained that have none."""
    sparse = {
        parameter
        for module in (model.modules() if model is not None else ())
        if isinstance(module, torch.nn.Embedding | torch.nn.EmbeddingBag) and module.sparse
        for parameter in module.parameters()
    }
    for parameter in parameters:
        if parameter.requires_grad and parameter.grad is None:
            zero = torch.zeros_like(parameter)
            is_sparse = isinstance(optimizer, torch.optim.SparseAdam) or parameter in sparse
            parameter.grad = zero.to_sparse(1) if is_sparse else zero


# Objects


def broadcast_object(
    obj: Any, root_rank: int = 0, name: str | None = None, process_set: ProcessSet = global_process_set
) -> Any:
    """`root_rank`'s object, on every rank of the set. What is given on the others does not matter.

    It is pickled: see the top of this file for whom to trust. Raises TypeError where it cannot be; on the root, what
    pickling raised.
    """
    name = name or "broadcast_object"
    failure: Exception | None = None
    if rank() == root_rank:
        data, failure = _pickled(obj)
    else:
        data = torch.empty(_LENGTH, dtype=torch.uint8)
    length = torch.tensor([len(data)])
    broadcast_(length, root_rank, f"{name}.sz", process_set)
    if rank() != root_rank:
        data = torch.empty(int(length), dtype=torch.uint8)
    broadcast_(data, root_rank, f"{name}.t", process_set)
    if failure is not None:
        raise failure
    return obj if rank() == root_rank else _unpickled(data, [root_rank])[0]


def allgather_object(obj: Any, name: str | None = None) -> list[Any]:
    """Every rank's object, in the order of the ranks. Pickled, as in `broadcast_object`."""
    data, failure = _pickled(obj)
    everything = allgather(data, name=f"{name or 'allgather_object'}.t")
    if failure is not None:
        raise failure
    return _unpickled(everything, range(size()))


def _pickled(obj: Any) -> tuple[Tensor, Exception | None]:
    """A length and the object; or, for those who wait for it, a reason why there is none, and the error itself."""
    failure: Exception | None = None
    try:
        data = cloudpickle.dumps(obj)
        length = len(data)
    except Exception as error:  # noqa: BLE001 - whatever the object's own methods raise; raised when the others know
        failure = error
        data = f"{type(obj).__name__}: {error}".encode()
        length = -len(data)
    packed = bytearray(length.to_bytes(_LENGTH, "little", signed=True) + data)
    return torch.frombuffer(packed, dtype=torch.uint8), failure


def _unpickled(everything: Tensor, senders: Sequence[int]) -> list[Any]:
    """The objects of all `senders`, one after the other. Raises TypeError for one that has sent none."""
    data = memoryview(everything.numpy().tobytes())
    objects = []
    for sender in senders:
        length = int.from_bytes(data[:_LENGTH], "little", signed=True)
        content, data = data[_LENGTH : _LENGTH + abs(length)], data[_LENGTH + abs(length) :]
        if length < 0:
            raise TypeError(f"rank {sender} cannot send its object: {content.tobytes().decode()}")
        objects.append(cloudpickle.loads(content))
    return objects
