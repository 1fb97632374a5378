"""Ranks to be told what to do: `crew(2)`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.horovod.crew import Crews, crews


@pytest.fixture(scope="session")
def crew() -> Iterator[Crews]:
    with crews() as made:
        yield made
