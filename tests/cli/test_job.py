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


@pytest.mark.parametrize(
    ("written", "instead", "said"),
    [
        ("gpt-tiny", "gpt-tny", "a.yaml:5: spec.model.name: there is no model 'gpt-tny'; did you mean gpt-tiny?"),
        ("causal-lm", "masked-lm", "a.yaml:6: spec.model.objective: gpt-tiny learns causal-lm, not masked-lm"),
        ("kind: bytes", "kind: wordpiece", "a.yaml:7: spec.data.vocabulary.kind: a wordpiece vocabulary loses case"),
    ],
)
def test_validate_finds_what_can_be_learned_nowhere(tmp_path: Path, written: str, instead: str, said: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "apiVersion: phalanx.dev/v1alpha1\nkind: TrainingJob\nmetadata: {name: a}\nspec:\n"
        "  model: {name: gpt-tiny,\n          objective: causal-lm}\n"
        "  data: {source: not-there-yet, sequenceLength: 128, vocabulary: {kind: bytes}}\n"
        "  training: {steps: 3}\n"
    )
    assert CliRunner().invoke(command, ["validate", str(file)]).exit_code == 0
    file.write_text(file.read_text().replace(written, instead))
    error = CliRunner().invoke(command, ["validate", str(file)]).exception
    assert isinstance(error, JobFileError)
    assert said in str(error)


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
