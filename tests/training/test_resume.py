"""Interrupted and resumed equals uninterrupted: the same losses and the same bits, dropout on."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
import torch

from phalanx.job import EXIT_CODES
from tests.training.workers import Run, write_text

KILLED_WRITER = Path(__file__).with_name("killed_writer.py")


def assert_same_end(run: Run, expected: Run) -> None:
    """Every loss that any generation saw, and the last checkpoint, bit for bit."""
    for generation in {row for row in (1, 2, 3) if run.losses(generation=row)}:
        losses = run.losses(generation=generation)
        assert losses == {step: expected.losses()[step] for step in losses}
    assert sorted(run.losses()) == sorted(expected.losses())
    tensors, wanted = run.tensors(), expected.tensors()
    assert tensors.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(tensors[name], tensor), name


def test_two_uninterrupted_runs_are_equal(make_run, uninterrupted):
    run = make_run(2, dropout=0.2)
    run.complete()
    assert_same_end(run, uninterrupted)


def test_killed_between_two_checkpoints(make_run, uninterrupted):
    run = make_run(2, dropout=0.2)
    processes = run.start()
    run.wait_for_step(8, processes)
    for process in processes:
        process.kill()
    run.finish(processes)
    assert run.checkpoint().manifest.step in (5, 10)
    run.complete(generation=2)
    assert_same_end(run, uninterrupted)


@pytest.mark.parametrize("call", ["write 3", "fsync 2", "rename 1", "rename 2"])
def test_killed_while_a_checkpoint_is_written(make_run, uninterrupted, call):
    """Rank 0 is killed at that call of its second checkpoint (step 10)."""
    run = make_run(2, dropout=0.2)
    first, second = run.start(program=(str(KILLED_WRITER), *call.split()))
    assert first.wait(120) == -signal.SIGKILL
    assert second.wait(20) == EXIT_CODES["peer_lost"]
    assert "rank 0" in run.last_words(1, 1)
    run.complete(generation=2)
    assert run.rows("checkpoints", generation=2)[0]["event"] == "read"
    assert_same_end(run, uninterrupted)


def test_a_corrupted_newest_checkpoint_is_named_and_the_previous_used(make_run, uninterrupted):
    run = make_run(2, dropout=0.2, keep_checkpoints=5)
    run.complete()
    newest = run.checkpoint().path
    weights = newest / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 4
    weights.write_bytes(data)
    run.complete(generation=2)
    damaged, read, written = run.rows("checkpoints", generation=2, rank=0)
    assert (damaged["event"], damaged["path"]) == ("damaged", str(newest))
    assert "model.safetensors" in damaged["message"]
    assert (read["event"], read["step"]) == ("read", 10)
    assert (written["event"], written["step"]) == ("written", 14)
    assert [(row["event"], row["step"]) for row in run.rows("checkpoints", generation=2, rank=1)] == [("read", 10)]
    assert str(newest) in run.log(2, 0).read_text()
    assert min(run.losses(generation=2)) == 11
    assert_same_end(run, uninterrupted)


@pytest.mark.parametrize("signalled", [(0, 1), (1,)])
def test_sigterm_to_all_or_to_one_checkpoints_all_at_the_same_step(make_run, uninterrupted, signalled):
    run = make_run(2, dropout=0.2, checkpoint_every=1000)
    processes = run.start()
    run.wait_for_step(4, processes)
    for rank in signalled:
        processes[rank].send_signal(signal.SIGTERM)
    assert run.finish(processes) == [EXIT_CODES["preempted"]] * 2
    step = run.checkpoint().manifest.step
    assert max(run.losses(rank=0)) == max(run.losses(rank=1)) == step < 14
    assert "stopped after a checkpoint" in run.last_words(1, 0)
    run.complete(generation=2)
    assert min(run.losses(generation=2)) == step + 1
    assert_same_end(run, uninterrupted)


def test_sigterm_before_training_began_ends_at_once(make_run):
    run = make_run(2)
    first, second = run.start()
    second.kill()  # so that the first waits for it
    while Path(f"/proc/{first.pid}/cmdline").read_bytes() == b"":
        pass
    _wait_until_handled(first.pid)
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) in (EXIT_CODES["preempted"], -signal.SIGTERM)


def test_a_finished_run_has_nothing_left_to_do(make_run):
    run = make_run(1, steps=2)
    run.complete()
    run.complete(generation=2)
    assert not run.losses(generation=2)


def _wait_until_handled(pid: int) -> None:
    """Until the process has a handler for SIGTERM (SigCgt of proc_pid_status(5))."""
    caught = 0
    while not caught >> (signal.SIGTERM - 1) & 1:
        status = Path(f"/proc/{pid}/status").read_text()
        caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)


def test_text_that_changes_meanwhile_does_not_change_the_run(make_run, uninterrupted, tmp_path):
    """The vocabulary of bytes fits any text, so nothing else would notice."""
    text = write_text(tmp_path / "own-text")
    run = make_run(2, dropout=0.2, source=text)
    processes = run.start()
    run.wait_for_step(8, processes)
    for process in processes:
        process.kill()
    run.finish(processes)
    for file in text.iterdir():
        file.write_text("something else altogether\n" * 100)
    run.complete(generation=2)
    assert_same_end(run, uninterrupted)


def test_text_that_changed_and_is_nowhere_kept_ends_the_run_with_the_reason(make_run, tmp_path):
    text = write_text(tmp_path / "own-text")
    run = make_run(1, source=text)
    run.cache = tmp_path / "own-cache"
    run.complete()
    shutil.rmtree(run.cache)
    (text / "text-0.txt").write_text("something else altogether\n" * 100)
    assert run.finish(run.start(generation=2)) == [EXIT_CODES["bad_input"]]
    assert "the text has changed since the run began" in run.last_words(2, 0)
