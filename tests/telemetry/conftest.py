from __future__ import annotations

import os

import pytest


@pytest.fixture
def no_platter(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written survives a killed process without fsync, which takes most of the time of hundreds of rounds."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
