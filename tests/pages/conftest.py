from __future__ import annotations

import pytest

from phalanx.events import emitter as emitter_module
from tests.pages.made import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time that emitters write; moves only by hand."""
    made = Clock()
    monkeypatch.setattr(emitter_module.time, "time_ns", made)
    return made
