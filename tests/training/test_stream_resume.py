"""A run on a dataset: killed and resumed by another number of workers, it sees the same global batches."""

import numpy as np
import pytest

from phalanx.job import EXIT_CODES, Job
from tests.data.streams import make
from tests.training.values import make_plan
from tests.training.workers import Run

MODELS = {"causal-lm": "gpt-tiny", "masked-lm": "bert-tiny"}
LENGTHS = np.random.default_rng(5).integers(1, 60, 90).tolist()  # some 2,700 tokens: the 14 steps go through an epoch


def job(source: object, objective: str) -> Job:
    spec = {
        "model": {"name": MODELS[objective], "objective": objective, "dropout": 0.0},
        "data": {"source": str(source), "sequence_length": 32, "cross_documents": False},
        "training": {"steps": 14, "global_batch": 7, "checkpoint_every": 5, "evaluate_every": 7, "seed": 3},
    }
    return Job.model_validate({"metadata": {"name": "streamed"}, "spec": spec})


def tokens_by_step(run: Run, **context: int) -> dict[int, tuple[int, int]]:
    """Tokens that all ranks read, and tokens that were predicted: of a masked run different in every step."""
    found: dict[int, tuple[int, int]] = {}
    for row in run.rows("steps", **context):
        read = found.get(row["step"], (0, 0))[0]
        found[row["step"]] = (read + row["tokens"], row["predicted_tokens"])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["causal-lm", "masked-lm"])
def test_killed_and_resumed_by_another_number_of_workers(tmp_path, objective) -> None:
    make(tmp_path / "data", LENGTHS, held_out=100)
    expected = Run(tmp_path / "alone", job(tmp_path / "data", objective), make_plan(1, 7, 4), tmp_path / "cache")
    run = Run(tmp_path / "resized", expected.job, make_plan(3, 7, 2), tmp_path / "cache")
    try:
        expected.complete()
        processes = run.start()
        run.wait_for_step(7, processes)
        for process in processes:
            process.kill()
        run.finish(processes)
        kept = run.checkpoint().manifest
        assert (kept.step, kept.data_cursor["step"]) in ((5, 5), (10, 10))
        run.plan = make_plan(2, 7, 3)
        (run.directory / "plan.json").write_text(run.plan.model_dump_json())
        run.complete(generation=2)
        whole = tokens_by_step(expected)
        assert len(whole) == 14
        for generation in (1, 2):
            own = tokens_by_step(run, generation=generation)
            complete = {step: own[step] for step in own if generation == 2 or step < max(own)}
            assert complete == {step: whole[step] for step in complete}
            for step, loss in run.losses(generation=generation).items():
                assert loss == pytest.approx(expected.losses()[step], rel=1e-4)
        assert run.checkpoint().manifest.data_cursor == expected.checkpoint().manifest.data_cursor
        held_out = [{row["step"]: row["loss"] for row in each.rows("validations")} for each in (run, expected)]
        assert held_out[0] == pytest.approx(held_out[1], rel=1e-4)
        for old in (tmp_path / "data").iterdir():
            old.unlink()
        make(tmp_path / "data", LENGTHS[1:], held_out=100)
        assert run.finish(run.start(generation=3)) == [EXIT_CODES["bad_input"]] * 2
        assert "built again" in run.last_words(3, 0)
    finally:
        run.kill()
        expected.kill()
