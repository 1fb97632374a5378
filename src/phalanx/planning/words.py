"""The planner's reasons, in words for the person who reads plan and report."""

from __future__ import annotations

from collections.abc import Sequence

from phalanx.foundation import duration_in_words, size_in_words
from phalanx.job.plan import ArithmeticPrecision
from phalanx.planning.trials import WORTH_BF16, Trial


def sequences_at_once(count: int) -> str:
    return f"{count} sequence{'s' * (count > 1)} at once"


def why_this_mesh(workers: int, threads: int, cores: int, summed_bytes: int) -> str:
    if workers == 1:
        return f"1 worker, as asked, with {threads} of {cores} cores"
    if workers > cores:
        cost = f"more than the {cores} cores here: they take turns, and fewer would be faster"
    else:
        cost = f"{threads} of {cores} cores for each"
    return (
        f"{workers} workers along data, as asked: each holds the whole model and its part of every batch, and "
        f"{size_in_words(summed_bytes)} of gradients are summed once a step; {cost}"
    )


def why_this_size(
    asked: int | str, share: int, chosen: Trial, trials: Sequence[Trial], too_large: Sequence[int]
) -> str:
    """`too_large`: micro-batches that do not fit into memory."""
    words = f"micro-batch {chosen.micro_batch}"
    if isinstance(asked, int):
        return f"{words}: " + ("as asked" if asked <= share else f"{asked} is asked, but a worker has only {share}")
    if share == 1:
        return f"{words}: a worker has one sequence a step"
    others = sorted(t for t in trials if t.precision == chosen.precision and t.micro_batch != chosen.micro_batch)
    beside = ", ".join(f"{t.micro_batch} takes {duration_in_words(t.step_seconds)}" for t in others)
    words += f": a step takes {duration_in_words(chosen.step_seconds)}" + (f"; with {beside}" if beside else "")
    return f"{words}; {too_large[0]} would not fit into memory" if too_large else words


def why_this_precision(asked: str, chosen: Trial, trials: Sequence[Trial]) -> str:
    if asked != "auto":
        return f"{asked}: as asked"
    sizes = {t.micro_batch: t.step_seconds for t in trials if t.precision != chosen.precision}
    ours_too = [t for t in trials if t.precision == chosen.precision and t.micro_batch in sizes]
    pairs = [(t.step_seconds, sizes[t.micro_batch], t.micro_batch) for t in ours_too]
    other: ArithmeticPrecision = "fp32" if chosen.precision == "bf16" else "bf16"
    if not pairs:
        return f"{chosen.precision}: {other} was not tried"
    ours, theirs, micro_batch = pairs[0]
    times = f"{duration_in_words(ours)} and {duration_in_words(theirs)} in {other}"
    words = f"with micro-batch {micro_batch} a step takes {times}"
    if chosen.precision == "fp32" and theirs < ours:
        words += f", less than the {WORTH_BF16:.0%} that its lost digits must be worth"
    return f"{chosen.precision}: {words}"
