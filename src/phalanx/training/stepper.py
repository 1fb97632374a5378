"""One optimizer step: forward and backward over micro-batches, one reduction, clipping, update.

    gradient = sum over ranks and micro-batches of d(loss_sum) / global_count

The loss is a (sum, count) pair and the global count is known before backward, so N workers with unequal
numbers of predicted tokens do what one worker would with the same global batch. Runs on the meta device
and on fake tensors too, where the planner traces its memory: nothing here asks a tensor for its value.
Knows nothing of where batches come from, checkpoints on disk, or events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import nn

from phalanx.job import Plan
from phalanx.parallel import DataSplit, Gradients, Mesh
from phalanx.training.checkpoint import Piece
from phalanx.training.errors import CheckpointMismatch

PHASES = ("data", "forward", "backward", "communication", "optimizer")
MicroBatch = Mapping[str, torch.Tensor]


class Reader(Protocol):
    """What `Stepper.load` needs of a checkpoint."""

    def names(self, prefix: str) -> list[str]: ...

    def read_slice(self, name: str, offset: tuple[int, ...], shape: tuple[int, ...]) -> torch.Tensor: ...

    def shape(self, name: str) -> tuple[int, ...]: ...


class Totals(NamedTuple):
    """Sums over all ranks of one step, float32 scalars: `loss_sum` in nats over `predicted` tokens,
    `tokens` read, `votes` to stop."""

    loss_sum: torch.Tensor
    predicted: torch.Tensor
    tokens: torch.Tensor
    votes: torch.Tensor


class Stepper:
    """Made by `build_stepper`. `times`: seconds of each phase of the current step, by this rank's clock."""

    def __init__(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, gradients: Gradients, precision: str
    ) -> None:
        self.module = module
        self.optimizer = optimizer
        self.gradients = gradients
        self.times = dict.fromkeys(PHASES, 0.0)
        self._autocast = precision == "bf16"
        self._base_rates = [float(group["lr"]) for group in optimizer.param_groups]

    def forward_backward(
        self, micro_batches: Iterable[MicroBatch], global_count: int, *, tokens: int = 0, vote: bool = False
    ) -> Totals:
        """Leave the gradient of the global mean loss in the parameters, the same on all ranks.

        `micro_batches`: this rank's, what `module.loss` takes; may be none. `global_count`: predicted tokens of
        the step over all ranks. `tokens` (read by this rank) and `vote` (to stop after this step) are summed
        with the gradients. Raises what Group.allreduce raises.
        """
        self.times = dict.fromkeys(PHASES, 0.0)
        self.gradients.clear()
        loss_sum = torch.zeros_like(self.gradients.scalars[0])
        predicted: int | torch.Tensor = 0
        clock = time.perf_counter
        for batch in self._timed(micro_batches):
            start = clock()
            with torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
                loss, count = self.module.loss(batch)  # type: ignore[operator]
            forward = clock()
            (loss / global_count).backward()
            self.times["forward"] += forward - start
            self.times["backward"] += clock() - forward
            loss_sum += loss.detach()
            predicted = predicted + count
            del loss
        start = clock()
        for scalar, value in zip(self.gradients.scalars, (loss_sum, predicted, tokens, vote), strict=True):
            scalar.copy_(torch.as_tensor(value))
        self.gradients.reduce()
        self.times["communication"] += clock() - start
        return Totals(*self.gradients.scalars.clone())

    def clip(self, norm: float | None) -> torch.Tensor:
        """Scale the gradient down to `norm` if it is longer; returns its norm before (float32 scalar)."""
        start = time.perf_counter()
        before = self.gradients.norm()
        if norm is not None:
            self.gradients.scale((norm / (before + 1e-6)).clamp(max=1.0))
        self.times["optimizer"] += time.perf_counter() - start
        return before

    def update(self, rate: float = 1.0) -> float:
        """One optimizer step, with every learning rate multiplied by `rate`; returns the first group's."""
        start = time.perf_counter()
        for group, base in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = base * rate
        self.optimizer.step()
        self.times["optimizer"] += time.perf_counter() - start
        return self._base_rates[0] * rate

    @torch.no_grad()
    def evaluate(self, batches: Iterable[MicroBatch]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Of each batch what the module's `costs_and_ranks` gives, without dropout; this rank's only."""
        self.module.eval()
        with torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            found = [self.module.costs_and_ranks(batch) for batch in batches]  # type: ignore[operator]
        self.module.train()
        return found

    def state(self) -> list[Piece]:
        """What must be kept to go on: `model.<parameter or buffer>` and `optimizer.<parameter>.<state>`."""
        pieces = [Piece.whole(f"model.{name}", tensor) for name, tensor in self._model_tensors()]
        for name, parameter in self.module.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                pieces.append(Piece.whole(f"optimizer.{name}.{key}", torch.as_tensor(value)))
        return pieces

    def load(self, reader: Reader) -> None:
        """Take the state from a checkpoint. Raises CheckpointMismatch when it is another model's."""
        load_model(self.module, reader)
        parameters = dict(self.module.named_parameters())
        self.optimizer.state.clear()
        for whole in reader.names("optimizer."):
            name, _, key = whole.removeprefix("optimizer.").rpartition(".")
            if name not in parameters:
                raise CheckpointMismatch(
                    f"the model has no parameter {name}", remedy="resume with the model that wrote it"
                )
            shape = reader.shape(whole)
            tensor = reader.read_slice(whole, (0,) * len(shape), shape).clone()
            self.optimizer.state[parameters[name]][key] = tensor

    def _model_tensors(self) -> list[tuple[str, torch.Tensor]]:
        return model_tensors(self.module)

    def _timed(self, micro_batches: Iterable[MicroBatch]) -> Iterator[MicroBatch]:
        """The micro-batches, with the waiting for each counted as `data`."""
        iterator = iter(micro_batches)
        while True:
            start = time.perf_counter()
            batch = next(iterator, None)
            self.times["data"] += time.perf_counter() - start
            if batch is None:
                return
            yield batch


def model_tensors(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Parameters and persistent buffers by name; one that is shared under several names, once."""
    seen: set[int] = set()
    tensors = []
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors.append((name, tensor.detach()))
    return tensors


def load_model(module: nn.Module, reader: Reader) -> None:
    """Copy `model.*` into `module`. Raises CheckpointMismatch when names or shapes differ."""
    tensors = dict(model_tensors(module))
    stored = {name.removeprefix("model.") for name in reader.names("model.")}
    if stored != tensors.keys():
        odd = sorted(stored ^ tensors.keys())
        raise CheckpointMismatch(
            f"the checkpoint is of another model: only one of the two has {odd[0]}",
            remedy="resume with the model that wrote it, or start a new job",
        )
    for name, tensor in tensors.items():
        tensor.copy_(reader.read_slice(f"model.{name}", (0,) * tensor.dim(), tuple(tensor.shape)))


def build_stepper(
    make_model: Callable[[], nn.Module],
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    plan: Plan,
    mesh: Mesh,
    device: str | torch.device = "cpu",
) -> Stepper:
    """A stepper for `plan` on `mesh`. `device`: `cpu` (under FakeTensorMode too) or `meta`.

    All ranks start from rank 0's parameters. Raises PeerLost while these are sent.
    """
    with torch.device(device):
        module = make_model()
    module.train()
    gradients = DataSplit().apply(module, mesh, scalars=len(Totals._fields))
    return Stepper(module, make_optimizer(module), gradients, plan.precision)
