"""A ground for an agent; nothing of it is left after a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from phalanx.foundation import Home
from tests.daemons.ground import Ground
from tests.processes import left_behind


@pytest.fixture
def ground(home: Home) -> Iterator[Ground]:
    ground = Ground(home)
    yield ground
    ground.close()
    assert left_behind(home.root) == {}
