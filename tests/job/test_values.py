"""Values that one process leaves for another in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from phalanx.foundation import UsageError
from phalanx.job import Job, Member, WorkerExit, read_job, read_value

DEMO = Path(__file__).parents[2] / "examples" / "jobs" / "demo.yaml"


def test_a_value_comes_back_as_it_was_written(tmp_path: Path) -> None:
    job = read_job(DEMO)
    for by_alias in (True, False):
        (tmp_path / "job.json").write_text(job.model_dump_json(by_alias=by_alias))
        assert read_value(tmp_path / "job.json", Job) == job


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Invalid JSON"),
        ("3", "Input should be an object"),
        ('{"kind": "TrainingJob", "metadata": {"name": 3}}', "metadata.name: Input should be a valid string"),
        ("\x00", "Invalid JSON"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_place_and_remedy(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "job.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=said) as caught:
        read_value(path, Job)
    assert caught.value.where == str(path)
    assert caught.value.remedy == "run the job again"
    assert not caught.value.message.startswith(":")


@pytest.mark.parametrize("kind", [Job, Member, WorkerExit])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, kind: type[Job | Member | WorkerExit]) -> None:
    with pytest.raises(UsageError, match=r"absent\.json: cannot be read \(No such file or directory\)"):
        read_value(tmp_path / "absent.json", kind)
