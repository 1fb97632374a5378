"""The memory and arithmetic of one training step, counted by running the real step on tensors without data.

Under FakeTensorMode every operation has the shapes, dtypes and choice of kernel of a real one on the CPU,
and takes microseconds; a dispatch mode counts each storage from its making to its freeing. What kernels
take inside (scratch, packing) and what the allocator loses between blocks is not seen: `calibration` adds
it. Knows no job and no data, only what it takes to build a stepper.

Method: live storages on a dispatch mode, as in torch's own `torch.distributed._tools.mem_tracker`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from phalanx.job import Plan
from phalanx.parallel import Mesh
from phalanx.training import Stepper, build_stepper

MicroBatch = Mapping[str, torch.Tensor]
_STEPPED = 2  # micro-batches that are computed: a third is like the second. The loader makes all of a step at once.


@dataclass(frozen=True)
class Subject:
    """What a worker builds and feeds. `batch(n)`: a real micro-batch of n rows, on the CPU."""

    make_model: Callable[[], nn.Module]
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    batch: Callable[[int], MicroBatch]


@dataclass(frozen=True)
class StepTrace:
    """Bytes live at the peak of a step by category, and arithmetic (2 a multiply-add, matrix products only).

    `buffers`: what the allreduce moves; `kept`: what a checkpoint holds; `largest`: the largest single storage.
    """

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    largest: int
    micro_batch_flops: float
    update_flops: float
    count: int
    buffers: int
    kept: int

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.activations


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that operations make. `peak`: most bytes live at once; `at_peak`: storage to bytes, then."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.at_peak: dict[int, int] = {}
        self._live: dict[int, int] = {}
        self._watched: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._rising = False

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor):
                self._watch(tensor.untyped_storage())
        return result

    def bytes_at_peak(self, tensors: Iterable[torch.Tensor]) -> int:
        """Of the tensors' storages, each once."""
        return sum(self.at_peak.get(key, 0) for key in {_key(tensor) for tensor in tensors})

    def finish(self) -> None:
        """Take note of a peak after which nothing was freed."""
        if self._rising:
            self.at_peak, self._rising = dict(self._live), False

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._live:
            return
        self._live[key] = size = storage.nbytes()
        self.now += size
        if self.now > self.peak:
            self.peak, self._rising = self.now, True
        self._watched[key] = weakref.ref(storage, lambda _: self._freed(key))

    def _freed(self, key: int) -> None:
        self.finish()  # the table is copied only where a fall follows a rise: a step has thousands of rises
        self.now -= self._live.pop(key)
        del self._watched[key]


def _key(tensor: torch.Tensor) -> int:
    """One number a storage, for as long as it lives."""
    key: int = tensor.untyped_storage()._cdata
    return key


def trace_step(subject: Subject, plan: Plan) -> StepTrace:
    """Run two steps of `plan` (the first makes the optimizer's state) without data and count their memory.

    Of the plan its micro-batch, accumulation, precision and mesh are used. Takes a fraction of a second for a
    small model; no tensor of the model's size is made.
    """
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in subject.batch(plan.micro_batch).items()}
    recorder = Recorder()
    with FakeTensorMode(), recorder:
        stepper = build_stepper(subject.make_model, subject.make_optimizer, plan, Mesh.imagined(plan.mesh))

        def batches(count: int) -> list[MicroBatch]:
            return [
                {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in shapes.items()} for _ in range(count)
            ]

        with FlopCounterMode(display=False) as micro_batch_flops:
            stepper.forward_backward(batches(1), 1)
        with FlopCounterMode(display=False) as update_flops:
            stepper.clip(1.0)
            stepper.update()
        stepped = batches(min(plan.accumulation, _STEPPED))
        size = sum(tensor.numel() * tensor.element_size() for tensor in stepped[0].values())
        waiting = torch.empty((plan.accumulation - len(stepped)) * size, dtype=torch.uint8)
        stepper.forward_backward(stepped, 1)
        stepper.clip(1.0)
        stepper.update()
        del waiting
        recorder.finish()
        return _counted(stepper, recorder, micro_batch_flops.get_total_flops(), update_flops.get_total_flops())


def _counted(stepper: Stepper, recorder: Recorder, micro_batch_flops: int, update_flops: int) -> StepTrace:
    module = stepper.module
    model = [*module.parameters(), *module.buffers()]
    states = [
        value
        for state in stepper.optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
    parameters, gradients, optimizer = (
        recorder.bytes_at_peak(tensors) for tensors in (model, stepper.gradients.buffers, states)
    )
    return StepTrace(
        parameters=parameters,
        gradients=gradients,
        optimizer=optimizer,
        activations=recorder.peak - parameters - gradients - optimizer,
        largest=max(recorder.at_peak.values(), default=0),
        micro_batch_flops=float(micro_batch_flops),
        update_flops=float(update_flops),
        count=sum(parameter.numel() for parameter in module.parameters()),
        buffers=stepper.gradients.bytes,
        kept=sum(piece.tensor.numel() * piece.tensor.element_size() for piece in stepper.state()),
    )
