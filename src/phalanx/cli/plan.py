"""`phalanx plan`: admit a job and plan it for this machine, and start nothing."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phalanx.cli._options import echo_json, home_option, job_file_argument, json_option
from phalanx.foundation import Home, PhalanxError, UsageError, duration_in_words, estimate_in_words, size_in_words

if TYPE_CHECKING:
    from phalanx.job import Decision, HostFacts, Job, Plan

_CATEGORIES = ("parameters", "gradients", "optimizer", "activations", "other")
_MARKS = {"high": "x", "critical": "x", "medium": "!", "low": "!", "info": "-"}


@click.command()
@job_file_argument
@home_option
@json_option
def command(file: Path, home: Home, as_json: bool) -> int:
    """Say whether a job fits, and how it would run.

    Prepares the data (kept for the run itself) and tries a few steps out, which takes seconds; trains nothing.
    Exits with 1 when the job is not admitted or does not fit.

    \b
    Examples:
      phalanx plan examples/jobs/demo.yaml
      phalanx plan my-job.yaml --json | jq .plan.predicted
    """
    from phalanx.admission import gate_1, gate_2
    from phalanx.host import facts_of_host
    from phalanx.job import read_job

    job = read_job(file)
    first = gate_1(job)
    if not as_json:
        _say_findings(first)
    if first.verdict != "allow":
        if as_json:
            echo_json({"plan": None, "decisions": [_plain(first)]})
        else:
            click.echo(f"{file}: not admitted")
        return 1
    plan = _planned(job, home, quiet=as_json)
    facts = facts_of_host(home.root)
    second = gate_2(job, plan, facts)
    if as_json:
        echo_json({"plan": _plain(plan), "decisions": [_plain(first), _plain(second)]})
    else:
        for line in lines_of(job, plan, facts):
            click.echo(line)
        _say_findings(second)
    return 0 if second.verdict == "allow" else 1


def _planned(job: Job, home: Home, *, quiet: bool) -> Plan:
    """The plan that a child process makes, as it would for a run. Raises what the child said at its end."""
    from phalanx.daemons.words import last_words
    from phalanx.host.processes import start, terminate
    from phalanx.job import Plan

    with tempfile.TemporaryDirectory(prefix="phalanx-plan-") as scratch:
        run_dir, log = Path(scratch), Path(scratch) / "plan.log"
        (run_dir / "job.json").write_text(job.model_dump_json(by_alias=True))
        argv = [sys.executable, "-m", "phalanx.planning", "--run-dir", scratch, "--spool", str(run_dir / "spool")]
        process = start([*argv, "--cache", str(home.cache_dir)], env=os.environ, output=log)
        try:
            _show(log, process.poll, quiet=quiet)
        finally:
            if process.poll() is None:
                terminate(process, 2.0)
        if process.returncode != 0:
            raise _failure(last_words(log), process.returncode)
        return Plan.model_validate_json((run_dir / "plan.json").read_bytes())


def _show(log: Path, poll: Any, *, quiet: bool) -> None:
    """What the child is doing, on one line of a terminal, until it ends."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    with console.status("planning") if console.is_terminal and not quiet else _Silent() as status:
        while poll() is None:
            lines = log.read_text(errors="replace").splitlines()
            if lines:
                status.update(lines[-1][:100])
            time.sleep(0.05)


class _Silent:
    """A status that nobody sees."""

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, text: str) -> None:
        return None


def _failure(words: str, code: int) -> PhalanxError:
    """The child's error, with its exit code."""
    kind = UsageError if code == UsageError.exit_code else PhalanxError
    try:
        document = json.loads(words)
        return kind(document["message"], remedy=document["remedy"], where=document["where"])
    except (ValueError, KeyError, TypeError):
        remedy = "report this, with what `phalanx version` and `phalanx doctor` print"
        return PhalanxError(f"the planner ended badly: {words or f'exit code {code}'}", remedy=remedy)


def lines_of(job: Job, plan: Plan, facts: HostFacts) -> Iterator[str]:
    """The plan, for a person."""
    from phalanx.job.plan import WORKER_BASELINE_BYTES

    predicted, steps = plan.predicted, job.spec.training.steps
    axes = " x ".join(f"{name} {count}" for name, count in plan.mesh.model_dump().items() if count > 1) or "data 1"
    tokens = plan.global_batch * job.spec.data.sequence_length
    yield f"{job.metadata.namespace}/{job.metadata.name}: {job.spec.model.name}, {predicted.parameters:,} parameters"
    yield f"  workers      {plan.mesh.size} (mesh: {axes}), {_count(plan.threads, 'thread')} each"
    yield (
        f"  batch        {_count(plan.global_batch, 'sequence')} of {job.spec.data.sequence_length:,} tokens a step: "
        f"{plan.micro_batch} at once, {_count(plan.accumulation, 'time')}, on each worker"
    )
    yield f"  precision    {plan.precision}"
    yield f"  memory       {size_in_words(predicted.memory.total)} a worker at the peak of a step:"
    for name in _CATEGORIES:
        yield f"               {size_in_words(getattr(predicted.memory, name)):>9}  {name}"
    needed = plan.mesh.size * (predicted.memory.total + WORKER_BASELINE_BYTES)
    yield (
        f"               with programs {size_in_words(needed)} for {_count(plan.mesh.size, 'worker')}; "
        f"{size_in_words(facts.memory_available_bytes)} is available"
    )
    yield f"  checkpoint   {size_in_words(predicted.checkpoint_bytes)}"
    yield (
        f"  time         {duration_in_words(predicted.step_seconds)} a step, "
        f"about {tokens / predicted.step_seconds:,.0f} tokens/s; "
        f"{steps:,} steps: {estimate_in_words(steps * predicted.step_seconds)}, then evaluation"
    )
    yield "Why:"
    yield from (f"  - {reason}" for reason in plan.reasons)
    if plan.fallbacks:
        yield "If memory runs out, in this order:"
        for f in plan.fallbacks:
            peak = size_in_words(f.predicted.memory.total)
            yield f"  - {f.micro_batch} at once, {_count(f.accumulation, 'time')}: {peak} a worker"
    if plan.not_enforced:
        yield "Not enforced:"
        yield from (f"  - {demand}" for demand in plan.not_enforced)


def _say_findings(decision: Decision) -> None:
    for finding in decision.findings:
        click.echo(f"{_MARKS[finding.severity]} {finding.rule}: {finding.subject}: {finding.evidence}")
        if finding.severity != "info":
            click.echo(f"  To do: {finding.remedy}")


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json", by_alias=True)


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
