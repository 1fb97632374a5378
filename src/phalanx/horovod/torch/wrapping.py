"""What both distributed optimizers are made of: the script's own optimizer under another class, hooks on parameters.

A hook counts backward passes, and says when a gradient is ready; what is done with it then, the optimizers know.
"""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from torch.optim import Optimizer as Base
else:
    Base = object  # the script's class, which comes after these in the order of its methods

Kind = TypeVar("Kind", bound="Distributed")


class Gradient:
    """That of one parameter: `left` backward passes until it is ready. The rest is the optimizer's."""

    __slots__ = ("batch", "context", "group", "handle", "left", "name", "parameter", "required", "start")

    batch: Any
    context: Any
    handle: Any
    start: torch.Tensor

    def __init__(self, parameter: torch.Tensor, name: str, group: int, left: int) -> None:
        self.parameter = parameter
        self.name = name
        self.group = group
        self.left = left
        self.required = parameter.requires_grad  # when it was wrapped: then every rank counts on it
        self.handle = None


class Distributed(Base):
    """Methods that come before those of the script's optimizer, whose metaclass it must not change: it is no ABC."""

    backward_passes_per_step: int
    _compression: Any
    _parameter_names: dict[torch.Tensor, str]
    _gradients: list[Gradient]
    _counted: bool  # a backward pass, since gradients were last waited for

    def _begin_to_watch(
        self, named_parameters: Iterable[tuple[str, torch.Tensor]] | None, passes: int, compression: Any
    ) -> None:
        self._parameter_names = names_of(self.param_groups, named_parameters)
        self.backward_passes_per_step = passes
        self._compression = compression
        self._gradients = []
        self._counted = False
        self._gradient_hooks: list[Any] = []
        weakref.finalize(self, _remove, self._gradient_hooks).atexit = False

    def _watch(self, group: int) -> list[Gradient]:
        """Those of this parameter group from now on."""
        made = [
            Gradient(parameter, self._parameter_names[parameter], group, self.backward_passes_per_step)
            for parameter in self.param_groups[group]["params"]
        ]
        for gradient in made:
            if gradient.parameter.is_floating_point() or gradient.parameter.is_complex():
                self._gradient_hooks.append(_hook(gradient, self._one_more_pass))
        self._gradients += made
        return made

    def _one_more_pass(self, gradient: Gradient) -> None:
        """Runs in backward, as soon as the gradient of one parameter has been accumulated."""
        if gradient.left <= 0:
            raise AssertionError(
                f"the gradient of {gradient.name} was computed more than backward_passes_per_step="
                f"{self.backward_passes_per_step} times before step(). Increase backward_passes_per_step to "
                "accumulate gradients locally."
            )
        assert not gradient.parameter.grad.requires_grad, f"the gradient of {gradient.name} is itself to be derived"  # type: ignore[union-attr]
        self._counted = True
        gradient.left -= 1
        if gradient.left == 0:
            self._ready(gradient)

    @abstractmethod
    def _ready(self, gradient: Gradient) -> None:
        """All backward passes for it are done."""

    def _start_over(self) -> None:
        """As before the first backward pass: nothing is under way."""
        self._counted = False
        for gradient in self._gradients:
            gradient.left = self.backward_passes_per_step
            gradient.handle = None

    def set_backward_passes_per_step(self, passes: int) -> None:
        """How many backward passes there will be before each `step()` from now on."""
        self.backward_passes_per_step = passes
        for gradient in self._gradients:
            if gradient.left > 0:
                gradient.left = passes

    def zero_grad(self, *args: Any, **kwargs: Any) -> None:
        """Raises AssertionError between backward() and step() or synchronize(): gradients are then being reduced."""
        if self._counted:
            raise AssertionError(
                "optimizer.zero_grad() was called after loss.backward(), but before optimizer.step() or "
                "optimizer.synchronize(): gradients that are being reduced would be overwritten."
            )
        super().zero_grad(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """As that of the script's optimizer. What is being reduced is forgotten."""
        self._start_over()
        super().load_state_dict(*args, **kwargs)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As that of the script's optimizer; every rank adds the same."""
        super().add_param_group(param_group)
        group = len(self.param_groups) - 1
        for place, parameter in enumerate(self.param_groups[group]["params"]):
            self._parameter_names.setdefault(parameter, _without_name(group, place))
        self._add(group)

    @abstractmethod
    def _distribute(self, *args: Any, **kwargs: Any) -> None:
        """In the place of `__init__`, which was the script's own: `_begin_to_watch`, then `_watch` each group."""

    @abstractmethod
    def _settings(self) -> dict[str, Any]:
        """Arguments of `_distribute` that make such an optimizer again."""

    @abstractmethod
    def _add(self, group: int) -> None:
        """This parameter group is new."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled as the script's own optimizer, which is wrapped again where it comes to life."""
        kind, script = type(self).__bases__
        return _again, (kind, script, self.__getstate__(), self._settings())


def wrapped(kind: type[Kind], optimizer: Base) -> Kind:
    """`optimizer` with the methods of `kind` before its own.

    It keeps all of it: state, options, hooks. Parameter groups are the very same, so that a learning-rate schedule
    of the one is one of the other. Raises ValueError for one that is distributed already, TypeError for none.
    """
    if not hasattr(optimizer, "param_groups"):
        raise TypeError(f"an optimizer of torch is wanted, not {optimizer!r:.60} ({type(optimizer).__name__})")
    if isinstance(optimizer, Distributed):
        raise ValueError("this optimizer is a DistributedOptimizer already")
    script = type(optimizer)
    made: Any = object.__new__(type(script.__name__, (kind, script), {"__module__": kind.__module__}))
    made.__dict__.update(vars(optimizer))
    made.__dict__.pop("step", None)  # a schedule has put the other's there
    made.param_groups = list(optimizer.param_groups)
    return made  # type: ignore[no-any-return]


def names_of(
    groups: list[dict[str, Any]], named_parameters: Iterable[tuple[str, torch.Tensor]] | None
) -> dict[torch.Tensor, str]:
    """What each parameter is called, the same on all ranks. Raises ValueError for names that will not do."""
    all_parameters = {
        parameter: _without_name(group, place)
        for group, options in enumerate(groups)
        for place, parameter in enumerate(options["params"])
    }
    if named_parameters is None:
        return all_parameters
    named = list(named_parameters)
    if any(not isinstance(pair, tuple) for pair in named):
        raise ValueError(
            "named_parameters should be a sequence of tuples (name, parameter), usually produced by "
            "model.named_parameters()"
        )
    twice = [name for name, count in Counter(name for name, _ in named).items() if count > 1]
    if twice:
        raise ValueError(f"Parameter names in named_parameters must be unique. Found duplicates: {', '.join(twice)}")
    names = {parameter: name for name, parameter in named}
    nameless = [parameter for parameter in all_parameters if parameter not in names]
    if nameless:
        shapes = ", ".join(str(tuple(parameter.shape)) for parameter in nameless)
        raise ValueError(
            "named_parameters was specified, but one or more parameters of the optimizer were not named: "
            f"{len(nameless)} of {len(all_parameters)}, of shapes {shapes}"
        )
    return names


def _without_name(group: int, place: int) -> str:
    return f"allreduce.noname.{group}.{place}"


def _hook(gradient: Gradient, method: Callable[[Gradient], None]) -> Any:
    """Call `method` when the gradient has been accumulated, as long as its object lives.

    Also of a parameter that is frozen now, for when it is not.
    """
    parameter, of_owner = gradient.parameter, weakref.WeakMethod(method)

    def accumulated(_: torch.Tensor) -> None:
        call = of_owner()
        if call is not None:
            call(gradient)

    parameter.requires_grad_(True)
    handle = parameter.register_post_accumulate_grad_hook(accumulated)  # type: ignore[no-untyped-call]
    parameter.requires_grad_(gradient.required)
    return handle


def _remove(hooks: list[Any]) -> None:
    """So that parameters, which keep their hooks, can be wrapped again."""
    for hook in hooks:
        hook.remove()


def _again(kind: type[Distributed], script: type[Base], state: Mapping[str, Any], settings: dict[str, Any]) -> Any:
    optimizer: Any = object.__new__(script)
    optimizer.__setstate__(state)
    made = wrapped(kind, optimizer)
    made._distribute(**settings)
    return made
