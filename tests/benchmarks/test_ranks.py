from pathlib import Path

import pytest

from benchmarks import ranks
from benchmarks.jobs import plan_of
from benchmarks.ranks import RankFailed, Window, padding_share, run_ranks, tokens_per_cpu_second, tokens_per_second
from phalanx.data import Corpus, Loader, LoaderSpec
from phalanx.events import list_files, read_rows
from phalanx.job import Job
from tests.benchmarks.conftest import LENGTH

WINDOWS = [
    Window(tokens=300, places=400, seconds=2.0, cpu_seconds=1.5, loss=1.0),
    Window(tokens=100, places=100, seconds=4.0, cpu_seconds=0.5, loss=1.0),
]


def test_speed_is_the_tokens_of_all_over_the_time_of_the_slowest() -> None:
    assert tokens_per_second(WINDOWS) == 100
    assert tokens_per_cpu_second(WINDOWS) == 200
    assert padding_share(WINDOWS) == pytest.approx(0.2)


@pytest.fixture
def job(small_corpus: Corpus) -> Job:
    """BERT-Tiny on the small corpus: 4 steps of 5 rows, on two workers."""
    spec = {
        "model": {"name": "bert-tiny", "objective": "masked-lm"},
        "data": {"source": small_corpus.manifest.source, "sequence_length": LENGTH},
        "training": {"steps": 4, "global_batch": 5, "precision": "fp32"},
        "workers": {"count": 2},
    }
    return Job.model_validate({"metadata": {"name": "small"}, "spec": spec})


@pytest.mark.parametrize(("micro_batch", "kept", "parts"), [(1, 1, 3), (2, 2, 2), (99, 3, 1)])
def test_a_plan_covers_the_share_of_the_worker_with_most(job: Job, micro_batch: int, kept: int, parts: int) -> None:
    plan = plan_of(job, micro_batch)
    assert (plan.micro_batch, plan.accumulation) == (kept, parts)
    assert plan.mesh.data == 2


def test_our_side_trains_on_two_ranks_and_counts_what_they_read_after_the_warm_up(
    small_corpus: Corpus, job: Job, tmp_path: Path
) -> None:
    orders = {
        "corpus": str(small_corpus.directory),
        "job": job.model_dump(mode="json"),
        "plan": plan_of(job, 2).model_dump(mode="json"),
        "entries": 500,
        "warmup": 1,
        "spool": str(tmp_path / "spool"),
    }
    windows = run_ranks("side_phalanx", orders, 2, tmp_path)
    loader = Loader(small_corpus, LoaderSpec.of(job.spec))
    for rank, window in enumerate(windows):
        batches = [batch for step in (1, 2, 3) for batch in loader.micro_batches(step, rank, 2, 2)]
        assert window.tokens == sum(batch.real_tokens for batch in batches)
        assert window.places == sum(batch.arrays["tokens"].size for batch in batches)
    steps = [row for file in list_files(tmp_path / "spool") for row in read_rows(file.path) if row.table == "steps"]
    assert len(steps) == 2 * job.spec.training.steps
    assert windows[0].loss == windows[1].loss


def test_a_rank_that_fails_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(RankFailed, match=r"(?s)side_phalanx, rank \d ended with 1:.*corpus"):
        run_ranks("side_phalanx", {}, 2, tmp_path)


def test_ranks_that_never_end_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "TIMEOUT_S", 0)
    started = []
    real_start = ranks.start
    monkeypatch.setattr(ranks, "start", lambda *args, **more: started.append(real_start(*args, **more)) or started[-1])
    with pytest.raises(RankFailed, match="not ended after 0 s"):
        run_ranks("side_phalanx", {}, 2, tmp_path)
    assert [process.returncode for process in started] == [-9, -9]
