"""What a job is asked to be, from the options that were given: one value for the launcher to go by."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phalanx.foundation import UsageError
from phalanx.horovod.runner.hosts import HostSlots, parse_hostfile, parse_hosts
from phalanx.horovod.runner.options import variables
from phalanx.horovod.runner.spawn import Ssh
from phalanx.horovod.variables import Variables

START_TIMEOUT_S = 30
ELASTIC_TIMEOUT_S = 600
_CONNECT_TIMEOUT_S = 10


@dataclass(frozen=True)
class Settings:
    """`hosts`: empty where a script discovers them. `variables`: what the options tell the workers.

    `output`: a directory for what they write, too. `timestamps`: of their lines. None in what is elastic: no limit.
    """

    num_proc: int
    hosts: tuple[HostSlots, ...] = ()
    ssh: Ssh = field(default_factory=Ssh)
    start_timeout_s: float = START_TIMEOUT_S
    interfaces: tuple[str, ...] = ()
    output: Path | None = None
    timestamps: bool = False
    verbose: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    discovery_script: str | None = None
    min_num_proc: int | None = None
    max_num_proc: int | None = None
    slots: int | None = None
    elastic_timeout_s: float = ELASTIC_TIMEOUT_S
    reset_limit: int | None = None
    cooldown_range: tuple[int, int] | None = None

    @property
    def elastic(self) -> bool:
        """Whether processes may come and go."""
        return self.discovery_script is not None or self.min_num_proc is not None


def settle(values: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """The job of the options `values`, by their names in `options`; `environment` has the defaults of two timeouts.

    Raises UsageError, also for a variable that would be refused by every process of the job.
    """
    told = variables(values)
    Variables.from_environment({**environment, **told})
    if values.get("hosts") and values.get("hostfile"):
        raise UsageError("-H and --hostfile both name hosts", remedy="give one of them")
    size = values.get("num_proc")
    if size is None:
        raise UsageError("it is not said how many processes to start", remedy="give -np, such as -np 2")
    _refuse_small_limit(size, values.get("min_num_proc"), values.get("max_num_proc"))
    start_timeout_s = _seconds(values.get("start_timeout"), "HOROVOD_START_TIMEOUT", environment, START_TIMEOUT_S)
    cooldown = values.get("cooldown_range")
    return Settings(
        num_proc=size,
        hosts=_hosts(values, size),
        ssh=Ssh(
            values.get("ssh_port"),
            values.get("ssh_identity_file"),
            max(1, min(_CONNECT_TIMEOUT_S, int(start_timeout_s))),
        ),
        start_timeout_s=start_timeout_s,
        interfaces=tuple(name.strip() for text in values.get("nics") or () for name in text.split(",") if name.strip()),
        output=Path(values["output_filename"]).absolute() if values.get("output_filename") else None,
        timestamps=bool(values.get("prefix_output_with_timestamp")),
        verbose=bool(values.get("verbose")),
        variables=told,
        discovery_script=values.get("host_discovery_script"),
        min_num_proc=values.get("min_num_proc"),
        max_num_proc=values.get("max_num_proc"),
        slots=values.get("slots"),
        elastic_timeout_s=_seconds(
            values.get("elastic_timeout"), "HOROVOD_ELASTIC_TIMEOUT", environment, ELASTIC_TIMEOUT_S
        ),
        reset_limit=values.get("reset_limit"),
        cooldown_range=(cooldown[0], cooldown[1]) if cooldown else None,
    )


def _refuse_small_limit(size: int, least: int | None, most: int | None) -> None:
    if most is not None and most < max(size, least or 0):
        larger = f"-np {size}" if size > most else f"--min-np {least}"
        raise UsageError(f"--max-np {most} is less than {larger}", remedy="give --min-np <= -np <= --max-np")


def _hosts(values: Mapping[str, Any], size: int) -> tuple[HostSlots, ...]:
    if values.get("hosts"):
        return tuple(parse_hosts(values["hosts"]))
    if values.get("hostfile"):
        return tuple(parse_hostfile(values["hostfile"]))
    return () if values.get("host_discovery_script") else (HostSlots("localhost", size),)


def _seconds(given: float | None, variable: str, environment: Mapping[str, str], default: float) -> float:
    text = environment.get(variable)
    if given is not None or not text:
        return default if given is None else given
    with contextlib.suppress(ValueError):
        if 0 <= (seconds := float(text)) < float("inf"):
            return seconds
    raise UsageError(f"{variable} is {text!r}", remedy="set it to a number of seconds")
