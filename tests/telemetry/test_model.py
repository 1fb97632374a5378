"""Any order of emitting, collecting, tearing, copying and crashing ends as a few lines of Python say it must."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from unittest import mock

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from phalanx.events import Emitter
from phalanx.telemetry import Store
from tests.telemetry.spools import assert_tidy, collect, emitter, rows, steps
from tests.telemetry.test_faults import at_call, in_child, kill_self


class Telemetry(RuleBasedStateMachine):
    """The model: `written` are the steps whose emit succeeded, `dropped` those whose write failed."""

    @initialize()
    def begin(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="telemetry-"))
        self.no_platter = mock.patch.object(os, "fsync")  # a killed process's writes survive without
        self.no_platter.start()
        self.epoch = 1
        self.step = 0
        self.written: set[int] = set()
        self.dropped: set[int] = set()
        self.emitters: list[Emitter] = [emitter(self.home, file_bytes=700)]

    @rule(number=st.integers(0, 3), count=st.integers(1, 6))
    def emit(self, number: int, count: int) -> None:
        if self.emitters:
            sink = self.emitters[number % len(self.emitters)]
            for _ in range(count):
                self.step += 1
                before = sink.dropped
                sink.emit("steps", {"step": self.step})
                (self.written if sink.dropped == before else self.dropped).add(self.step)

    @rule()
    def begin_an_emitter(self) -> None:
        if len(self.emitters) < 4:
            self.emitters.append(emitter(self.home, file_bytes=700))

    @rule(number=st.integers(0, 3))
    def close_an_emitter(self, number: int) -> None:
        if self.emitters:
            self.emitters.pop(number % len(self.emitters)).close()

    @rule(number=st.integers(0, 3), share=st.floats(0, 0.99))
    def a_write_is_cut_short(self, number: int, share: float) -> None:
        """The disk was full for one row; the emitter goes on."""
        if not self.emitters:
            return
        sink, real = self.emitters[number % len(self.emitters)], os.write
        os.write = lambda descriptor, data: real(descriptor, data[: int(len(data) * share)])
        try:
            self.step += 1
            sink.emit("steps", {"step": self.step})
            self.dropped.add(self.step)
        finally:
            os.write = real

    @rule(count=st.integers(1, 20))
    def a_process_emits_and_is_killed(self, count: int) -> None:
        first = self.step + 1
        self.step += count

        def work() -> None:
            sink = emitter(self.home, file_bytes=700)
            for step in range(first, first + count):
                sink.emit("steps", {"step": step})
            kill_self()

        assert os.WTERMSIG(in_child(work)) == signal.SIGKILL
        self.written |= set(range(first, first + count))

    @rule(choice=st.integers(0, 9), jump=st.integers(1, 3))
    def a_spool_file_is_copied(self, choice: int, jump: int) -> None:
        found = sorted((self.home / "spool").iterdir())
        if found:
            path = found[choice % len(found)]
            source, number, _ = path.name.rsplit(".", 2)
            copy = path.with_name(f"{source}.{int(number) + jump:06d}.jsonl")
            if not copy.exists():
                shutil.copy(path, copy)

    @rule()
    def collect(self) -> None:
        collect(self.home, self.epoch)

    @rule()
    def another_takes_over(self) -> None:
        self.epoch += 1
        collect(self.home, self.epoch)

    @rule(call=st.integers(1, 40))
    def the_collector_is_killed(self, call: int) -> None:
        def work() -> None:
            at_call(call, kill_self)
            collect(self.home, self.epoch)

        in_child(work)
        self.epoch += 1  # the next holder of the lease

    @invariant()
    def nothing_is_in_the_store_that_was_not_written(self) -> None:
        if hasattr(self, "home"):
            found = steps(self.home)
            assert len(found) == len(set(found))
            assert set(found) <= self.written

    def teardown(self) -> None:
        if not hasattr(self, "home"):
            return
        for sink in self.emitters:
            sink.close()
        for _ in range(2):
            collect(self.home, self.epoch + 1)
        assert set(steps(self.home)) == self.written
        assert sum(row["rows"] for row in rows(self.home, "losses")) == len(self.dropped)
        assert list((self.home / "spool").iterdir()) == []
        assert_tidy(self.home)
        assert Store(self.home / "store").read().epoch == self.epoch + 1
        shutil.rmtree(self.home)
        self.no_platter.stop()


TestTelemetry = Telemetry.TestCase
TestTelemetry.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None, phases=[Phase.generate]
)  # shrinking takes minutes
