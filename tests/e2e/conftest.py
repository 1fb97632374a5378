"""Homes with terminals; after every test no process that knows the home is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from phalanx.foundation import Home
from tests.e2e.terminal import Terminals, job_document
from tests.processes import left_behind
from tests.training.workers import write_text


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "files")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Terminals:
    """A job that `phalanx run` took to its report, disturbed by nobody; the first command of its terminals."""
    directory = tmp_path_factory.mktemp("finished")
    terminals = Terminals(Home.find(directory / "home"), directory)
    command = terminals.phalanx("run", terminals.write_job(job_document(text)))
    try:
        assert command.wait(200) == 0, command.said
    finally:
        command.kill()
        left = left_behind(terminals.home.root)
    assert left == {}
    return terminals


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    directory = tmp_path / "terminals"
    directory.mkdir()
    terminals = Terminals(Home.find(directory / "home"), directory)
    yield terminals
    still = [command for command in terminals.commands if command.process.poll() is None]
    for command in still:
        command.kill()
    assert left_behind(terminals.home.root) == {}
    assert not still, "a command did not end"
