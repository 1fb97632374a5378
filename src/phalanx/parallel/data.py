"""The data split: every worker holds the whole model and a part of each batch; gradients are summed.

Gradients are views of one flat buffer per dtype, so that one allreduce sums them all, clearing, norm and
scaling are one pass each, and no copy into a bucket is needed. A few scalars of the step (loss, counts)
ride at the end of the first buffer instead of in an allreduce of their own. Sums, not means: the caller
divides its loss by the global count before backward, so ranks with unequal counts weigh right.

Summing while backward still runs (torch DDP's way) is left out on purpose: on a CPU the sum takes the core
that backward needs (see `benchmarks/` before you change this).
"""

from __future__ import annotations

import torch
from torch import nn

from phalanx.job import HostFacts, Plan
from phalanx.parallel.mesh import Mesh, Problem

ALIGN = 64  # bytes: a cache line, and the alignment of torch's own allocations


class DataSplit:
    """Data parallelism along `axis` of a mesh."""

    axis = "data"

    def check(self, facts: HostFacts, plan: Plan) -> list[Problem]:
        """What stands against carrying out `plan` on a host like `facts`."""
        problems = []
        if plan.mesh.size != plan.mesh.data:
            problems.append(Problem(f"the data split cannot carry out {plan.mesh}", "use mesh: {data: N}"))
        if plan.mesh.data > plan.global_batch:
            problems.append(
                Problem(
                    f"{plan.mesh.data} workers have only {plan.global_batch} sequences a step: some would get none",
                    f"use at most {plan.global_batch} workers, or raise training.globalBatch",
                )
            )
        if plan.mesh.data * plan.threads > facts.cores:
            problems.append(
                Problem(
                    f"{plan.mesh.data} workers of {plan.threads} threads would fight for {facts.cores} cores",
                    f"use at most {max(1, facts.cores // plan.threads)} workers on this host",
                )
            )
        return problems

    def apply(self, module: nn.Module, mesh: Mesh, scalars: int) -> Gradients:
        """Give all ranks rank 0's parameters, and `module`'s gradients their buffers."""
        for handle in [mesh.group.broadcast(tensor.data, name="parameters") for tensor in module.parameters()]:
            handle.wait()
        return Gradients(module, mesh, scalars)


class Gradients:
    """The gradients of `module`'s parameters (those that require one), and `scalars` float32 numbers summed with them.

    `param.grad` must stay the view it is: optimizers must not set it to None.
    """

    def __init__(self, module: nn.Module, mesh: Mesh, scalars: int) -> None:
        self._group = mesh.group
        by_dtype: dict[torch.dtype, list[nn.Parameter]] = {torch.float32: []}
        for parameter in module.parameters():
            if parameter.requires_grad:
                by_dtype.setdefault(parameter.dtype, []).append(parameter)
        self.buffers: list[torch.Tensor] = []
        for dtype, parameters in by_dtype.items():
            step = ALIGN // dtype.itemsize
            offsets, end = [], 0
            for parameter in parameters:
                offsets.append(end)
                end += -(-parameter.numel() // step) * step
            device = parameters[0].device if parameters else "cpu"
            flat = torch.zeros(end + (scalars if dtype == torch.float32 else 0), dtype=dtype, device=device)
            for parameter, offset in zip(parameters, offsets, strict=True):
                parameter.grad = flat[offset : offset + parameter.numel()].view_as(parameter)
            if dtype == torch.float32:
                self.scalars = flat[end:]
                self._parts = [flat[:end]]
            else:
                self._parts.append(flat)
            self.buffers.append(flat)

    @property
    def bytes(self) -> int:
        return sum(flat.numel() * flat.element_size() for flat in self.buffers)

    def clear(self) -> None:
        for flat in self.buffers:
            flat.zero_()

    def reduce(self) -> None:
        """Sum gradients and scalars over the data axis, in place. Raises what Group.allreduce raises."""
        for handle in [self._group.allreduce(flat, name="gradients") for flat in self.buffers]:
            handle.wait()

    def norm(self) -> torch.Tensor:
        """Euclidean norm of all gradients: float32 scalar."""
        norms = [
            torch.linalg.vector_norm(part, dtype=torch.promote_types(part.dtype, torch.float32)).float()
            for part in self._parts
            if part.numel()
        ]
        whole: torch.Tensor = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
        return whole

    def scale(self, factor: torch.Tensor) -> None:
        for part in self._parts:
            part.mul_(factor)
