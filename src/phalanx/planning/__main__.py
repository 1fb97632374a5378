"""The planner's process: `python -m phalanx.planning --run-dir DIR --spool DIR [--cache DIR]`.

Reads DIR/job.json, prepares the corpus in the cache, writes DIR/plan.json whole and says what memory it predicts.
Progress goes to stderr; a failure's last line there is JSON (`foundation.child`).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from phalanx.events import Context, Emitter
from phalanx.foundation import write_atomic
from phalanx.foundation.child import run_child
from phalanx.host import facts_of_host
from phalanx.job import Job, Plan, read_value
from phalanx.planning.rehearsal import Rehearsal

_SAY_EVERY_S = 0.5


class _Speaker:
    """Progress as lines on stderr, not too many."""

    def __init__(self) -> None:
        self._stage, self._said = "", 0.0

    def data(self, stage: str, share: float) -> None:
        """What `data.prepare` calls."""
        now = time.monotonic()
        if stage != self._stage or now - self._said > _SAY_EVERY_S:
            self._stage, self._said = stage, now
            self.say("the data is ready" if stage == "ready" else f"{stage} the data: {share:.0%}")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - the parent shows it


def main() -> None:
    parser = argparse.ArgumentParser(prog="phalanx.planning", description="Plan the job of a run directory.")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--spool", type=Path, required=True, help="where events go")
    parser.add_argument("--cache", type=Path, help="prepared corpora; default: cache beside the spool")
    options = parser.parse_args()
    job = read_value(options.run_dir / "job.json", Job)
    plan = _plan(job, options.run_dir, options.cache or options.spool.parent / "cache")
    write_atomic(options.run_dir / "plan.json", plan.model_dump_json(by_alias=True, indent=1))
    context = Context(
        os.uname().nodename, job.metadata.namespace, job.metadata.uid, job.status.attempt, program="planner"
    )
    emitter = Emitter(options.spool, context)
    for category, count in plan.predicted.memory.model_dump().items():
        emitter.emit("memory", {"category": category, "bytes": count})
    emitter.close()


def _plan(job: Job, run_dir: Path, cache_dir: Path) -> Plan:
    speaker = _Speaker()
    facts = facts_of_host(run_dir)
    with Rehearsal(run_dir / "job.json", cache_dir, min(job.spec.workers.count, facts.cores)) as rehearsal:
        from phalanx.data import open_data  # torch and numpy load here and in the rehearsal at once
        from phalanx.planning.planner import make_plan

        data = open_data(job.spec, cache_dir, speaker.data)
        return make_plan(job, data, facts, rehearsal, speaker.say)


if __name__ == "__main__":
    run_child(main)
