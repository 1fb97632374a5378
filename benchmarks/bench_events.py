"""The cost of events: tokens/s of the same training with every event kept, and with none.

With: each worker writes its rows to the spool, and a collector beside them moves them to the store, as in
`phalanx run`. Without: the same loop, whose rows are forgotten. Once for BERT-Tiny, as a job is; once for
the smallest model with steps of few milliseconds, where a row a step weighs most.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from benchmarks.harness import Comparison, Options, Side, compare
from benchmarks.jobs import plan_of
from benchmarks.ranks import Window, run_ranks, tokens_per_cpu_second, tokens_per_second
from phalanx.daemons.collector import CollectorThread
from phalanx.data import Corpus, prepare
from phalanx.foundation import Home
from phalanx.job import Job
from phalanx.telemetry import Reader

PROCESSES = 2
WARMUP = 5


def job_of(name: str, steps: int) -> Job:
    """`bert-tiny`: as in examples/jobs/bert-tiny.yaml. `gpt-tiny`: on bytes, 4 short sequences a step."""
    bert = name == "bert-tiny"
    vocabulary = {"kind": "wordpiece", "size": 4096} if bert else {"kind": "bytes"}
    spec = {
        "model": {"name": name, "objective": "masked-lm" if bert else "causal-lm"},
        "data": {"source": "stdlib-docs", "sequence_length": 128 if bert else 32, "vocabulary": vocabulary},
        "training": {
            "steps": steps,
            "global_batch": 64 if bert else 4,
            "precision": "fp32",
            "optimizer": {"name": "adamw", "lr": 1e-3},
            "evaluate_every": steps,
            "checkpoint_every": steps,
        },
        "workers": {"count": PROCESSES},
    }
    return Job.model_validate({"metadata": {"name": f"bench-events-{name}"}, "spec": spec})


@contextmanager
def collecting(home: Home) -> Iterator[None]:
    """A collector at work, as beside the controller of a run."""
    collector = CollectorThread(home)
    collector.start()
    try:
        yield
    finally:
        collector.flush()
        collector.stop()


def train(job: Job, corpus: Corpus, home: Home, *, events: bool) -> list[Window]:
    """Run `job` once; with `events`, its rows are in the home's store afterwards."""
    orders = {
        "corpus": str(corpus.directory),
        "job": job.model_dump(mode="json"),
        "plan": plan_of(job, micro_batch=16).model_dump(mode="json"),
        "entries": corpus.vocabulary.size,
        "warmup": WARMUP,
        "spool": str(home.spool_dir) if events else None,
    }
    if not events:
        return run_ranks("side_phalanx", orders, PROCESSES, home.root)
    with collecting(home):
        return run_ranks("side_phalanx", orders, PROCESSES, home.root)


def rows_in_store(home: Home, job: Job) -> int:
    """Rows of steps that arrived, of all runs of `job`."""
    sql = f"SELECT count(*) AS n FROM steps WHERE job_uid = '{job.metadata.uid}'"
    return int(Reader(home.store_dir).rows(sql)[0]["n"])


def contest(name: str, steps: int, options: Options, progress: Callable[[str], None], home: Home) -> Comparison:
    job = job_of(name, WARMUP + steps)
    corpus = prepare(job.spec.data, job.spec.model.objective, home.cache_dir)
    runs: list[list[Window]] = []

    def measure(events: bool) -> float:
        runs.append(train(job, corpus, home, events=events))
        return tokens_per_second(runs[-1])

    result = compare(
        f"events of {name}",
        "tokens/s",
        [Side("with events", lambda: measure(True)), Side("without", lambda: measure(False))],
        rounds=options.rounds,
        progress=progress,
    )
    arrived, emitted = rows_in_store(home, job), len(runs) // 2 * PROCESSES * job.spec.training.steps
    if arrived != emitted:
        raise RuntimeError(f"{emitted} rows were emitted, {arrived} are in the store")
    with_events, without = runs[-2:]
    notes = {
        "processes": PROCESSES,
        "steps that count": steps,
        "milliseconds a step": f"{max(w.seconds for w in without) / steps * 1e3:.1f}",
        "rows that arrived": f"{arrived} of {emitted}",
        "tokens a CPU second of the workers (last round)": f"{tokens_per_cpu_second(with_events):,.0f} and "
        f"{tokens_per_cpu_second(without):,.0f}",
    }
    return replace(result, notes=notes)


def run(options: Options, progress: Callable[[str], None]) -> list[Comparison]:
    with tempfile.TemporaryDirectory(prefix="phalanx-bench-") as scratch:
        home = Home.find(scratch)
        small = contest("gpt-tiny", 40 if options.quick else 2000, options, progress, home)
        if options.quick:
            return [small]
        return [contest("bert-tiny", 40, options, progress, home), small]
