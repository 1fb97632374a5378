"""The worker process: one rank of a job.

By hand, a job of two workers (an agent does the same; job.json and plan.json are the Job and Plan as JSON):

    for r in 0 1; do
        RANK=$r WORLD_SIZE=2 LOCAL_RANK=$r LOCAL_WORLD_SIZE=2 PHALANX_RENDEZVOUS=/tmp/new-file PHALANX_GENERATION=1 \\
        PHALANX_ATTEMPT=1 PHALANX_JOB_UID=u PHALANX_NAMESPACE=default GLOO_SOCKET_IFNAME=lo OMP_NUM_THREADS=1 \\
        python -m phalanx.training.worker --run-dir DIR --spool SPOOL [--cache CACHE] &
    done; wait

SIGTERM (or Ctrl-C): checkpoint after the current step, on which all ranks agree, and end. Ends with a code of
`job.EXIT_CODES`; the last line on stderr is the cause. Everything heavy is imported after the signal handlers
are set, and the process leaves by `os._exit`, because gloo now and then aborts a process that exits normally.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType, TracebackType

from phalanx.foundation import PhalanxError, UsageError
from phalanx.job import EXIT_CODES
from phalanx.job.placement import ExitKind


class _Stop:
    """What a signal asks for: to end at once while there is nothing to keep, later after the current step."""

    def __init__(self) -> None:
        self.requested = False
        self.at_once = True

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if self.at_once:
            _leave("preempted", f"stopped by {signal.Signals(number).name} before training began")

    def __call__(self) -> bool:
        return self.requested


def main(arguments: list[str] | None = None) -> None:
    """Never returns."""
    stop = _Stop()
    signal.signal(signal.SIGTERM, stop.handle)
    signal.signal(signal.SIGINT, stop.handle)
    sys.excepthook = _crash
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    from phalanx.collectives import CollectiveTimeout, Membership, PeerLost
    from phalanx.training.errors import CheckpointMismatch, Diverged
    from phalanx.training.session import Orders, Session

    environment = os.environ
    try:
        orders = Orders(
            run_dir=options.run_dir,
            spool_dir=options.spool,
            cache_dir=options.cache or options.spool.parent / "cache",
            membership=Membership.from_environment(environment),
            job_uid=environment.get("PHALANX_JOB_UID", ""),
            namespace=environment.get("PHALANX_NAMESPACE", "default"),
            attempt=int(environment.get("PHALANX_ATTEMPT", "1")),
            fallback=options.fallback,
        )
        session = Session(orders, stop)
        session.prepare()
        stop.at_once = False
        outcome = session.run()
    except (PeerLost, CollectiveTimeout) as error:
        _leave("peer_lost", _line(error))
    except (UsageError, Diverged, CheckpointMismatch) as error:  # would come again however often it is tried
        _leave("bad_input", _line(error))
    except MemoryError as error:
        _leave("out_of_memory", f"out of memory: {error}")
    except PhalanxError as error:  # before RuntimeError: those of the group are both
        _leave(None, _line(error))
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        _leave("out_of_memory", f"out of memory: {str(error).splitlines()[0]}")
    _leave(outcome, "all steps are done" if outcome == "done" else "stopped after a checkpoint")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="phalanx.training.worker", description="One rank of a job.")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--spool", type=Path, required=True, help="where events go")
    parser.add_argument("--cache", type=Path, help="prepared corpora; default: cache beside the spool")
    parser.add_argument("--fallback", type=int, default=-1, help="index of the plan's fallback; -1: the plan itself")
    return parser.parse_args(arguments)


def _line(error: PhalanxError) -> str:
    """The error on one line."""
    return " ".join(str(error).split())


def _leave(kind: ExitKind | None, message: str) -> None:
    """End the process now. `kind` None: a failure that has no code of its own."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201 - the last line of the log is the cause
    sys.stdout.flush()
    os._exit(1 if kind is None else EXIT_CODES[kind])


def _crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """For an error nobody foresaw: the traceback, whose last line says what it was."""
    traceback.print_exception(kind, error, trace)
    _leave(None, " ".join(f"{kind.__name__}: {error}".split()))


if __name__ == "__main__":
    main()
