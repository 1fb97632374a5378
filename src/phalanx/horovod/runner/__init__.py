"""Starts the processes of a Horovod job: here, and over ssh on other hosts. Loads no torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Result = TypeVar("Result")


def run(
    func: Callable[..., Result],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    num_proc: int = 1,
    min_num_proc: int | None = None,
    max_num_proc: int | None = None,
    slots: int | None = None,
    reset_limit: int | None = None,
    cooldown_range: tuple[int, int] | None = None,
    hosts: str | None = None,
    hostfile: str | None = None,
    host_discovery_script: str | None = None,
    start_timeout: int | None = None,
    ssh_port: int | None = None,
    ssh_identity_file: str | None = None,
    disable_cache: bool | None = None,
    output_filename: str | None = None,
    verbose: int | None = None,
    use_gloo: bool | None = None,
    use_mpi: bool | None = None,
    mpi_args: str | None = None,
    network_interface: str | None = None,
    network_interfaces: Sequence[str] | None = None,
    executable: str | None = None,
    np: int | None = None,
    min_np: int | None = None,
    max_np: int | None = None,
) -> list[Result]:
    """Call `func(*args, **kwargs)` in every process of a new job, and return what each returned, by rank.

    The options are those of `phalanx horovodrun`; `np`, `min_np`, `max_np` and `network_interface` are old names.
    `executable`: the Python of the processes, ours by default. `func`, its arguments and what it returns must be
    picklable by cloudpickle. Of an elastic job the first `min_num_proc` results.
    Raises a RuntimeError (`calls.CallFailed`) with the traceback of the first rank on which `func` raised, and
    (`launch.WorkerFailed`) for the first process that ended otherwise; ValueError for two arguments that exclude each
    other, UsageError (of `phalanx.foundation`) for another that cannot be meant.
    """
    from phalanx.horovod.runner.calls import run_function

    if hosts is not None and hostfile is not None:
        raise ValueError("hosts and hostfile both name hosts: give one of them")
    if use_gloo and use_mpi:
        raise ValueError("use_gloo and use_mpi exclude each other: give one of them")
    old = {"np": np, "min_np": min_np, "max_np": max_np, "network_interface": network_interface}
    for name, value in old.items():
        if value is not None:
            new = {"np": "num_proc", "min_np": "min_num_proc", "max_np": "max_num_proc"}.get(name, "network_interfaces")
            warnings.warn(f"{name} is an old name: use {new}", DeprecationWarning, stacklevel=2)
    options = {
        "num_proc": num_proc if np is None else np,
        "min_num_proc": min_num_proc if min_np is None else min_np,
        "max_num_proc": max_num_proc if max_np is None else max_np,
        "slots": slots,
        "reset_limit": reset_limit,
        "cooldown_range": cooldown_range,
        "hosts": hosts,
        "hostfile": hostfile,
        "host_discovery_script": host_discovery_script,
        "start_timeout": start_timeout,
        "ssh_port": ssh_port,
        "ssh_identity_file": ssh_identity_file,
        "disable_cache": bool(disable_cache),
        "output_filename": output_filename,
        "verbose": bool(verbose),
        "use_gloo": bool(use_gloo),
        "use_mpi": bool(use_mpi),
        "mpi_args": mpi_args,
        "nics": tuple(network_interfaces or filter(None, [network_interface])),
    }

    def function() -> Result:
        return func(*args, **(kwargs or {}))

    return run_function(function, options, executable)
