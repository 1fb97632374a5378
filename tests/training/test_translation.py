"""A job that translates: the same losses for any number of workers, a resumed run, and memory that is planned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from phalanx.data import Loader, LoaderSpec, prepare
from phalanx.job import Job
from phalanx.planning.subject import subject_of
from phalanx.planning.trace import trace_step
from phalanx.training import CheckpointMismatch
from phalanx.training.beginning import model_config
from tests.evaluation.test_translation import make_translation_job, write_pairs
from tests.training.values import make_plan
from tests.training.workers import Run


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    job = make_translation_job(write_pairs(tmp_path_factory.mktemp("pairs") / "text", count=200))
    training = {"steps": 9, "global_batch": 10, "checkpoint_every": 4, "evaluate_every": 4, "seed": 5}
    values = job.model_dump()
    values["spec"]["training"] |= training
    values["spec"]["model"]["dropout"] = 0.1
    return Job.model_validate(values)


def completed(directory: Path, job: Job, workers: int, cache: Path) -> Run:
    run = Run(directory, job, make_plan(workers, global_batch=10, micro_batch=3), cache)
    run.complete()
    return run


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_end_and_two_workers_share_the_work(tmp_path, job):
    cache = tmp_path / "cache"
    whole = completed(tmp_path / "whole", job, 2, cache)
    assert sorted(whole.losses()) == list(range(1, 10))
    assert whole.losses()[9] < whole.losses()[1]
    held_out = [row for row in whole.rows("validations") if row["step"] == 8]
    assert held_out[0]["bits_per_byte"] > 0

    run = Run(tmp_path / "killed", job, make_plan(2, global_batch=10, micro_batch=3), cache)
    processes = run.start()
    run.wait_for_step(5, processes)
    for process in processes:
        process.kill()
    run.finish(processes)
    run.complete(generation=2)
    for name, tensor in whole.tensors().items():
        assert torch.equal(run.tensors()[name], tensor), name


def test_one_worker_has_the_losses_of_two(tmp_path, job):
    values = job.model_dump()
    values["spec"]["model"]["dropout"] = 0.0
    plain = Job.model_validate(values)
    one, two = (completed(tmp_path / str(count), plain, count, tmp_path / "cache") for count in (1, 2))
    for step, loss in one.losses().items():
        assert two.losses()[step] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("name", ["rnn-attention", "rnn-encoder-decoder"])
def test_memory_of_a_step_is_traced_for_the_longest_pairs(tmp_path, job, name):
    values = job.model_dump()
    values["spec"]["model"]["name"] = name
    other = Job.model_validate(values)
    loader = Loader(prepare(other.spec.data, "translate", tmp_path / "cache"), LoaderSpec.of(other.spec))
    subject = subject_of(other, loader)
    batch = subject.batch(3)
    assert batch["target"].shape[1] == max(
        each.arrays["target"].shape[1] for step in range(30) for each in loader.micro_batches(step, 0, 1, 3)
    )
    trace = trace_step(subject, make_plan(1, global_batch=10, micro_batch=3))
    assert trace.count == sum(parameter.numel() for parameter in subject.make_model().parameters())
    assert trace.activations > 0


@pytest.mark.slow
def test_a_translator_begins_with_the_weights_of_another_and_only_of_its_kind(tmp_path, job):
    whole = completed(tmp_path / "first", job, 1, tmp_path / "cache")
    values = job.model_dump()
    values["spec"]["model"] |= {"weights": str(tmp_path / "first"), "dropout": 0.0}
    values["spec"]["training"] |= {"steps": 2}
    second = completed(tmp_path / "second", Job.model_validate(values), 1, tmp_path / "cache")
    assert second.losses()[1] < whole.losses()[1] - 0.1  # of the same first batch

    values["spec"]["model"]["name"] = "rnn-encoder-decoder"
    other = Job.model_validate(values)
    data = Loader(prepare(other.spec.prepared_data, "translate", tmp_path / "cache"), LoaderSpec.of(other.spec))
    with pytest.raises(CheckpointMismatch, match="attention True instead of False"):
        model_config(other.spec, data)
