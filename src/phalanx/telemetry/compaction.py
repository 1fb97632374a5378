"""Which parts to merge, so that a long run has few files: eight of about the same size become one.

A row is rewritten once for every factor of eight that its part grows, and a table of n rows has at most
seven small parts of each size. Large parts are left alone. Only chooses; `collector` merges.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from phalanx.telemetry.manifest import Part

FAN = 8
LARGE_BYTES = 4 << 20  # eight of them, about 400,000 rows of steps, are merged in 0.3 GiB of memory


def choose(parts: Sequence[Part]) -> list[Part]:
    """The parts to merge next, in the order in which they are; empty when there are few enough."""
    sizes: dict[int, list[Part]] = defaultdict(list)
    for part in parts:
        if part.bytes < LARGE_BYTES and not part.damaged:
            sizes[_size(part.rows)].append(part)
    for size in sorted(sizes):
        if len(sizes[size]) >= FAN:
            return sizes[size][:FAN]
    return []


def _size(rows: int) -> int:
    """The whole part of log8(rows)."""
    return max(0, rows.bit_length() - 1) // 3
