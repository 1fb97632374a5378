"""A process of a build: `python -m phalanx.data.build.worker WORK OUT PARENT` does the tasks that it reads.

A line of JSON comes in a task, {"stage", "number", ...}; lines go out: {"bytes": n} as it goes, then {"result": ...,
"peak": bytes} when the task is noted as finished, or {"error": ...} and the end. It dies with its parent, so that no
two builds ever work in one directory. Knows nothing of other processes.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from phalanx.data.build import collecting, duplicates, learning, tokenizing
from phalanx.data.build.options import BuildOptions
from phalanx.data.build.work import Result, Work
from phalanx.foundation import PhalanxError

Stage = Callable[[Work, BuildOptions, int, dict[str, Any], Callable[[int], None]], Result]

STAGES: dict[str, Stage] = {
    "read": collecting.read,
    "exact": duplicates.exact,
    "sketch": duplicates.sketch,
    "candidates": duplicates.candidates,
    "verify": duplicates.verify,
    "near": duplicates.near,
    "layout": learning.layout,
    "learn": learning.learn,
    "tokenize": tokenizing.tokenize,
    "finish": tokenizing.finish,
}
_SET_PARENT_DEATH_SIGNAL = 1
_REPORT_SECONDS = 0.2


def main(directory: str, out: str, parent: str) -> None:
    """Until the input ends."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):  # it was gone before the call
        return
    pa.set_memory_pool(pa.system_memory_pool())  # the others keep what they have freed
    work = Work(Path(directory), Path(out))
    plan = work.plan()
    assert plan is not None
    options = BuildOptions.from_json(plan["options"])
    for line in sys.stdin:
        task = json.loads(line)
        try:
            result = perform(work, options, task, _Reporter())
        except PhalanxError as error:
            _say(
                {
                    "error": type(error).__name__,
                    "message": error.message,
                    "where": error.where,
                    "remedy": error.remedy,
                }
            )
            return
        _say({"result": result, "peak": peak_bytes()})


def perform(work: Work, options: BuildOptions, task: dict[str, Any], report: Callable[[int], None]) -> Result:
    """Do a task, note that it is done, and only then delete what nobody needs any more."""
    result = STAGES[task["stage"]](work, options, task["number"], task, report)
    work.finish(task["stage"], task["number"], result)
    for name in result.get("used", ()):
        (work.sort / name).unlink(missing_ok=True)
    return result


class _Reporter:
    """Gathers what is done and says it a few times a second."""

    def __init__(self) -> None:
        self._held, self._last = 0, time.monotonic()

    def __call__(self, count: int) -> None:
        self._held += count
        if (now := time.monotonic()) - self._last > _REPORT_SECONDS:
            _say({"bytes": self._held})
            self._held, self._last = 0, now


def peak_bytes() -> int:
    """Most memory that this process ever held, without what the interpreter that began it did (VmHWM; getrusage would
    count its parent's too)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
