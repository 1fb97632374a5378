"""`phalanx plan` as a person calls it: what it shows, what it refuses and with which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from phalanx.cli.plan import command, lines_of
from phalanx.data import TextTooSmall
from phalanx.foundation import PhalanxError
from phalanx.job import HostFacts, MemoryPrediction, MeshSpec, Plan, Predicted
from tests.training.values import make_job, make_plan
from tests.training.workers import write_text

MIB = 1 << 20
Invoke = Callable[..., Result]


def job_file(directory: Path, source: object, model: str = "gpt-tiny", extra: str = "", **training: object) -> Path:
    values = {"steps": 3, "globalBatch": 8, "precision": "fp32", "microBatch": 4} | training
    file = directory / "job.yaml"
    file.write_text(
        "apiVersion: phalanx.dev/v1alpha1\nkind: TrainingJob\nmetadata: {name: small, namespace: team}\nspec:\n"
        f"  model: {{name: {model}, objective: causal-lm}}\n"
        f"  data: {{source: {source}, sequenceLength: 32, heldOut: 0.2}}\n"
        f"  training: {json.dumps(values)}\n{extra}"
    )
    return file


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "files")


@pytest.fixture
def plan(tmp_path: Path) -> Invoke:
    def invoke(file: Path, *options: str) -> Result:
        return CliRunner().invoke(
            command, [str(file), "--home", str(tmp_path / "home"), *options], standalone_mode=False
        )

    return invoke


def test_a_job_is_planned_and_nothing_but_the_cache_is_left(tmp_path: Path, text: Path, plan: Invoke) -> None:
    result = plan(job_file(tmp_path, text, extra="  workers: {count: 2}\n"), "--json")
    assert result.return_value == 0, result.exception
    answer = json.loads(result.stdout)
    assert [decision["verdict"] for decision in answer["decisions"]] == ["allow", "allow"]
    found = Plan.model_validate(answer["plan"])
    assert (found.mesh, found.micro_batch, found.accumulation) == (MeshSpec(data=2), 4, 1)
    assert found.predicted.parameters > 0
    assert [file.name for file in (tmp_path / "home").iterdir()] == ["cache"]


def test_too_little_text_is_the_planners_own_words(tmp_path: Path, text: Path, plan: Invoke) -> None:
    result = plan(job_file(tmp_path, text, globalBatch=90_000))
    assert isinstance(result.exception, PhalanxError)
    assert result.exception.exit_code == TextTooSmall.exit_code
    assert "fewer than one batch of 90,000" in str(result.exception)
    assert result.exception.remedy


@pytest.mark.parametrize(
    ("content", "rule"), [(None, "data.missing"), (b"", "data.empty"), (bytes(range(256)) * 20, "data.not-text")]
)
def test_data_that_cannot_be_used_is_not_admitted(
    tmp_path: Path, plan: Invoke, content: bytes | None, rule: str
) -> None:
    source = tmp_path / "source"
    if content is not None:
        source.write_bytes(content)
    result = plan(job_file(tmp_path, source))
    assert result.return_value == 1
    assert f"x {rule}: {source}" in result.output
    assert "To do:" in result.output
    assert "not admitted" in result.output


def test_an_unknown_model_is_not_admitted(tmp_path: Path, text: Path, plan: Invoke) -> None:
    result = plan(job_file(tmp_path, text, model="gtp-tiny"), "--json")
    assert result.return_value == 1
    answer = json.loads(result.stdout)
    assert answer["plan"] is None
    (finding,) = answer["decisions"][0]["findings"]
    assert "gpt-tiny" in finding["remedy"]


def test_a_microvm_is_not_admitted(tmp_path: Path, text: Path, plan: Invoke) -> None:
    result = plan(job_file(tmp_path, text, extra="  security: {isolation: microvm}\n"))
    assert result.return_value == 1
    assert "isolation: microvm is demanded" in result.output
    assert "isolation: auto" in result.output


@pytest.mark.parametrize("count", [0, -1, 9, 5000])
def test_zero_or_too_many_workers_are_refused_with_the_line(
    tmp_path: Path, text: Path, plan: Invoke, count: int
) -> None:
    result = plan(job_file(tmp_path, text, extra=f"  workers: {{count: {count}}}\n"))
    assert isinstance(result.exception, PhalanxError)
    assert result.exception.exit_code == 2
    assert "workers.count" in str(result.exception)


def test_the_plan_is_said_in_words_for_a_person() -> None:
    memory = MemoryPrediction(
        parameters=5 * MIB, gradients=5 * MIB, optimizer=10 * MIB, activations=60 * MIB, other=20 * MIB
    )
    predicted = Predicted(memory=memory, step_seconds=0.5, flops=1e9, checkpoint_bytes=15 * MIB, parameters=1_310_720)
    smaller = make_plan(2, 7, 1, predicted=predicted)
    plan = make_plan(
        2, 7, 2, predicted=predicted, reasons=("it is fast",), not_enforced=("isolation",), fallbacks=(smaller,)
    )
    facts = HostFacts(
        host="here", cores=2, memory_bytes=1 << 33, memory_available_bytes=1 << 32, disk_free_bytes=1 << 33
    )
    said = "\n".join(lines_of(make_job("x"), plan, facts))
    for words in (
        "1,310,720 parameters",
        "2 (mesh: data 2), 1 thread each",
        "7 sequences of 32 tokens a step: 2 at once, 2 times, on each worker",
        "100 MiB a worker at the peak",
        "60.0 MiB  activations",
        "4.00 GiB is available",
        "500 ms a step, about 448 tokens/s; 14 steps: 7 s, then",
        "- it is fast",
        "1 at once, 4 times: 100 MiB a worker",
        "- isolation",
    ):
        assert words in said


def test_planning_loads_no_torch_into_the_command() -> None:
    program = "import sys, phalanx.cli.plan, phalanx.admission; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ)


def test_help_has_examples() -> None:
    assert "Examples:" in CliRunner().invoke(command, ["--help"]).output
