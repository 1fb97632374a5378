"""Workers as processes: what they compute, what they say of it, and how they end when something is wrong."""

from __future__ import annotations

import math
import signal
import subprocess

import pytest
import torch
import torch.nn.functional as F

from phalanx.data import Loader, LoaderSpec, prepare
from phalanx.job import EXIT_CODES
from phalanx.training import load_model
from phalanx.training.worker import main


def test_two_workers_say_what_they_did(uninterrupted):
    run = uninterrupted
    for rank in (0, 1):
        rows = run.rows("steps", rank=rank)
        assert [row["step"] for row in rows] == list(range(1, 15))
        assert sum(row["tokens"] for row in rows) == 14 * 32 * (4 if rank == 0 else 3)
        for row in rows:
            assert row["predicted_tokens"] == 7 * 32
            parts = sum(row[f"{phase}_s"] for phase in ("data", "forward", "backward", "communication", "optimizer"))
            assert 0 < parts <= row["step_s"]
            assert row["memory_bytes"] > 50e6
            assert row["tokens_per_second"] == pytest.approx(7 * 32 / row["step_s"])
        events = [row["event"] for row in run.rows("sources", rank=rank)]
        assert events == ["opened", "closed"]
        peaks = [row["bytes"] for row in run.rows("memory", rank=rank) if row["category"] == "measured_peak"]
        assert peaks == sorted(peaks)
        assert peaks[-1] > 0
    assert run.losses(rank=0) == run.losses(rank=1), "the loss is the global one"
    assert [row["step"] for row in run.rows("validations")] == [7, 14]
    assert [(row["event"], row["step"]) for row in run.rows("checkpoints")] == [
        ("written", 5),
        ("written", 10),
        ("written", 14),
    ]
    losses = list(run.losses().values())
    assert losses[0] == pytest.approx(math.log(run.checkpoint().manifest.model["vocabulary_size"]), abs=1.0)
    assert losses[-1] < losses[0] - 0.3, "it learns"


def test_operations_become_rows_with_what_they_moved_and_how_long_it_took(uninterrupted):
    for rank in (0, 1):
        rows = [row for row in uninterrupted.rows("collectives", rank=rank) if row["name"] == "gradients"]
        assert len(rows) == 14
        for row in rows:
            assert (row["kind"], row["op"], row["ranks"], row["group_name"]) == ("allreduce", "sum", 2, "world")
            assert row["bytes"] > 0
            assert row["submitted_ns"] < row["finished_ns"]
            assert min(row["queued_s"], row["waited_s"], row["ran_s"]) >= 0


def test_the_checkpoint_is_enough_to_use_the_model(uninterrupted):
    """Loaded from the checkpoint alone, on the same held-out text, it has the loss that training said."""
    run = uninterrupted
    loaded = load_model(run.directory)
    assert loaded.manifest.step == 14
    assert loaded.job == run.job
    assert loaded.vocabulary.decode(loaded.vocabulary.encode("naïve text")) == "naïve text"
    assert not loaded.module.training
    spec = run.job.spec
    loader = Loader(prepare(spec.data, spec.model.objective, run.cache), LoaderSpec.of(spec))
    loss_sum = tokens = 0.0
    right = [0, 0]  # best guesses, and any of the best five: by torch's topk
    with torch.no_grad():
        for batch in loader.validation_batches(4 * 7 * 32, 3):
            arrays = {name: torch.from_numpy(array) for name, array in batch.arrays.items()}
            total, count = loaded.module.loss(arrays)
            loss_sum, tokens = loss_sum + float(total), tokens + int(count)
            best = loaded.module(arrays["tokens"][:, :-1]).topk(5).indices == arrays["tokens"][:, 1:, None]
            right = [right[0] + int(best[..., 0].sum()), right[1] + int(best.sum())]
    said = run.rows("validations")[-1]
    assert [said["top1"], said["top5"]] == pytest.approx([number / tokens for number in right], abs=2 / tokens)
    assert said["perplexity"] == math.exp(said["loss"])
    assert said["tokens"] == tokens
    assert said["loss"] == pytest.approx(loss_sum / tokens, rel=1e-5)
    assert said["bits_per_byte"] == pytest.approx(loss_sum / tokens / math.log(2), rel=0.02), "a byte is a token here"


def test_one_two_and_three_workers_train_the_same_model(make_run):
    """7 sequences a step divide by none of them but 1."""
    runs = [make_run(workers) for workers in (1, 2, 3)]
    for run in runs:
        run.complete()
    alone, *others = runs
    for run in others:
        assert run.losses() == pytest.approx(alone.losses(), rel=2e-4)
        for ours, theirs in zip(run.rows("validations"), alone.rows("validations"), strict=True):
            assert ours["tokens"] == theirs["tokens"]
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=2e-4)
            for name in ("top1", "top5"):  # a few tokens are on the edge
                assert ours[name] == pytest.approx(theirs[name], abs=0.01)
        tensors = run.tensors()
        for name, expected in alone.tensors().items():
            torch.testing.assert_close(tensors[name], expected, rtol=2e-2, atol=2e-3)


def test_the_loss_is_that_of_a_plain_loop_over_the_same_batches(make_run):
    """A loop that shares only the model's forward, the corpus and the initial weights with the worker."""
    from phalanx.models import build, resolve

    run = make_run(
        2,
        steps=4,
        optimizer={"name": "adamw", "lr": 1e-3, "weight_decay": 0.0},
        schedule={"name": "constant", "warmup": 0},
    )
    run.complete()
    spec = run.job.spec
    corpus = prepare(spec.data, spec.model.objective, run.cache)
    loader = Loader(corpus, LoaderSpec.of(spec))
    torch.manual_seed(spec.training.seed)
    model = build(resolve(spec.model.name, corpus.vocabulary.size, 32, 0.0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(4):
        tokens = torch.stack([torch.from_numpy(row.tokens) for row in loader.batch(step)])
        logits = model(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())
        assert run.losses()[step + 1] == pytest.approx(loss.item(), rel=1e-4), step
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def test_a_killed_rank_ends_the_other_with_peer_lost(make_run):
    run = make_run(2, steps=10_000)
    processes = run.start()
    run.wait_for_step(3, processes)
    processes[1].kill()
    assert processes[0].wait(20) == EXIT_CODES["peer_lost"]
    assert f"rank 1 (pid {processes[1].pid}) ended" in run.last_words(1, 0)
    dumps = run.directory / "flight-recorder" / "generation-1"
    assert {path.name for path in dumps.iterdir()} == {"rank-0", "rank-1"}  # the dead one's by the other


def test_a_rank_that_is_stopped_for_a_while_harms_nothing(make_run, uninterrupted):
    run = make_run(2, dropout=0.2)
    processes = run.start()
    run.wait_for_step(3, processes, rank=1)
    processes[1].send_signal(signal.SIGSTOP)
    with pytest.raises(subprocess.TimeoutExpired):
        processes[0].wait(1.0)
    processes[1].send_signal(signal.SIGCONT)
    assert run.finish(processes) == [0, 0]
    assert run.losses() == uninterrupted.losses()


def test_a_loss_that_is_no_number_ends_all_ranks_with_the_step_and_what_to_change(make_run):
    # Each step multiplies the weights by 1 - 10 * 0.99, about -9: after some forty they are no longer numbers.
    optimizer = {"name": "adamw", "lr": 10.0, "weight_decay": 0.99}
    schedule = {"name": "constant", "warmup": 0}
    run = make_run(2, clip=None, steps=200, optimizer=optimizer, schedule=schedule, checkpoint_every=200)
    assert run.finish(run.start()) == [EXIT_CODES["bad_input"]] * 2
    for rank in (0, 1):
        assert "lower training.optimizer.lr" in run.last_words(1, rank)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"source": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"model": "no-such-model"}, "no-such-model"),
        ({"global_batch": 100_000}, "fewer than one batch of 100,000"),
    ],
)
def test_input_that_cannot_be_used_ends_with_its_code_and_the_reason_last(make_run, options, said):
    run = make_run(1, **options)
    assert run.finish(run.start()) == [EXIT_CODES["bad_input"]]
    assert said in run.last_words(1, 0)
    assert "Traceback" not in run.log(1, 0).read_text()


def test_a_run_directory_without_a_job_is_bad_input(make_run):
    run = make_run(1)
    (run.directory / "job.json").write_text('{"spec": 3}')
    assert run.finish(run.start()) == [EXIT_CODES["bad_input"]]
    assert "job.json" in run.last_words(1, 0)


@pytest.mark.root
def test_a_full_disk_ends_with_one_clear_line_and_keeps_the_last_checkpoint(make_run, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    probe = make_run(1, steps=1)
    probe.complete()
    room = int(probe.checkpoint().bytes * 1.7) // 1024
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}k", "none", str(disk)], check=True)
    try:
        run = make_run(2, directory=disk / "run")
        first, second = run.finish(run.start())
        assert (first, second) == (1, EXIT_CODES["peer_lost"])
        assert "the disk is full" in run.last_words(1, 0)
        assert "step-00000010" in run.last_words(1, 0)
        assert run.checkpoint().manifest.step == 5
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_options_that_are_wrong_are_explained(capsys):
    with pytest.raises(SystemExit):
        main(["--run-dir"])
    assert "--run-dir" in capsys.readouterr().err
