"""The optimizer for Adasum: every rank takes its own step, and what is combined are the steps.

A step may then be as long as that rank would have made it alone, and the learning rate needs no change with the
number of ranks (Maleki et al. 2021, arXiv:2006.02924). As in Horovod, each parameter is stepped, and its step
combined, as soon as backward has computed its gradient. How steps are combined is `mpi_ops`' concern.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch

from phalanx.horovod.torch.compression import Compression
from phalanx.horovod.torch.mpi_ops import Adasum, allreduce_async_, synchronize
from phalanx.horovod.torch.wrapping import Distributed, Gradient


class _DistributedAdasumOptimizer(Distributed):
    def _distribute(
        self,
        named_parameters: Iterable[tuple[str, torch.Tensor]] | None = None,
        compression: Any = Compression.none,
        backward_passes_per_step: int = 1,
    ) -> None:
        self._begin_to_watch(named_parameters, backward_passes_per_step, compression)
        for group in range(len(self.param_groups)):
            self._add(group)

    def _add(self, group: int) -> None:
        for gradient in self._watch(group):
            gradient.start = torch.zeros_like(gradient.parameter, requires_grad=False)
            if gradient.required and gradient.parameter.grad is None:
                gradient.parameter.grad = torch.zeros_like(gradient.parameter)

    @torch.no_grad()
    def _ready(self, gradient: Gradient) -> None:
        """Take the step of this parameter alone; the parameter itself is the step until `step()` is called."""
        parameter = gradient.parameter.detach()
        gradient.start.copy_(parameter)
        everything = [options["params"] for options in self.param_groups]
        for group, options in enumerate(self.param_groups):
            options["params"] = [gradient.parameter] if group == gradient.group else []
        try:
            super().step()
        finally:
            for options, parameters in zip(self.param_groups, everything, strict=True):
                options["params"] = parameters
        parameter.sub_(gradient.start)
        small, gradient.context = self._compression.compress(parameter)
        gradient.handle = allreduce_async_(small.contiguous(), name=gradient.name, op=Adasum)

    def synchronize(self) -> None:
        """Nothing: there are steps to be combined, no gradients. `step()` waits for them."""

    def skip_synchronize(self) -> AbstractContextManager[None]:
        """Raises AssertionError: it cannot be skipped."""
        raise AssertionError("Skipping synchronization is not supported when using Adasum optimizer.")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Wait for the combined steps and take them; what `closure` returns, which is called once, before."""
        loss = None if closure is None else closure()
        try:
            for gradient in self._gradients:
                if gradient.handle is None and (gradient.required or gradient.parameter.requires_grad):
                    self._ready(gradient)
            for gradient in self._gradients:
                if gradient.handle is not None:
                    self._take(gradient)
        finally:
            self._start_over()
        return loss

    step.hooked = True  # type: ignore[attr-defined]  # torch's hooks run around each parameter's step

    @torch.no_grad()
    def _take(self, gradient: Gradient) -> None:
        step = self._compression.decompress(synchronize(gradient.handle), gradient.context)
        gradient.start.add_(step)
        gradient.parameter.copy_(gradient.start)

    def _settings(self) -> dict[str, Any]:
        return {
            "named_parameters": [(name, parameter) for parameter, name in self._parameter_names.items()],
            "compression": self._compression,
            "backward_passes_per_step": self.backward_passes_per_step,
        }
