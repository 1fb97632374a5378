"""The HOROVOD_* variables of the environment: read and checked at once; and why some of them can mean nothing here.

Who a process is (HOROVOD_RANK and its like) is told by launchers, and no setting: `collectives.launchers` reads that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from phalanx.foundation import UsageError
from phalanx.horovod.stall import Stalls

LOG_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}

_ITSELF = "the way of an operation follows from where the ranks are"
_UNTUNED = "Phalanx does not tune itself while a job runs"
_NO_MPI = "nothing here goes through MPI"
_ONE_WAY = "there is one way: shared memory on a host, gloo and NCCL between hosts"
_AS_IT_IS = ("", "0", "gloo")  # asks for nothing, or for what launchers ask for anyway

WITHOUT_EFFECT: Mapping[str, str] = {
    "HOROVOD_ADASUM_MPI_CHUNK_SIZE": _NO_MPI,
    "HOROVOD_AUTOTUNE": _UNTUNED,
    "HOROVOD_AUTOTUNE_BAYES_OPT_MAX_SAMPLES": _UNTUNED,
    "HOROVOD_AUTOTUNE_GAUSSIAN_PROCESS_NOISE": _UNTUNED,
    "HOROVOD_AUTOTUNE_LOG": _UNTUNED,
    "HOROVOD_AUTOTUNE_STEPS_PER_SAMPLE": _UNTUNED,
    "HOROVOD_AUTOTUNE_WARMUP_SAMPLES": _UNTUNED,
    "HOROVOD_BATCH_D2D_MEMCOPIES": "torch copies what is on GPUs",
    "HOROVOD_CACHE_CAPACITY": "operations are agreed on without a cache of names",
    "HOROVOD_CCL_CACHE": "nothing here goes through oneCCL",
    "HOROVOD_CONTROLLER": _ONE_WAY,
    "HOROVOD_CPU_OPERATIONS": _ONE_WAY,
    "HOROVOD_DISABLE_GROUP_FUSION": "a grouped operation is always one of its own",
    "HOROVOD_DISABLE_NVTX_RANGES": "nothing is marked for Nsight",
    "HOROVOD_ENABLE_ASYNC_COMPLETION": "operations are always asynchronous",
    "HOROVOD_ENABLE_XLA_OPS": "there is no TensorFlow here",
    "HOROVOD_HIERARCHICAL_ALLGATHER": _ITSELF,
    "HOROVOD_HIERARCHICAL_ALLREDUCE": _ITSELF,
    "HOROVOD_MPI_THREADS_DISABLE": _NO_MPI,
    "HOROVOD_NUM_NCCL_STREAMS": "torch chooses NCCL's streams",
    "HOROVOD_THREAD_AFFINITY": "the thread that communicates computes nothing, and needs no core of its own",
    "HOROVOD_TORUS_ALLREDUCE": _ITSELF,
}


@dataclass(frozen=True)
class Variables:
    """Those that mean something, with Horovod's defaults, but for the cycle: nobody who waits waits for its end here.

    `fusion_threshold`: bytes of tensors that become one operation at most; `cycle_time_ms`: how long one waits for
    others to join it. `timeline`: a file's path, "" for none, "DYNAMIC" for one that `start_timeline` names.
    `stall_warn_s`: None for no looking. `gloo_timeout_s`: for ranks to find each other; None: not said.
    `gloo_interface`: by which hosts reach this one; "": not said.
    """

    fusion_threshold: int = 128 << 20
    cycle_time_ms: float = 5.0
    timeline: str = ""
    timeline_mark_cycles: bool = False
    stall_warn_s: float | None = 60.0
    stall_shutdown_s: float = 0.0
    log_level: int = logging.WARNING
    log_hide_time: bool = False
    dynamic_process_sets: bool = False
    elastic: bool = False
    gloo_timeout_s: float | None = None
    gloo_interface: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Variables:
        """A truth is a number, above 0 for yes; an empty value is none. Raises UsageError naming what is wrong."""
        read = _Reader(environment)
        looks = not read.truth("HOROVOD_STALL_CHECK_DISABLE")
        warn_s = read.number("HOROVOD_STALL_CHECK_TIME_SECONDS", 60.0)
        return cls(
            fusion_threshold=read.whole("HOROVOD_FUSION_THRESHOLD", 128 << 20),
            cycle_time_ms=read.number("HOROVOD_CYCLE_TIME", 5.0),
            timeline=environment.get("HOROVOD_TIMELINE", ""),
            timeline_mark_cycles=read.truth("HOROVOD_TIMELINE_MARK_CYCLES"),
            stall_warn_s=warn_s if looks else None,
            stall_shutdown_s=read.number("HOROVOD_STALL_SHUTDOWN_TIME_SECONDS", 0.0),
            log_level=read.level("HOROVOD_LOG_LEVEL"),
            log_hide_time=read.truth("HOROVOD_LOG_HIDE_TIME"),
            dynamic_process_sets=read.truth("HOROVOD_DYNAMIC_PROCESS_SETS"),
            elastic=read.truth("HOROVOD_ELASTIC"),
            gloo_timeout_s=read.number("HOROVOD_GLOO_TIMEOUT_SECONDS", 0.0) or None,
            gloo_interface=environment.get("HOROVOD_GLOO_IFACE", ""),
        )

    def stalls(self) -> Stalls:
        """Who looks for ranks that keep others waiting."""
        return Stalls(self.stall_warn_s, self.stall_shutdown_s)

    def begin_log(self, log: logging.Logger) -> None:
        """`log` says as much as is asked for: on stderr, unless the script has said where its messages go."""
        log.setLevel(self.log_level)
        if not log.hasHandlers():
            handler = logging.StreamHandler()
            handler.setFormatter(
                logging.Formatter(
                    ("" if self.log_hide_time else "%(asctime)s ") + "%(levelname)s %(name)s: %(message)s"
                )
            )
            log.addHandler(handler)


def without_effect(environment: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each variable that asks for something that can mean nothing here."""
    for name, why in WITHOUT_EFFECT.items():
        if environment.get(name, "").strip().lower() not in _AS_IT_IS:
            yield f"{name} has no effect: {why}"


class _Reader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def _text(self, name: str) -> str:
        return self._environment.get(name, "").strip()

    def whole(self, name: str, default: int) -> int:
        text = self._text(name)
        try:
            value = int(text or default)
        except ValueError:
            value = -1
        if value < 0:
            raise self._wrong(name, "a whole number, 0 or more")
        return value

    def number(self, name: str, default: float) -> float:
        text = self._text(name)
        try:
            value = float(text or default)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise self._wrong(name, "a number, 0 or more")
        return value

    def truth(self, name: str) -> bool:
        # Horovod takes "true" for no, as C's strtol does; whoever writes that means yes.
        try:
            return int(self._text(name) or 0) > 0
        except ValueError:
            raise self._wrong(name, "1 for yes or 0 for no") from None

    def level(self, name: str) -> int:
        text = self._text(name) or "warning"
        if text.lower() not in LOG_LEVELS:
            raise self._wrong(name, f"one of {', '.join(LOG_LEVELS)}")
        return LOG_LEVELS[text.lower()]

    def _wrong(self, name: str, wanted: str) -> UsageError:
        return UsageError(
            f"{self._environment[name]!r} is not {wanted}", where=name, remedy=f"set {name} to {wanted}, or unset it"
        )
