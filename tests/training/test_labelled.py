"""Workers on labelled examples: several compute what one does, and validate on what one does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from phalanx.job import Job
from tests.training.values import make_plan
from tests.training.workers import Run


def job_of(objective: str, directory: Path) -> Job:
    rows = []
    for number in range(90):
        words = [f"w{(number * place) % 7}" for place in range(1, 2 + number % 12)]
        label = {"classify": f"c{number % 3}", "regress": number % 5 / 2}.get(objective)
        tags = [word.upper() for word in words]
        rows.append({"tokens": words, "tags": tags} if label is None else {"text": " ".join(words), "label": label})
    source = directory / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {
        "model": {"name": "bert-tiny", "objective": objective, "dropout": 0.0},
        "data": {
            "source": str(source),
            "held_out": 0.2,
            "sequence_length": 16,
            "vocabulary": {"kind": "wordpiece", "size": 300},
        },
        "training": {"steps": 4, "global_batch": 9, "evaluate_every": 2, "checkpoint_every": 4, "seed": 2},
    }
    return Job.model_validate({"metadata": {"name": "small"}, "spec": spec})


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["classify", "regress", "tag"])
def test_two_workers_do_what_one_does(objective: str, tmp_path: Path) -> None:
    job = job_of(objective, tmp_path)
    runs = [
        Run(tmp_path / f"run-{count}", job, make_plan(count, 9, size), tmp_path / "cache")
        for count, size in ((1, 9), (2, 2))
    ]
    for run in runs:
        run.complete()
    one, two = (run.losses() for run in runs)
    assert one.keys() == two.keys() == {1, 2, 3, 4}
    assert two == pytest.approx(one, rel=1e-4)
    first, second = (run.rows("validations") for run in runs)
    assert len(first) == len(second) == 2
    for here, there in zip(first, second, strict=True):
        assert here["tokens"] == there["tokens"]
        assert there["loss"] == pytest.approx(here["loss"], rel=1e-4)
        assert (here["top1"] is None) == (objective == "regress")
