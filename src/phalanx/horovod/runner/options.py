"""Every option of Horovod's `horovodrun`: its names, what carries it to the workers, and what can mean nothing here.

A table for the command line to draw and for `settings` to read; knows nothing of terminals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.foundation import UsageError
from phalanx.horovod.variables import WITHOUT_EFFECT

Kind = type[int] | type[float] | type[str] | type[bool]

LOG_LEVELS = ("TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "FATAL")

_ITSELF = WITHOUT_EFFECT["HOROVOD_HIERARCHICAL_ALLREDUCE"]
_UNTUNED = WITHOUT_EFFECT["HOROVOD_AUTOTUNE"]
_NO_MPI = WITHOUT_EFFECT["HOROVOD_MPI_THREADS_DISABLE"]
_NO_CACHE = WITHOUT_EFFECT["HOROVOD_CACHE_CAPACITY"]
_IDLE = WITHOUT_EFFECT["HOROVOD_THREAD_AFFINITY"]
_STREAMS = WITHOUT_EFFECT["HOROVOD_NUM_NCCL_STREAMS"]


@dataclass(frozen=True)
class Option:
    """`names`: as typed, empty: made of `name`; `off`: those that mean the opposite. `kind`: bool takes no value.

    `variable`: what tells the workers. `idle`: why it can mean nothing here. `count`: how many values it takes.
    `least`, `most`: of a number. `several`: it may be given more than once.
    """

    name: str
    kind: Kind
    help: str
    variable: str = ""
    names: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    idle: str = ""
    choices: tuple[str, ...] = ()
    several: bool = False
    count: int = 1
    least: float = 0
    most: float = float("inf")

    @property
    def typed(self) -> tuple[str, ...]:
        return self.names or (f"--{self.name.replace('_', '-')}",)


SECTIONS: Mapping[str, tuple[Option, ...]] = {
    "Job": (
        Option(
            "num_proc",
            int,
            "Number of processes; of an elastic job, to begin with.",
            names=("-np", "--num-proc"),
            least=1,
        ),
        Option("verbose", bool, "Say what is done."),
        Option("check_build", bool, "Show what this build can do, and exit.", names=("-cb", "--check-build")),
        Option("config_file", str, "YAML file of options; those on the command line come first."),
        Option(
            "start_timeout",
            int,
            "Seconds for all processes to be started; hvd.init() has --gloo-timeout-seconds.  "
            "[default: $HOROVOD_START_TIMEOUT, else 30]",
            least=1,
        ),
        Option("output_filename", str, "Directory for what each rank writes, too: rank.N/stdout and rank.N/stderr."),
        Option(
            "nics",
            str,
            "Interfaces to communicate by, such as eth0 or eth0,eth1.",
            names=("--network-interfaces", "--network-interface"),
            several=True,
        ),
        Option("disable_cache", bool, "Check every host each time, as is done here anyway."),
    ),
    "Hosts": (
        Option(
            "hosts", str, "Such as worker-0:2,worker-1:4.  [default: localhost, -np slots]", names=("-H", "--hosts")
        ),
        Option("hostfile", str, "File with lines such as `worker-0 slots=2`.", names=("-hostfile", "--hostfile")),
        Option(
            "host_discovery_script", str, "Program that prints `host` or `host:slots` a line; makes the job elastic."
        ),
        Option("ssh_port", int, "Port of sshd on all hosts.", names=("-p", "--ssh-port")),
        Option("ssh_identity_file", str, "File of the private key.", names=("-i", "--ssh-identity-file")),
    ),
    "Elastic": (
        Option(
            "min_num_proc",
            int,
            "The job goes on while it has so many processes; makes it elastic.  [default: -np]",
            names=("--min-np", "--min-num-proc"),
            least=1,
        ),
        Option("max_num_proc", int, "No more processes than these.", names=("--max-np", "--max-num-proc"), least=1),
        Option("slots", int, "Slots of a host for which the script names none.", names=("--slots-per-host",), least=1),
        Option("elastic_timeout", int, "Seconds to wait for processes.  [default: $HOROVOD_ELASTIC_TIMEOUT, else 600]"),
        Option("reset_limit", int, "How many times the processes may change before the job is ended."),
        Option(
            "cooldown_range",
            int,
            "Least and most seconds for which a host that fails is left out.",
            names=("--blacklist-cooldown-range",),
            count=2,
        ),
    ),
    "Performance": (
        Option(
            "fusion_threshold_mb",
            int,
            "MiB of tensors that become one operation; 0: each is one of its own.  [default: 128]",
            "HOROVOD_FUSION_THRESHOLD",
        ),
        Option(
            "cycle_time_ms",
            float,
            "Milliseconds to wait for more tensors to join an operation.  [default: 5]",
            "HOROVOD_CYCLE_TIME",
        ),
        Option("cache_capacity", int, "Names of tensors to keep.", "HOROVOD_CACHE_CAPACITY", idle=_NO_CACHE),
        Option(
            "hierarchical_allreduce",
            bool,
            "Sum within each host, then between hosts.",
            "HOROVOD_HIERARCHICAL_ALLREDUCE",
            off=("--no-hierarchical-allreduce",),
            idle=_ITSELF,
        ),
        Option(
            "hierarchical_allgather",
            bool,
            "Gather within each host, then between hosts.",
            "HOROVOD_HIERARCHICAL_ALLGATHER",
            off=("--no-hierarchical-allgather",),
            idle=_ITSELF,
        ),
        Option(
            "torus_allreduce",
            bool,
            "Sum in two dimensions over NCCL.",
            "HOROVOD_TORUS_ALLREDUCE",
            off=("--no-torus-allreduce",),
            idle=_ITSELF,
        ),
    ),
    "Autotune": (
        Option("autotune", bool, "Look for fast values.", "HOROVOD_AUTOTUNE", off=("--no-autotune",), idle=_UNTUNED),
        Option("autotune_log_file", str, "Where each trial is written.", "HOROVOD_AUTOTUNE_LOG", idle=_UNTUNED),
        Option("autotune_warmup_samples", int, "Left out first.", "HOROVOD_AUTOTUNE_WARMUP_SAMPLES", idle=_UNTUNED),
        Option("autotune_steps_per_sample", int, "Of a sample.", "HOROVOD_AUTOTUNE_STEPS_PER_SAMPLE", idle=_UNTUNED),
        Option(
            "autotune_bayes_opt_max_samples",
            int,
            "Samples at most.",
            "HOROVOD_AUTOTUNE_BAYES_OPT_MAX_SAMPLES",
            idle=_UNTUNED,
        ),
        Option(
            "autotune_gaussian_process_noise",
            float,
            "Noise of samples, from 0 to 1.",
            "HOROVOD_AUTOTUNE_GAUSSIAN_PROCESS_NOISE",
            idle=_UNTUNED,
            most=1,
        ),
    ),
    "Timeline": (
        Option("timeline_filename", str, "File for what was done when, for chrome://tracing.", "HOROVOD_TIMELINE"),
        Option(
            "timeline_mark_cycles",
            bool,
            "Mark each cycle in it.",
            "HOROVOD_TIMELINE_MARK_CYCLES",
            off=("--no-timeline-mark-cycles",),
        ),
    ),
    "Stalls": (
        Option(
            "no_stall_check",
            bool,
            "Do not warn when some ranks wait for others.",
            "HOROVOD_STALL_CHECK_DISABLE",
            off=("--stall-check",),
        ),
        Option(
            "stall_check_warning_time_seconds",
            int,
            "Seconds of waiting until the warning.  [default: 60]",
            "HOROVOD_STALL_CHECK_TIME_SECONDS",
        ),
        Option(
            "stall_check_shutdown_time_seconds",
            int,
            "Seconds of waiting until the job is ended; 0: never.  [default: 0]",
            "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS",
        ),
    ),
    "Libraries": (
        Option(
            "gloo_timeout_seconds",
            int,
            "Seconds for which hvd.init() waits for the other ranks.  "
            "[default: $HOROVOD_GLOO_TIMEOUT_SECONDS, else 60]",
            "HOROVOD_GLOO_TIMEOUT_SECONDS",
        ),
        Option("tcp_flag", bool, "Communicate over TCP only.", "NCCL_IB_DISABLE", names=("--tcp",)),
        Option("thread_affinity", int, "Core to communicate on.", "HOROVOD_THREAD_AFFINITY", idle=_IDLE),
        Option("num_nccl_streams", int, "Streams of NCCL.", "HOROVOD_NUM_NCCL_STREAMS", idle=_STREAMS),
        Option(
            "mpi_threads_disable",
            bool,
            "Use MPI from one thread only.",
            "HOROVOD_MPI_THREADS_DISABLE",
            off=("--no-mpi-threads-disable",),
            idle=_NO_MPI,
        ),
        Option("mpi_args", str, "Further arguments of mpirun.", idle=_NO_MPI),
        Option("binding_args", str, "How mpirun binds processes.", idle=_NO_MPI),
    ),
    "Logging": (
        Option(
            "log_level",
            str,
            "What the workers say of their communication.  [default: WARNING]",
            "HOROVOD_LOG_LEVEL",
            choices=LOG_LEVELS,
        ),
        Option(
            "log_with_timestamp",
            bool,
            "Say when, too.",
            "HOROVOD_LOG_HIDE_TIME",
            names=("--log-with-timestamp", "--no-log-hide-timestamp"),
            off=("--log-without-timestamp", "--log-hide-timestamp"),
        ),
        Option(
            "prefix_output_with_timestamp",
            bool,
            "Begin each line that a rank writes with the time.",
            names=("-prefix-timestamp", "--prefix-output-with-timestamp"),
        ),
    ),
    "Controller": (
        Option("use_gloo", bool, "Coordinate without MPI, as is done here anyway.", names=("--gloo",)),
        Option("use_mpi", bool, "Coordinate through MPI.", names=("--mpi",), idle=_NO_MPI),
        Option("use_jsrun", bool, "Start processes with jsrun.", names=("--jsrun",), idle=_NO_MPI),
    ),
}

OPTIONS = {option.name: option for section in SECTIONS.values() for option in section}

# The sections of a configuration file, and the first word of an option that its key there may leave out.
_IN_CONFIG = {
    "params": ("Performance", ""),
    "autotune": ("Autotune", "autotune_"),
    "timeline": ("Timeline", "timeline_"),
    "stall_check": ("Stalls", "stall_check_"),
    "library_options": ("Libraries", ""),
    "logging": ("Logging", "log_"),
}


def checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are given, if they may be. Raises UsageError naming the option and what it takes."""
    given = {name: value for name, value in values.items() if value is not None and value != ()}
    for name, value in given.items():
        for each in value if isinstance(value, (tuple, list)) else (value,):
            _check(OPTIONS[name], each)
    return given


def variables(values: Mapping[str, Any]) -> dict[str, str]:
    """What tells the workers of the options that are given: HOROVOD_* and their values."""
    told = {option.variable: _told(option, values[name]) for name, option in OPTIONS.items() if name in values}
    if not values.get("autotune"):
        told = {name: value for name, value in told.items() if not name.startswith("HOROVOD_AUTOTUNE")}
    if not values.get("timeline_filename"):
        told = {name: value for name, value in told.items() if not name.startswith("HOROVOD_TIMELINE")}
    if not values.get("tcp_flag"):
        told.pop("NCCL_IB_DISABLE", None)
    told.pop("", None)
    return told


def without_effect(values: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each option that asks for something that can mean nothing here."""
    for name, value in values.items():
        option = OPTIONS[name]
        if option.idle and (option.kind is not bool or value):
            yield f"{option.typed[-1]} has no effect: {option.idle}"


def read_config_file(path: str) -> tuple[dict[str, Any], list[str]]:
    """The options in a YAML file of Horovod's, and a sentence for each line that means nothing. Raises UsageError."""
    from phalanx.job.document import load

    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"cannot be read: {reason}", where=path, remedy="check --config-file") from error
    document = load(text, path)
    found: dict[str, Any] = {}
    unknown = []
    for section, below in (document.value if isinstance(document.value, dict) else {}).items():
        for key, value in below.items() if isinstance(below, dict) else (("", below),):
            meant = _in_config(section, key, value)
            if meant is not None:
                found[meant[0]] = meant[1]
            else:
                line = document.line((section, key) if key else (section,))
                unknown.append(f"{path}:{line}: {section}{'.' * bool(key)}{key} is not known, and has no effect")
    return found, unknown


def _in_config(section: str, key: str, value: object) -> tuple[str, object] | None:
    """The option that `key: value` of a section of a configuration file is, and its value."""
    if section == "controller" and not key:
        return {"gloo": ("use_gloo", True), "mpi": ("use_mpi", True)}.get(str(value).lower())
    if key == "enabled" and section in ("autotune", "stall_check"):
        return ("autotune", value) if section == "autotune" else ("no_stall_check", not value)
    ours, prefix = _IN_CONFIG.get(section, ("", ""))
    name = next((option.name for option in SECTIONS.get(ours, ()) if option.name in (key, prefix + key)), None)
    return None if name is None else (name, value)


def _told(option: Option, value: Any) -> str:
    if option.name == "fusion_threshold_mb":
        return str(value << 20)
    if option.name == "log_with_timestamp":
        return str(int(not value))
    return str(int(value) if option.kind is bool else value)


def _check(option: Option, value: object) -> None:
    kinds: dict[Kind, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    fits: tuple[type, ...] = (int, float) if option.kind is float else (option.kind,)
    allowed = ""
    if not isinstance(value, fits) or (isinstance(value, bool) and option.kind is not bool):
        allowed = kinds[option.kind]
    elif option.choices and value not in option.choices:
        allowed = f"one of {', '.join(option.choices)}"
    elif isinstance(value, (int, float)) and not option.least <= value <= option.most:
        allowed = f"{option.least:g} or more" if option.most == float("inf") else f"{option.least:g} to {option.most:g}"
    if allowed:
        raise UsageError(f"{option.typed[-1]} is {value!r}", remedy=f"give {allowed}")
