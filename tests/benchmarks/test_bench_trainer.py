import importlib.util
from pathlib import Path

import pytest

from benchmarks import bench_trainer
from benchmarks.harness import MissingData, Options
from phalanx.data import Corpus
from phalanx.job import read_job
from phalanx.models import resolve
from tests.benchmarks.conftest import LENGTH

needs_peer = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="the peer is not installed: `make bench` does that"
)


def test_without_the_peer_the_benchmark_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingData, match="make bench"):
        bench_trainer.run(Options(), lambda text: None)


def test_what_is_measured_is_the_example_job_with_another_vocabulary() -> None:
    job, example = bench_trainer.job_of(30522, 300, 64).spec, read_job(bench_trainer.EXAMPLE).spec
    assert job.model == example.model
    assert job.data.model_dump(exclude={"vocabulary"}) == example.data.model_dump(exclude={"vocabulary"})
    assert (job.data.vocabulary.size, job.training.precision) == (30522, "fp32")


def test_the_choice_with_the_best_of_its_measurements_is_taken_and_choices_take_turns() -> None:
    asked: list[int] = []
    speeds = {1: [10.0, 3.0], 2: [4.0, 9.0]}

    def measure(choice: int) -> float:
        asked.append(choice)
        return speeds[choice][asked.count(choice) - 1]

    assert bench_trainer.fastest(measure, (1, 2), rounds=2) == 1
    assert asked == [1, 2, 1, 2]


@pytest.mark.parametrize("accumulation", bench_trainer.ACCUMULATIONS)
def test_the_peer_reads_all_documents_of_a_step_however_it_divides_them(accumulation: int, tmp_path: Path) -> None:
    job = bench_trainer.job_of(4096, 7, 64)
    arguments = bench_trainer.peer_arguments(job, 51, accumulation, tmp_path)
    read = arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"]
    assert 51 <= read < 51 + accumulation
    assert arguments["max_steps"] == 7
    assert arguments["max_grad_norm"] == job.spec.training.clip


def test_a_step_of_the_peer_has_as_many_tokens_as_one_of_ours(small_corpus: Corpus, tmp_path: Path) -> None:
    config = resolve("bert-tiny", small_corpus.vocabulary.size, LENGTH)
    both = bench_trainer.Contest(small_corpus, config, 16, tmp_path)
    mean = sum(len(document) for document in bench_trainer.documents_of(small_corpus, LENGTH)) / both.documents
    assert both.documents_per_step * mean == pytest.approx(16 * LENGTH, rel=0.1)
    assert 1 <= both.steps_of_a_round() <= 50


@needs_peer
@pytest.mark.slow
def test_both_sides_train_and_neither_counts_padding() -> None:
    [result] = bench_trainer.run(Options(rounds=1, quick=True), lambda text: None)
    assert list(result.values) == ["phalanx", "transformers Trainer"]
    assert result.settings["transformers Trainer"]["train_sampling_strategy"] == "group_by_length"
    assert float(str(result.notes["relative difference of the losses"])) <= 1e-5
