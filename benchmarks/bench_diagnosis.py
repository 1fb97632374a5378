"""What people are told of a mistake: each kind, over each way of calling collectives, what every rank heard, and when.

A number is the seconds until the last rank that could be told was; a rank that got a wrong result, or an error that
names neither a rank nor a tensor, was told nothing of use, which is for the reader of the table to see.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import groupby

from benchmarks.harness import Comparison, Options
from benchmarks.mistakes import HANG_S, MISTAKES, WAYS, Told, make

_LONGEST = 330


def run(options: Options, progress: Callable[[str], None]) -> list[Comparison]:
    """One comparison for each mistake; `options.quick`: two mistakes."""
    found = []
    for mistake in list(MISTAKES)[:: 6 if options.quick else 1]:
        values, notes = {}, {}
        for way in WAYS:
            told = make(way, mistake)
            values[way] = [max([0.001, *(one.after_s for one in told if one.after_s is not None)])]
            notes[way] = [vars(one) for one in told]
            progress(f"{mistake}: {way}: {', '.join(one.how for one in told)}")
        found.append(Comparison(mistake, "s", values, {way: {} for way in WAYS}, notes))
    return found


def report(comparisons: Sequence[Comparison]) -> str:
    """A table in Markdown."""
    lines = [
        f"Three ranks (four on two hosts); operations may take {HANG_S:g} s. Seconds: until the last rank that can be",
        "told was, since the last that comes had come, or since rank 1 ended. Words: the first thing a rank was told.",
        "",
        "| mistake of rank 1 | through | what ranks were told | s |",
        "|---|---|---|---|",
    ]
    for comparison in comparisons:
        for number, way in enumerate(comparison.values):
            told = [Told(**one) for one in comparison.notes[way]]  # type: ignore[attr-defined]
            name = "" if number else comparison.name
            lines.append(f"| {name} | {way} | {in_words(told)} | {comparison.median(way):.2f} |")
    return "\n".join(lines)


def in_words(told: Sequence[Told]) -> str:
    """Ranks that were told the same together."""
    ranked = sorted((_without_own_name(one, rank), rank) for rank, one in enumerate(told))
    parts = []
    for words, group in groupby(ranked, key=lambda pair: pair[0]):
        ranks = [rank for _, rank in group]
        who = "all" if len(ranks) == len(told) else ", ".join(map(str, ranks))
        parts.append((ranks[0], f"**{who}**: {words}"))
    return "<br>".join(text for _, text in sorted(parts))


def _without_own_name(one: Told, rank: int) -> str:
    """What is said, without what differs only because another rank says it: its own number, its ports, the time."""
    words = re.sub(r"\S*/(\S+\.(?:cc|cpp|h):\d+)", r"\1", one.words)
    words = re.sub(r"^(\w+: )rank \d+(?: of \d+)?(?:, shared memory)?: (?=[a-z])", r"\1", words)
    words = re.sub(r", TensorDeviceTypes=TensorOptions\(.*?\)\)", ")", words)
    words = re.sub(r"\]:\d+", "]", words).replace(f" of rank {rank}: waiting", ": waiting")
    words = re.sub(r"(waiting|waited) ([\d.]+) s", lambda match: f"{match[1]} {float(match[2]):.0f} s", words)
    words = re.sub(r"[\d.]+ m?s ago", "... ago", words).replace("|", "/").replace("\n", " ")
    if len(words) > _LONGEST:
        words = words[:_LONGEST] + " ..."
    return f"{one.how}: {words}" if words else one.how
