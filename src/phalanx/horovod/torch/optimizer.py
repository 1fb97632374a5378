"""`DistributedOptimizer`: gradients are reduced between the ranks while backward still computes the others.

Each gradient is handed to the operations as soon as it is ready, and reduced in place; `step()` waits for all of them
before the script's own optimizer takes its step. How gradients travel together is the engine's concern.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from phalanx.horovod.common.util import split_list
from phalanx.horovod.torch.adasum_optimizer import _DistributedAdasumOptimizer
from phalanx.horovod.torch.compression import Compression
from phalanx.horovod.torch.functions import broadcast_object
from phalanx.horovod.torch.handles import forget
from phalanx.horovod.torch.mpi_ops import (
    Adasum,
    Average,
    ProcessSet,
    allreduce_async_,
    global_process_set,
    grouped_allreduce_async_,
    size,
    sparse_allreduce_async,
    synchronize,
)
from phalanx.horovod.torch.wrapping import Distributed, Gradient, wrapped
from phalanx.horovod.variables import Variables

_TOGETHER = 12 << 20  # bytes of gradients in one operation, which waits for the last of them


class Batch:
    """Gradients that are reduced as one operation, when the last of them is ready."""

    __slots__ = ("gradients", "under_way", "waiting")

    def __init__(self, gradients: list[Gradient]) -> None:
        self.gradients = gradients
        self.waiting = len(gradients)  # of how many the backward passes are not done
        self.under_way: list[tuple[Any, list[Gradient]]] = []  # handles, and whose they are
        for gradient in gradients:
            gradient.batch = self

    def expected(self) -> bool:
        """Whether the other ranks count on it, even if no gradient was computed here."""
        return any(gradient.required or gradient.parameter.requires_grad for gradient in self.gradients)


class _DistributedOptimizer(Distributed):
    def _distribute(
        self,
        named_parameters: Iterable[tuple[str, torch.Tensor]] | None = None,
        compression: Any = Compression.none,
        backward_passes_per_step: int = 1,
        op: int = Average,
        gradient_predivide_factor: float = 1.0,
        groups: int | list[list[torch.Tensor]] | None = None,
        sparse_as_dense: bool = False,
        process_set: ProcessSet | None = None,
    ) -> None:
        self._begin_to_watch(named_parameters, backward_passes_per_step, compression)
        self.op = op
        self.gradient_predivide_factor = gradient_predivide_factor
        self.sparse_as_dense = sparse_as_dense
        self.process_set = global_process_set if process_set is None else process_set
        self._groups = groups
        self._batches: list[Batch] = []
        self._synchronized = False
        self._should_synchronize = True
        _refuse_strange_groups(groups)
        variables = Variables.from_environment(os.environ)  # the launcher gives all ranks the same
        self._together_bytes = min(_TOGETHER, variables.fusion_threshold)
        # Alone there is nothing to reduce; but others may come to an elastic job.
        self._reduces = bool(self.process_set.included()) and (size() > 1 or variables.elastic)
        if self._reduces:
            watched = [gradient for group in range(len(self.param_groups)) for gradient in self._watch(group)]
            self._batches = [Batch(gradients) for gradients in self._together(watched)]

    def _together(self, gradients: list[Gradient]) -> list[list[Gradient]]:
        """Which ones make one operation, the same on all ranks."""
        trained = [gradient for gradient in gradients if gradient.required]
        frozen = [[gradient] for gradient in gradients if not gradient.required]
        if self._groups is None:
            return _neighbours_together(trained, self._together_bytes) + frozen
        if isinstance(self._groups, int):
            return [list(group) for group in split_list(self._in_one_order(trained), self._groups) if group] + frozen
        by_parameter = {gradient.parameter: gradient for gradient in trained}
        groups = [[by_parameter.pop(one) for one in group if one in by_parameter] for group in self._groups]
        return [group for group in groups if group] + [[one] for one in by_parameter.values()] + frozen

    def _in_one_order(self, gradients: list[Gradient]) -> list[Gradient]:
        """That of the first rank: each would form other groups of another."""
        by_name = {gradient.name: gradient for gradient in gradients}
        root = (self.process_set.ranks or [0])[0]
        order = broadcast_object(list(by_name), root, "DistributedOptimizer.groups", self.process_set)
        if set(order) != set(by_name):
            raise ValueError(f"rank {root} trains other parameters: {sorted(set(order) ^ set(by_name))}")
        return [by_name[name] for name in order]

    def _add(self, group: int) -> None:
        if self._reduces:
            self._batches += [Batch([gradient]) for gradient in self._watch(group)]

    # Backward

    def _ready(self, gradient: Gradient) -> None:
        batch: Batch = gradient.batch
        batch.waiting -= 1
        if batch.waiting == 0:
            self._reduce(batch)

    def _reduce(self, batch: Batch) -> None:
        dense, tensors = [], []
        for gradient in batch.gradients:
            parameter = gradient.parameter
            grad = parameter.grad
            if grad is None:  # not computed here, but other ranks may have done so
                grad = parameter.grad = torch.zeros_like(parameter)
            if grad.is_sparse:
                if not self.sparse_as_dense:
                    sparse = sparse_allreduce_async(grad, gradient.name, self.op, self.process_set)
                    batch.under_way.append((sparse, [gradient]))
                    continue
                grad = grad.to_dense()
            small, gradient.context = self._compression.compress(grad)
            tensors.append(small.contiguous())  # another rank's may have another layout
            dense.append(gradient)
        if not dense:
            return
        # The engine divides an average by the number of ranks after the sum.
        before = 1.0 / self.gradient_predivide_factor if self.op == Average else 1.0
        after = self.gradient_predivide_factor if self.op == Average else 1.0
        if len(dense) == 1:
            name = dense[0].name
            handle = allreduce_async_(tensors[0], None, name, self.op, before, after, self.process_set)
        else:
            name = f"{dense[0].name}..{dense[-1].name}"
            handle = grouped_allreduce_async_(tensors, None, name, self.op, before, after, self.process_set)
        batch.under_way.append((handle, dense))

    # Step

    def synchronize(self) -> None:
        """Wait until every gradient is the reduced one; for those that want to see it before `step()` uses it.

        Gradients that no backward pass has made ready are reduced now. Follow it by `step()` within
        `skip_synchronize()`. Raises HorovodInternalError when that fails, and then nothing is under way any more.
        """
        try:
            for batch in self._batches:
                if not batch.under_way and batch.expected():
                    self._reduce(batch)
            for batch in self._batches:
                for handle, gradients in batch.under_way:
                    if callable(handle):
                        outputs = [handle()]
                    else:
                        output = synchronize(handle)
                        outputs = [output] if len(gradients) == 1 else output
                    for gradient, output in zip(gradients, outputs, strict=True):
                        self._use(gradient, output)
        finally:
            self._start_over()
        self._synchronized = True

    def _use(self, gradient: Gradient, output: torch.Tensor) -> None:
        """`output`, what was sent for this gradient, reduced: usually it is the gradient, and was reduced in place."""
        grad = gradient.parameter.grad
        if not output.is_sparse:
            output = self._compression.decompress(output, gradient.context)
        if output is grad:
            return
        if grad is None:
            gradient.parameter.grad = output
        elif grad.is_sparse:
            gradient.parameter.grad = output if output.is_sparse else output.to_sparse(grad.sparse_dim())
        else:
            grad.copy_(output)

    def _start_over(self) -> None:
        super()._start_over()
        for batch in self._batches:
            for handle, _ in batch.under_way:
                if not callable(handle):
                    forget(handle)
            batch.under_way.clear()
            batch.waiting = len(batch.gradients)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """As that of the script's optimizer. What is being reduced is forgotten."""
        self._synchronized = False
        self._should_synchronize = True
        super().load_state_dict(*args, **kwargs)

    @contextmanager
    def skip_synchronize(self) -> Iterator[None]:
        """`step()` within this block does not reduce gradients, because `synchronize()` was called before:

        ```
        optimizer.synchronize()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        with optimizer.skip_synchronize():
            optimizer.step()
        ```
        """
        self._should_synchronize = False
        try:
            yield
        finally:
            self._should_synchronize = True

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Wait for all gradients, then the step of the script's optimizer; what that returns.

        With a closure, its gradients are reduced each time that the optimizer has called it.
        """
        if self._should_synchronize:
            if self._synchronized:
                warnings.warn(
                    "optimizer.step() called without optimizer.skip_synchronize() context after "
                    "optimizer.synchronize(): gradients are reduced a second time. Call it within "
                    "`with optimizer.skip_synchronize():`",
                    stacklevel=2,
                )
            if closure is None:
                self.synchronize()
            else:
                closure = self._reducing(closure)
        self._synchronized = False
        return super().step() if closure is None else super().step(closure)

    # torch would have its hooks run around this method too, before the gradients are reduced, and then once more.
    step.hooked = True  # type: ignore[attr-defined]

    def _reducing(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        def reduced() -> Any:
            loss = closure()
            self.synchronize()
            self._synchronized = False
            return loss

        return reduced

    def _settings(self) -> dict[str, Any]:
        groups = (
            None if self._groups is None else [[one.parameter for one in batch.gradients] for batch in self._batches]
        )
        return {
            "named_parameters": [(name, parameter) for parameter, name in self._parameter_names.items()],
            "compression": self._compression,
            "backward_passes_per_step": self.backward_passes_per_step,
            "op": self.op,
            "gradient_predivide_factor": self.gradient_predivide_factor,
            "groups": groups,
            "sparse_as_dense": self.sparse_as_dense,
            "process_set": None if self.process_set is global_process_set else self.process_set,
        }


def _neighbours_together(gradients: list[Gradient], limit_bytes: int) -> list[list[Gradient]]:
    """As DDP's buckets: announcing an operation takes longer than sending some bytes.

    Ranks may have them in another order, so neighbours are those by name.
    """
    made: list[list[Gradient]] = []
    open_ones: dict[tuple[torch.dtype, torch.device], tuple[list[Gradient], int]] = {}
    for gradient in sorted(gradients, key=lambda gradient: _as_counted(gradient.name)):
        parameter = gradient.parameter
        kind = parameter.dtype, parameter.device
        batch, nbytes = open_ones.get(kind, ([], 0))
        nbytes += parameter.nbytes
        if not batch or nbytes > limit_bytes:
            batch, nbytes = [], parameter.nbytes
            made.append(batch)
        batch.append(gradient)
        open_ones[kind] = batch, nbytes
    return made


def _as_counted(name: str) -> list[str | int]:
    """So that layers.2 comes before layers.10, as in backward, or nearly so."""
    return [int(part) if number % 2 else part for number, part in enumerate(re.split(r"(\d+)", name))]


def _refuse_strange_groups(groups: Any) -> None:
    if groups is None:
        return
    if not isinstance(groups, list):
        if not isinstance(groups, int) or groups <= 0:
            raise ValueError("groups should be a positive integer or a list of list of torch.Tensor.")
        return
    seen: set[torch.Tensor] = set()
    for parameter in (parameter for group in groups for parameter in group):
        if not isinstance(parameter, torch.Tensor):
            raise ValueError("groups must consist of torch.Tensor.")
        if parameter in seen:
            raise ValueError("A parameter can only appear once in groups.")
        seen.add(parameter)


def DistributedOptimizer(  # noqa: N802 - Horovod's name
    optimizer: torch.optim.Optimizer,
    named_parameters: Iterable[tuple[str, torch.Tensor]] | None = None,
    compression: Any = Compression.none,
    backward_passes_per_step: int = 1,
    op: int = Average,
    gradient_predivide_factor: float = 1.0,
    num_groups: int = 0,
    groups: int | list[list[torch.Tensor]] | None = None,
    sparse_as_dense: bool = False,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """`optimizer` such that `step()` uses gradients reduced over all ranks.

    They are reduced as soon as backward has computed each of them. What comes back is an object of a subclass of the
    optimizer's own class, with the same parameter groups, options and state, and `synchronize()`,
    `skip_synchronize()` and `set_backward_passes_per_step()` besides.

    `named_parameters`: usually `model.named_parameters()`; the names must be the same on all ranks. A parameter of
    which no gradient was computed counts as zero: another rank may have one. (A zero is dense: of a parameter with
    sparse gradients every rank must compute one, unless `sparse_as_dense`.)
    `compression`: `Compression.fp16` sends half of the bytes.
    `backward_passes_per_step`: gradients of so many are accumulated before they are reduced.
    `op`: Average, Sum, Adasum or another. Adasum makes an optimizer that combines the ranks' steps, not gradients.
    `gradient_predivide_factor`: an average divides by it before the sum, and by size / factor after it.
    `groups`: in how many operations gradients travel, or lists of parameters that travel together; those in no list
    travel alone. Not needed for speed: without it, small ones travel together, unless HOROVOD_FUSION_THRESHOLD is 0.
    `sparse_as_dense`: sparse gradients are reduced as dense ones, and made sparse again.
    `process_set`: whose gradients are reduced; other ranks keep their own.

    Raises ValueError for what cannot be meant, also before `init()`; NotImplementedError for Adasum of a process set.
    """
    if gradient_predivide_factor != 1.0 and op != Average:
        raise ValueError("gradient_predivide_factor not supported with op != Average")
    if num_groups != 0:
        warnings.warn("Parameter `num_groups` has been replaced by `groups`", DeprecationWarning, stacklevel=2)
        groups = num_groups if groups is None else groups
    if backward_passes_per_step <= 0:
        raise ValueError("backward_passes_per_step must be > 0")
    if op != Adasum or size() == 1:
        made = wrapped(_DistributedOptimizer, optimizer)
        made._distribute(
            named_parameters, compression, backward_passes_per_step, op, gradient_predivide_factor, groups,
            sparse_as_dense, process_set,
        )  # fmt: skip
        return made
    if process_set != global_process_set:
        raise NotImplementedError("Adasum does not support non-global process sets yet.")
    adasum = wrapped(_DistributedAdasumOptimizer, optimizer)
    adasum._distribute(named_parameters, compression, backward_passes_per_step)
    return adasum
