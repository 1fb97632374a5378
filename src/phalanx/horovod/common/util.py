"""What Horovod's scripts and tests import from `horovod.common.util`. Loads torch only where an answer needs it."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import os
import sysconfig
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from phalanx.horovod.common.basics import HorovodBasics

T = TypeVar("T")

_FRAMEWORKS = ("torch",)  # that there is a `horovod.<framework>` for

_cache = functools.cache


# What this build can do. `verbose` is Horovod's: it compiles, and can say what went wrong.


def extension_available(ext_base_name: str, verbose: bool = False) -> bool:
    """Whether `horovod.<ext_base_name>` can be used: "torch", where PyTorch is installed."""
    return ext_base_name in _FRAMEWORKS and importlib.util.find_spec(ext_base_name) is not None


def check_extension(ext_name: str, ext_env_var: str, pkg_path: str, *args: str) -> None:
    """Raises ImportError unless `ext_name` ("horovod.torch") can be used.

    The other arguments say where Horovod's compiled file would be, and how to have it built.
    """
    framework = ext_name.rpartition(".")[2]
    if framework not in _FRAMEWORKS:
        raise ImportError(f"Extension {ext_name} has not been built: Phalanx has Horovod for PyTorch only")
    if not extension_available(framework):
        raise ImportError(f"Extension {ext_name} cannot be used: {framework} is not installed")


def get_ext_suffix() -> str:
    """How the file of a compiled module ends."""
    return str(sysconfig.get_config_var("EXT_SUFFIX") or ".so")


def get_extension_full_path(pkg_path: str, *args: str) -> str:
    """Of a compiled module `args` (folders, then a name) beside the file `pkg_path`."""
    return os.path.join(os.path.dirname(pkg_path), *args) + get_ext_suffix()


@_cache
def gpu_available(ext_base_name: str, verbose: bool = False) -> bool:
    """Whether the framework sees a GPU."""
    if not extension_available(ext_base_name):
        return False
    import torch

    return torch.cuda.is_available()


def mpi_built(verbose: bool = False) -> bool:
    """False: nothing goes through MPI."""
    return _basics().mpi_built()


def gloo_built(verbose: bool = False) -> bool:
    """True."""
    return _basics().gloo_built()


def nccl_built(verbose: bool = False) -> int:
    """The version code of NCCL; 0 without."""
    return _basics().nccl_built()


def ddl_built(verbose: bool = False) -> bool:
    """False."""
    return _basics().ddl_built()


def ccl_built(verbose: bool = False) -> bool:
    """False."""
    return _basics().ccl_built()


def _basics() -> HorovodBasics:
    from phalanx.horovod.common.basics import basics

    return basics


# Small helpers


@contextmanager
def env(**kwargs: str | None) -> Iterator[None]:
    """These variables in the environment for as long as the block lasts; None leaves one as it is."""
    wanted = {name: value for name, value in kwargs.items() if value is not None}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def get_average_backwards_compatibility_fun(reduce_ops: Any) -> Callable[[int | None, bool | None], int]:
    """The function (op, average) -> op, where `average` is how scripts before Horovod 0.19 said it.

    `reduce_ops` has Average and Sum. The function raises ValueError when both are given.
    """

    def chosen(op: int | None, average: bool | None) -> int:
        if average is None:
            return int(reduce_ops.Average) if op is None else op
        if op is not None:
            raise ValueError("The op parameter supersedes average. Please provide only one of them.")
        warnings.warn("`average` is deprecated: say `op`, as in op=hvd.Sum", DeprecationWarning, stacklevel=3)
        return int(reduce_ops.Average if average else reduce_ops.Sum)

    return chosen


def num_rank_is_power_2(num_rank: int) -> bool:
    """Whether `num_rank` is 1, 2, 4, 8 and so on, as Adasum needs it."""
    return num_rank > 0 and num_rank.bit_count() == 1


def split_list(l: Sequence[T], n: int) -> list[Sequence[T]]:  # noqa: E741 - Horovod's name for it
    """`l` in `n` consecutive pieces; the first ones have one more where it does not divide, the last may be empty."""
    each, more = divmod(len(l), n)
    starts = [piece * each + min(piece, more) for piece in range(n + 1)]
    return [l[start:end] for start, end in itertools.pairwise(starts)]


def is_iterable(x: object) -> bool:
    """Whether `iter` takes it."""
    try:
        iter(x)  # type: ignore[call-overload]
    except TypeError:
        return False
    return True


@_cache
def is_version_greater_equal_than(ver: str, target: str) -> bool:
    """Whether version `ver` is `target` (of the form 1.2.3) or later. Raises ValueError for what is none."""
    if any(not isinstance(version, str) for version in (ver, target)):
        raise ValueError(f"This function only accepts string arguments, not {ver!r} and {target!r}")
    if target.count(".") != 2:
        raise ValueError(f"target must be of the form major.minor.patch, and is {target!r}")
    from torch.torch_version import TorchVersion

    return bool(TorchVersion(ver) >= TorchVersion(target))
