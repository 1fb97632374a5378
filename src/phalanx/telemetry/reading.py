"""From lines of the spool to rows of tables, each row once, and every row that is missing told.

One `Reading` takes lines of many sources in their order, from the positions where the last manifest
left off. A source counts its rows from 1: what is not above the last is a copy, what jumps leaves a
gap. Values only; `collector` reads the files and commits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from phalanx.events import SpoolRow
from phalanx.telemetry.manifest import Position
from phalanx.telemetry.parts import Unfit, Values, values_of

COLLECTOR = "collector"
_ABOUT = ("host", "namespace", "job_uid", "attempt", "generation", "rank")


class Reading:
    """`rows` by table, `positions` by source, `told`: the last seq of the collector's own rows of losses."""

    def __init__(self, positions: Mapping[str, Position], told: int) -> None:
        self.positions = dict(positions)
        self.told = told
        self.rows: dict[str, list[Values]] = defaultdict(list)
        self.copies = 0
        self._about: dict[str, SpoolRow] = {}
        self._losses: list[tuple[str, int | None, int | None, int, str, SpoolRow | None]] = []

    def position(self, source: str) -> Position:
        return self.positions.get(source, Position())

    def take(self, source: str, lines: Iterable[SpoolRow | None]) -> None:
        """The next lines of a source; None is a line that is no row."""
        before = self.position(source)
        last, corrupt, closed = before.seq, before.corrupt, before.closed
        for line in lines:
            seq = line.context["seq"] if line is not None and line.context["source"] == source else 0
            if line is None or not 0 < seq < 1 << 63:
                corrupt += 1
                continue
            if seq <= last:
                self.copies += 1
                continue
            if seq > last + 1:
                self._lose(source, last + 1, seq - 1, "corrupt" if corrupt else "gap", line)
            last, corrupt = seq, 0
            closed = line.table == "sources" and line.fields.get("event") == "closed"
            try:
                values = values_of(line)
            except Unfit:
                self._lose(source, seq, seq, "corrupt", None)
                continue
            self.rows[line.table].append(values)
            self._about[source] = line
        self.positions[source] = replace(before, seq=last, corrupt=corrupt, closed=closed)

    def move(self, source: str, number: int, offset: int) -> None:
        """The source has been read up to there."""
        self.positions[source] = replace(self.position(source), number=number, offset=offset)

    def finish(self, source: str) -> None:
        """No more will come: lines after the last row that were no rows are lost rows without a number."""
        at = self.position(source)
        if at.corrupt and not at.closed:
            self._losses.append((source, at.seq + 1, None, at.corrupt, "corrupt", None))
        if at.corrupt:
            self.positions[source] = replace(at, corrupt=0)

    def tell(self, time_ns: int) -> None:
        """Turn what was lost into rows of `losses`, about the job of the row that showed it."""
        for source, first, last, count, reason, line in self._losses:
            about = (line or self._about.get(source) or SpoolRow("losses", {}, {})).context
            self.told += 1
            context = {name: about.get(name) for name in _ABOUT}
            context |= {"source": COLLECTOR, "seq": self.told, "time_ns": time_ns}
            fields = {"lost_source": source, "first_seq": first, "last_seq": last, "rows": count, "reason": reason}
            try:
                row = values_of(SpoolRow("losses", fields, context))
            except Unfit:  # the row that showed the gap is itself damaged
                row = values_of(SpoolRow("losses", fields, {**dict.fromkeys(_ABOUT), **_own(context)}))
            self.rows["losses"].append(row)
        self._losses.clear()

    def _lose(self, source: str, first: int, last: int, reason: str, line: SpoolRow | None) -> None:
        if self._losses:
            before = self._losses[-1]
            if (before[0], before[2], before[4]) == (source, first - 1, reason):
                self._losses[-1] = (source, before[1], last, before[3] + last - first + 1, reason, before[5] or line)
                return
        self._losses.append((source, first, last, last - first + 1, reason, line))


def _own(context: Mapping[str, object]) -> dict[str, object]:
    return {name: context[name] for name in ("source", "seq", "time_ns")}
