"""State against a plain dictionary, against other processes, and against what disks do."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from phalanx.foundation import StorageError
from phalanx.state import Conflict, NotFound, SqliteState, StateDamaged, StateError

KIND = "TrainingJob"


@pytest.fixture
def state(tmp_path: Path) -> SqliteState:
    return SqliteState(tmp_path / "state.db")


def test_what_was_applied_is_read_back_by_another_opening(state: SqliteState) -> None:
    written = state.apply(KIND, "team", "a", {"steps": 3, "text": "ä\u2028"}, uid="u1", expect=0)
    again = SqliteState(state.path)
    assert again.get(KIND, "team", "a") == written
    assert again.list(KIND) == [written]
    assert again.list(KIND, "other") == []


def test_a_stale_write_is_a_conflict_and_changes_nothing(state: SqliteState) -> None:
    first = state.apply(KIND, "team", "a", {"n": 1}, uid="u", expect=0)
    second = state.apply(KIND, "team", "a", {"n": 2}, uid="u", expect=first.version)
    for stale in (0, first.version, second.version + 1):
        with pytest.raises(Conflict):
            state.apply(KIND, "team", "a", {"n": 3}, uid="u", expect=stale)
        with pytest.raises(Conflict):
            state.delete(KIND, "team", "a", expect=stale)
    assert state.get(KIND, "team", "a") == second


def test_status_survives_a_change_of_spec_but_not_a_new_uid(state: SqliteState) -> None:
    state.apply(KIND, "team", "a", {}, uid="u", expect=0)
    state.report(KIND, "team", "a", {"phase": "Running"})
    assert state.apply(KIND, "team", "a", {"suspend": True}, uid="u", expect=None).status == {"phase": "Running"}
    assert state.apply(KIND, "team", "a", {}, uid="other", expect=None).status == {}


def test_reporting_on_or_deleting_what_is_not_there_says_so(state: SqliteState) -> None:
    with pytest.raises(NotFound, match="team/a"):
        state.report(KIND, "team", "a", {})
    with pytest.raises(NotFound, match="team/a"):
        state.delete(KIND, "team", "a")


def test_a_watch_sees_each_change_once_in_order_and_deletions_too(state: SqliteState) -> None:
    a = state.apply(KIND, "team", "a", {}, uid="u", expect=0)
    state.apply("Other", "team", "x", {}, uid="u", expect=0)
    b = state.apply(KIND, "team", "b", {}, uid="u", expect=0)
    state.delete(KIND, "team", "a")
    seen = state.changes(a.version, [KIND])
    assert [(s.name, s.deleted) for s in seen] == [("b", False), ("a", True)]
    assert seen[0] == b
    assert state.changes(seen[-1].version, [KIND]) == []
    assert state.get(KIND, "team", "a") is None


def test_a_watch_wakes_when_another_connection_writes(state: SqliteState) -> None:
    writer = threading.Thread(target=lambda: SqliteState(state.path).apply(KIND, "team", "late", {}, uid="u", expect=0))
    writer.start()
    assert [s.name for s in state.watch([KIND], 0, timeout_s=30)] == ["late"]
    writer.join()
    newest = state.changes(0, [KIND])[-1].version
    assert state.watch([KIND], newest, timeout_s=0.01) == []


def test_a_lease_has_one_holder_and_its_epoch_grows_with_each_new_one(state: SqliteState) -> None:
    first = state.lease("store", "me", 60)
    assert first is not None
    assert first.epoch == 1
    assert state.lease("store", "you", 60) is None
    renewed = state.lease("store", "me", 60)
    assert renewed is not None
    assert renewed.epoch == 1
    state.release("store", "you")
    assert state.holder("store") == renewed
    state.release("store", "me")
    assert state.holder("store") is None
    taken = state.lease("store", "you", 60)
    assert taken is not None
    assert taken.epoch == 2


def test_a_lease_ends_with_its_time_or_with_its_holder(tmp_path: Path) -> None:
    dead: set[str] = set()
    state = SqliteState(tmp_path / "state.db", is_alive=lambda holder: holder not in dead)
    assert state.lease("a", "me", -1) is not None
    assert state.holder("a") is None
    expired = state.lease("a", "me", 60)
    assert expired is not None
    assert expired.epoch == 2, "a lease that ran out may have been used by another in between"
    dead.add("me")
    assert state.holder("a") is None
    assert state.lease("a", "you", 60) is not None


def test_concurrent_increments_of_many_processes_all_count(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    SqliteState(path).apply(KIND, "team", "counter", {"n": 0}, uid="u", expect=0)
    program = """
import sys
from pathlib import Path
from phalanx.state import Conflict, SqliteState
state = SqliteState(Path(sys.argv[1]))
for _ in range(25):
    while True:
        seen = state.get("TrainingJob", "team", "counter")
        try:
            state.apply("TrainingJob", "team", "counter", {"n": seen.spec["n"] + 1}, uid="u", expect=seen.version)
            break
        except Conflict:
            pass
"""
    processes = [subprocess.Popen([sys.executable, "-c", program, str(path)]) for _ in range(3)]
    assert [p.wait(timeout=120) for p in processes] == [0, 0, 0]
    counter = SqliteState(path).get(KIND, "team", "counter")
    assert counter is not None
    assert counter.spec["n"] == 75


def test_a_writer_killed_at_any_moment_leaves_a_state_that_opens_and_holds_all_it_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    program = """
import sys
from pathlib import Path
from phalanx.state import SqliteState
state = SqliteState(Path(sys.argv[1]))
n = 0
while True:
    n += 1
    state.apply("TrainingJob", "team", "a", {"n": n}, uid="u", expect=None)
    print(n, flush=True)
"""
    for delay in (0.0, 0.003, 0.011):
        with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)  # the moment of death is the input of this test, nothing waits for it
            process.send_signal(signal.SIGKILL)
            acknowledged = [int(line) for line in process.stdout if line.endswith("\n")]
        found = SqliteState(path).get(KIND, "team", "a")
        assert found is not None
        assert found.spec["n"] >= max(acknowledged, default=1)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"this is not a database, it is a poem" * 100)
    with pytest.raises(StateDamaged, match=r"state\.db"):
        SqliteState(path)
    assert path.read_bytes().startswith(b"this is not")


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    SqliteState(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StateDamaged, match="newer Phalanx"):
        SqliteState(path)


def test_the_database_is_private(state: SqliteState) -> None:
    assert os.stat(state.path).st_mode & 0o077 == 0


@pytest.mark.root
def test_a_full_disk_is_said_and_what_was_written_stays(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=True)
    try:
        state = SqliteState(disk / "state.db")
        written = 0
        with pytest.raises(StorageError, match=r"state\.db"):  # noqa: PT012 - which write meets the full disk is not known
            for n in range(1000):
                state.apply(KIND, "team", f"a{n}", {"text": "x" * 4000}, uid="u", expect=0)
                written += 1
        assert 0 < written < 1000
        assert len(state.list(KIND)) == written
        state.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


class AgainstADictionary(RuleBasedStateMachine):
    """Random writes give what the same writes on a dictionary give."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self._directory = tempfile.TemporaryDirectory()
        self.state = SqliteState(Path(self._directory.name) / "state.db")
        self.model: dict[str, int] = {}

    names = st.sampled_from(["a", "b", "c"])

    @rule(name=names, n=st.integers())
    def write(self, name: str, n: int) -> None:
        self.state.apply(KIND, "team", name, {"n": n}, uid="u", expect=None)
        self.model[name] = n

    @rule(name=names)
    def create(self, name: str) -> None:
        try:
            self.state.apply(KIND, "team", name, {"n": -1}, uid="u", expect=0)
            assert name not in self.model
            self.model[name] = -1
        except Conflict:
            assert name in self.model

    @rule(name=names)
    def remove(self, name: str) -> None:
        try:
            self.state.delete(KIND, "team", name)
            del self.model[name]
        except NotFound:
            assert name not in self.model

    @invariant()
    def same(self) -> None:
        assert {s.name: s.spec["n"] for s in self.state.list(KIND)} == self.model

    def teardown(self) -> None:
        self.state.close()
        self._directory.cleanup()


AgainstADictionary.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestAgainstADictionary = AgainstADictionary.TestCase


def test_a_new_database_can_be_opened_by_many_at_the_same_moment(tmp_path: Path) -> None:
    failed: list[StorageError | StateError] = []
    for attempt in range(40):
        together = threading.Barrier(4)

        def open_it(path: Path, together: threading.Barrier = together) -> None:
            together.wait()
            try:
                SqliteState(path).close()
            except (StorageError, StateError) as error:
                failed.append(error)

        threads = [threading.Thread(target=open_it, args=(tmp_path / f"{attempt}.db",)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed
