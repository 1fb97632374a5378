"""Which micro-batches fit into the memory of this host, by tracing as few of them as possible.

A step's peak is the largest of several moments (the end of a forward pass, an update), each of which grows evenly
with the micro-batch. So between two traced sizes the peak is at most what lies on the line between them.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from phalanx.foundation import PhalanxError, size_in_words
from phalanx.job import HostFacts, Job, MemoryPrediction
from phalanx.job.plan import WORKER_BASELINE_BYTES, ArithmeticPrecision
from phalanx.planning.calibration import Circumstances, predicted_memory
from phalanx.planning.subject import bare_plan
from phalanx.planning.trace import StepTrace, Subject, trace_step
from phalanx.planning.words import sequences_at_once

USABLE = 0.9  # of the memory that is available: the rest is for what comes and goes


class NothingFits(PhalanxError):
    """Not even the smallest micro-batch fits into the memory that is available."""


@dataclass(frozen=True)
class Counted:
    """A micro-batch with what it takes."""

    micro_batch: int
    trace: StepTrace
    memory: MemoryPrediction


class Fitting:
    """Memory of `job`'s workers on a host like `facts`. `room`: bytes for each worker above its baseline."""

    def __init__(self, job: Job, subject: Subject, facts: HostFacts, progress: Callable[[str], None]) -> None:
        self._job, self._subject, self._facts, self._progress = job, subject, facts, progress
        self._workers = job.spec.workers.count
        self.room = max(0, int(USABLE * facts.memory_available_bytes) // self._workers - WORKER_BASELINE_BYTES)
        self._counted: dict[tuple[ArithmeticPrecision, int], Counted] = {}

    def count(self, micro_batch: int, precision: ArithmeticPrecision) -> Counted:
        """Traced, once."""
        key = (precision, micro_batch)
        if key not in self._counted:
            self._progress(f"memory of {sequences_at_once(micro_batch)}")
            trace = trace_step(self._subject, bare_plan(self._job, micro_batch, precision))
            spec = self._job.spec
            circumstances = Circumstances(precision, spec.model.objective != "causal-lm")
            memory = predicted_memory(trace, circumstances)
            self._counted[key] = Counted(micro_batch, trace, memory)
        return self._counted[key]

    def any_count(self, precision: ArithmeticPrecision) -> Counted:
        """One that is there already, of `precision` if possible: for what hardly depends on which."""
        return next(
            (c for (kind, _), c in self._counted.items() if kind == precision), next(iter(self._counted.values()))
        )

    def at_most(self, micro_batch: int, precision: ArithmeticPrecision) -> Counted:
        """Traced, or where a smaller and a larger one are known: no less than tracing would count."""
        known = sorted(size for kind, size in self._counted if kind == precision)
        place = bisect.bisect_left(known, micro_batch)
        if place in (0, len(known)) or known[place] == micro_batch:
            return self.count(micro_batch, precision)
        small, large = known[place - 1], known[place]
        below, above = self._counted[precision, small], self._counted[precision, large]
        share = (micro_batch - small) / (large - small)
        between = {
            name: math.ceil(value + share * (getattr(above.memory, name) - value))
            for name, value in below.memory.model_dump().items()
        }
        return Counted(micro_batch, above.trace, MemoryPrediction(**between))

    def fits(self, micro_batch: int, precision: ArithmeticPrecision) -> bool:
        return self.count(micro_batch, precision).memory.total <= self.room

    def those_that_fit(self, sizes: Sequence[int], precision: ArithmeticPrecision) -> tuple[int, ...]:
        """Of rising `sizes`; at least one. Raises NothingFits, saying what would help."""
        if self.fits(sizes[-1], precision):
            return tuple(sizes)
        number = bisect.bisect_left(
            range(len(sizes) - 1), True, key=lambda place: not self.fits(sizes[place], precision)
        )
        if number == 0:
            raise self._nothing_fits(sizes[0], precision)
        return tuple(sizes[:number])

    def _nothing_fits(self, micro_batch: int, precision: ArithmeticPrecision) -> NothingFits:
        needed = self.count(micro_batch, precision).memory.total + WORKER_BASELINE_BYTES
        available = self._facts.memory_available_bytes
        usable = int(USABLE * available)
        workers = self._workers
        at_once = f"{micro_batch} sequence{'s' if micro_batch > 1 else ''} at once"
        many = (
            f"{workers} workers take {size_in_words(workers * needed)}"
            if workers > 1
            else (f"a worker takes {size_in_words(needed)}")
        )
        return NothingFits(
            f"even with {at_once} {many}, its program and {size_in_words(needed - WORKER_BASELINE_BYTES)} for the "
            f"step; {size_in_words(available)} is available",
            where=self._facts.host,
            remedy=self._what_would_help(micro_batch, needed, usable),
        )

    def _what_would_help(self, micro_batch: int, needed: int, usable: int) -> str:
        """In order of what costs the person least."""
        ways = []
        if micro_batch > 1:
            ways.append("set training.microBatch to auto")
        if 0 < usable // needed < self._workers:
            ways.append(f"use workers.count {usable // needed}")
        if needed - WORKER_BASELINE_BYTES > usable - WORKER_BASELINE_BYTES > 0:
            ways.append("lower data.sequenceLength or data.vocabulary.size, or choose a smaller model")
        ways.append(f"free memory, or use a machine with {size_in_words(self._workers * needed / USABLE)} to spare")
        return "; or ".join(ways)
