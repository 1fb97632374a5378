"""The evaluator's process, started by the controller: the newest good checkpoint of a run to its evaluation.json.

    python -m phalanx.evaluation --run-dir DIR --spool SPOOL [--cache CACHE]

The document appears whole or not at all; its numbers are emitted as rows of the table `scores` too.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from phalanx.events import Context, Emitter
from phalanx.foundation import write_atomic
from phalanx.foundation.child import run_child

DOCUMENT = "evaluation.json"
log = logging.getLogger("phalanx.evaluation")


def main(arguments: list[str] | None = None) -> None:
    """Raises the errors of `evaluator.evaluate` and StorageError."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    from phalanx.evaluation.evaluator import evaluate

    said = ""

    def progress(stage: str, share: float) -> None:
        nonlocal said
        if stage != said:
            said = stage
            log.info("%s", stage)

    evaluation = evaluate(options.run_dir, options.cache or options.spool.parent / "cache", progress)
    job = evaluation.loaded.job
    context = Context(
        host=os.uname().nodename,
        namespace=job.metadata.namespace,
        job_uid=job.metadata.uid,
        attempt=job.status.attempt,
        program="evaluator",
    )
    emitter = Emitter(options.spool, context)
    try:
        for row in evaluation.rows():
            emitter.emit("scores", row)
    finally:
        emitter.close()
    write_atomic(options.run_dir / DOCUMENT, evaluation.to_json())
    log.info("%s %.4f in %.1f s", evaluation.scores.metric, evaluation.scores.model.value, evaluation.seconds)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="phalanx.evaluation", description="Evaluate the newest checkpoint of a run.")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--spool", type=Path, required=True, help="where events go")
    parser.add_argument("--cache", type=Path, help="prepared corpora; default: cache beside the spool")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_child(main)
