"""From a job, its data and this host to the plan: what fits, how fast, and what to do when memory runs out.

    traced memory -> micro-batches that fit -> a rehearsal of some -> the fastest -> plan, reasons, fallbacks

The number of workers is the person's; the planner chooses how each does its share. Knows no files and starts no
processes: the rehearsal is handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from phalanx.data import TrainingData
from phalanx.foundation import UsageError, duration_in_words, size_in_words
from phalanx.job import HostFacts, Job, MeshSpec, Plan, Predicted, not_enforced
from phalanx.job.plan import ArithmeticPrecision
from phalanx.planning import words
from phalanx.planning.fitting import Fitting
from phalanx.planning.rehearsal import Orders, RehearsalFailed
from phalanx.planning.speed import flops_per_second
from phalanx.planning.subject import bare_plan, subject_of
from phalanx.planning.trials import Trial, best

MAX_FALLBACKS = 4
# Arithmetic of a micro-batch that is still tried out (a second or two); a larger one gains nothing by its size.
MAX_TRIED_FLOPS = 4e10
# With so much in a single sequence a rehearsal would take minutes: the plan goes by arithmetic then.
MAX_REHEARSED_FLOPS = 4e11
# Share of the speed of a matrix product that a whole step reaches on a CPU (0.3 to 0.6 for the catalogue's models).
STEP_EFFICIENCY = 0.4


class NotCarriedOut(UsageError):
    """The job asks for a split of the work that no room carries out."""


class Rehearser(Protocol):
    """Who tries things out: `Rehearsal`, or nobody."""

    @property
    def workers(self) -> int: ...

    def try_out(self, orders: Orders) -> tuple[Trial, ...]: ...


def make_plan(
    job: Job,
    data: TrainingData,
    facts: HostFacts,
    rehearser: Rehearser,
    progress: Callable[[str], None] = lambda text: None,
) -> Plan:
    """The plan of `job` on a host like `facts`. `progress` hears what is being done, in a few words.

    Raises NotCarriedOut, NothingFits and UnknownModel.
    """
    return _Planner(job, data, facts, rehearser, progress).plan()


def sizes_of(share: int) -> tuple[int, ...]:
    """Micro-batches worth trying for a share of so many sequences, rising: the share in 1, 2, 4, ... equal parts."""
    parts = (2**power for power in range(share.bit_length()))
    return tuple(sorted({math.ceil(share / count) for count in parts} | {1}))


class _Planner:
    def __init__(
        self, job: Job, data: TrainingData, facts: HostFacts, rehearser: Rehearser, progress: Callable[[str], None]
    ) -> None:
        _check_split(job)
        self._job, self._facts, self._notes = job, facts, data.notes
        self._rehearser, self._progress = rehearser, progress
        self._workers = job.spec.workers.count
        self._share = math.ceil(job.spec.training.global_batch / self._workers)
        self._threads = max(1, facts.cores // self._workers)
        self._fitting = Fitting(job, subject_of(job, data), facts, progress)

    def plan(self) -> Plan:
        training = self._job.spec.training
        asked = training.micro_batch
        precisions: tuple[ArithmeticPrecision, ...] = (
            ("fp32", "bf16") if training.precision == "auto" else (training.precision,)
        )
        sizes = sizes_of(self._share) if asked == "auto" else (min(asked, self._share),)
        fitting = self._fitting.those_that_fit(sizes, precisions[0])
        trials, how = self._times(fitting, precisions)
        chosen = best(trials)
        plan = self._plan_of(chosen)
        peak, room = (size_in_words(count) for count in (plan.predicted.memory.total, self._fitting.room))
        reasons = (
            words.why_this_mesh(self._workers, self._threads, self._facts.cores, self._summed_bytes(chosen)),
            words.why_this_size(asked, self._share, chosen, trials, sizes[len(fitting) :]),
            words.why_this_precision(training.precision, chosen, trials),
            f"a step takes {duration_in_words(chosen.step_seconds)}: {how}",
            f"a worker holds {peak} at the peak of a step, beside its program; {room} is there for each",
            *self._notes,
        )
        changes = {
            "reasons": reasons,
            "fallbacks": tuple(self._fallbacks(chosen, trials)),
            "not_enforced": not_enforced(self._job.spec.security),
        }
        return plan.model_copy(update=changes)

    def _times(self, sizes: Sequence[int], precisions: Sequence[ArithmeticPrecision]) -> tuple[list[Trial], str]:
        """Trials of some of `sizes`, and how their times were found. All of them fit into memory."""
        tried = [size for size in sizes if size == sizes[0] or self._flops(size, precisions[0]) <= MAX_TRIED_FLOPS]
        if self._flops(sizes[0], precisions[0]) > MAX_REHEARSED_FLOPS:
            return self._calculated(sizes, precisions), "calculated, as one sequence alone takes long"
        self._progress("trying out a few steps")
        try:
            trials = self._rehearser.try_out(Orders(tuple(tried), tuple(precisions), self._threads))
        except RehearsalFailed as error:
            return self._calculated(sizes, precisions), f"calculated, as trying it out failed ({error.message})"
        here = self._rehearser.workers
        turns = max(1.0, self._workers / here)
        trials = tuple(trial._replace(step_seconds=trial.step_seconds * turns) for trial in trials)
        fitting = [t for t in trials if t.precision == precisions[0] or self._fitting.fits(t.micro_batch, t.precision)]
        how = f"measured in a rehearsal of {here} worker{'s' if here > 1 else ''} here"
        return fitting, how + (f", times {turns:g} for {self._workers} that take turns" if turns > 1 else "")

    def _calculated(self, sizes: Sequence[int], precisions: Sequence[ArithmeticPrecision]) -> list[Trial]:
        """From the arithmetic of a step and the speed of a matrix product."""
        size = next((size for size in sizes if self._flops(size, precisions[0]) >= MAX_TRIED_FLOPS), sizes[-1])
        turns = max(1.0, self._workers * self._threads / self._facts.cores)
        trials = []
        for precision in precisions:
            rate = STEP_EFFICIENCY * flops_per_second(precision, self._threads)
            trials.append(Trial(size, precision, turns * self._step_flops(size, precision) / rate))
        return trials

    def _flops(self, size: int, precision: ArithmeticPrecision) -> float:
        """Of one micro-batch of `size`; what is already traced, scaled."""
        known = self._fitting.any_count(precision)
        return known.trace.micro_batch_flops * size / known.micro_batch

    def _step_flops(self, size: int, precision: ArithmeticPrecision) -> float:
        """Of one worker's step."""
        update = self._fitting.any_count(precision).trace.update_flops
        return self._flops(size, precision) / size * self._share + update

    def _summed_bytes(self, chosen: Trial) -> int:
        return self._fitting.count(chosen.micro_batch, chosen.precision).trace.buffers

    def _plan_of(self, trial: Trial) -> Plan:
        """Without reasons and fallbacks."""
        counted = self._fitting.at_most(trial.micro_batch, trial.precision)
        trace = counted.trace
        sequences = self._job.spec.training.global_batch
        flops = self._flops(1, trial.precision) * sequences + trace.update_flops * self._workers
        predicted = Predicted(
            memory=counted.memory,
            step_seconds=trial.step_seconds,
            flops=flops,
            checkpoint_bytes=trace.kept,
            parameters=trace.count,
        )
        bare = bare_plan(self._job, trial.micro_batch, trial.precision, self._threads)
        return bare.model_copy(update={"predicted": predicted})

    def _fallbacks(self, chosen: Trial, trials: Sequence[Trial]) -> list[Plan]:
        """The same global batch in smaller parts, each with its own memory."""
        times = {trial.micro_batch: trial.step_seconds for trial in trials if trial.precision == chosen.precision}
        smaller = [size for size in reversed(sizes_of(chosen.micro_batch)) if size < chosen.micro_batch]
        if smaller:
            self._fitting.count(smaller[-1], chosen.precision)
        plans = []
        for size in smaller[:MAX_FALLBACKS]:
            nearest = min(times, key=lambda tried: abs(math.log(tried / size)))
            trial = Trial(size, chosen.precision, times[nearest])
            why = f"{words.sequences_at_once(size)} instead of {chosen.micro_batch}: the same batch, less memory"
            plans.append(self._plan_of(trial).model_copy(update={"reasons": (why,)}))
        return plans


def _check_split(job: Job) -> None:
    """Gate 1 refuses these too; the planner is also used alone."""
    workers = job.spec.workers
    mesh = workers.mesh or MeshSpec(data=workers.count)
    if workers.strategy not in ("auto", "data") or mesh.size != mesh.data:
        raise NotCarriedOut(
            "the work can only be split along data so far: every worker holds the whole model",
            where="spec.workers",
            remedy=f"use strategy: data (or auto) and count: {workers.count}, without a mesh",
        )
