"""`phalanx job`: init, validate and schema as a person calls them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from phalanx.cli.job import command
from phalanx.foundation import StorageError, UsageError
from phalanx.job import JobFileError, json_schema, read_job

CASES = Path(__file__).parents[1] / "job" / "cases"


def test_init_writes_a_file_that_validate_likes(tmp_path: Path) -> None:
    file = tmp_path / "My Experiment_2.yaml"
    runner = CliRunner()
    assert runner.invoke(command, ["init", str(file)]).exit_code == 0
    assert read_job(file).metadata.name == "my-experiment-2"
    result = runner.invoke(command, ["validate", str(file)])
    assert result.exit_code == 0
    assert "valid" in result.output


def test_init_keeps_a_file_that_is_there(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("mine")
    result = CliRunner().invoke(command, ["init", str(file)])
    assert isinstance(result.exception, UsageError)
    assert file.read_text() == "mine"


@pytest.mark.skipif(os.geteuid() != 0 and not os.access("/proc", os.R_OK), reason="needs /proc")
def test_init_names_a_place_that_cannot_be_written() -> None:
    result = CliRunner().invoke(command, ["init", "/proc/job.yaml"])
    assert isinstance(result.exception, StorageError)
    assert "/proc/job.yaml" in str(result.exception)


def test_validate_raises_the_error_that_lists_every_problem() -> None:
    result = CliRunner().invoke(command, ["validate", str(CASES / "what-is-missing.yaml")])
    assert isinstance(result.exception, JobFileError)
    assert len(result.exception.problems) == 5


def test_validate_as_json_gives_problems_and_the_exit_code() -> None:
    result = CliRunner().invoke(command, ["validate", "--json", str(CASES / "too-many-workers.yaml")])
    assert result.exit_code == 2
    answer = json.loads(result.stdout)
    assert answer["valid"] is False
    assert answer["problems"][0]["line"] == 9
    assert answer["problems"][0]["path"] == ["spec", "workers", "count"]


def test_validate_as_json_gives_the_job_with_its_defaults(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    CliRunner().invoke(command, ["init", str(file)])
    answer = json.loads(CliRunner().invoke(command, ["validate", "--json", str(file)]).stdout)
    assert answer["valid"] is True
    assert answer["job"]["spec"]["training"]["optimizer"]["betas"] == [0.9, 0.95]


def test_schema_prints_the_schema() -> None:
    assert json.loads(CliRunner().invoke(command, ["schema"]).stdout) == json_schema()


@pytest.mark.parametrize("verb", [[], ["validate"], ["schema"], ["init"]])
def test_help_has_examples(verb: list[str]) -> None:
    assert "Examples:" in CliRunner().invoke(command, [*verb, "--help"]).output
