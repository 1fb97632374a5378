"""Ranks to be harmed, gone after the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.collectives.transports.team import Team, teams


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    yield from teams(tmp_path)
