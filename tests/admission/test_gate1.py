"""Gate 1: what is refused before anything is planned, each with where it stands and what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from phalanx.admission import gate_1
from phalanx.job import Decision, Finding, Job
from phalanx.models.catalog import MODELS
from tests.data.streams import make as make_dataset


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "words.txt"
    file.write_text("a few words, and a few more\n" * 400)
    return file


def job(source: object, **changes: dict[str, Any]) -> Job:
    """A job that is admitted, with parts of its spec changed."""
    spec: dict[str, dict[str, Any]] = {
        "model": {"name": "gpt-tiny", "objective": "causal-lm"},
        "data": {"source": str(source), "sequence_length": 32},
        "training": {"steps": 3, "global_batch": 8},
        "workers": {"count": 2},
    }
    for part, values in changes.items():
        spec[part] = spec.get(part, {}) | values
    return Job.model_validate({"metadata": {"name": "small"}, "spec": spec})


def blocked(decision: Decision) -> Finding:
    """The one finding that blocks."""
    assert decision.verdict == "block"
    serious = [finding for finding in decision.findings if finding.severity in ("high", "critical")]
    assert len(serious) == 1
    assert serious[0].remedy
    assert serious[0].evidence
    return serious[0]


def test_a_job_that_can_be_carried_out_is_allowed_and_coverage_says_what_was_looked_at(text: Path) -> None:
    decision = gate_1(job(text))
    assert (decision.verdict, decision.gate, decision.findings) == ("allow", 1, ())
    assert f"data: 1 files, {text.stat().st_size:,} bytes" in decision.coverage.scanned
    assert all(":" in reason for reason in decision.coverage.skipped)


@pytest.mark.parametrize(
    ("model", "objective"),
    [
        (name, objective)
        for name, entry in MODELS.items()
        for objective in ("causal-lm", "masked-lm")
        if objective in entry.objectives
    ],
)
def test_every_model_of_the_catalogue_is_admitted_for_its_objective(text: Path, model: str, objective: str) -> None:
    assert gate_1(job(text, model={"name": model, "objective": objective})).verdict == "allow"


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    finding = blocked(gate_1(job(tmp_path / "nothing")))
    assert (finding.rule, finding.subject) == ("data.missing", str(tmp_path / "nothing"))


def test_an_empty_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    assert blocked(gate_1(job(tmp_path / "empty.txt"))).rule == "data.empty"
    (tmp_path / "directory").mkdir()
    assert blocked(gate_1(job(tmp_path / "directory"))).rule == "data.empty"


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(bytes(range(256)) * 40)
    assert blocked(gate_1(job(file))).rule == "data.not-text"


def test_what_a_source_leaves_out_is_said_and_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words\n" * 2000)
    (tmp_path / "b.bin").write_bytes(b"\0\1\2" * 100)
    decision = gate_1(job(tmp_path))
    assert decision.verdict == "allow"
    assert [finding.severity for finding in decision.findings] == ["info"]


def test_an_unknown_model_is_refused_with_the_nearest_name(text: Path) -> None:
    finding = blocked(gate_1(job(text, model={"name": "gpt-tinny", "objective": "causal-lm"})))
    assert finding.rule == "model.unknown"
    assert "did you mean gpt-tiny?" in finding.remedy


def test_a_model_like_no_other_is_refused_with_all_there_are(text: Path) -> None:
    finding = blocked(gate_1(job(text, model={"name": "zzz", "objective": "causal-lm"})))
    assert all(name in finding.remedy for name in MODELS)


def test_an_objective_that_the_model_does_not_learn_is_refused(text: Path) -> None:
    finding = blocked(gate_1(job(text, model={"name": "bert-tiny", "objective": "causal-lm"})))
    assert finding.rule == "model.objective"
    assert "masked-lm" in finding.remedy
    assert "gpt-tiny" in finding.remedy


def test_a_vocabulary_that_cannot_serve_the_objective_is_refused(text: Path) -> None:
    finding = blocked(gate_1(job(text, data={"vocabulary": {"kind": "wordpiece", "size": 4096}})))
    assert finding.rule == "data.vocabulary"


@pytest.mark.parametrize("demand", [{"isolation": "microvm"}, {"network": "segment"}, {"integrity": "signed"}])
def test_a_demand_that_no_room_enforces_is_refused(text: Path, demand: dict[str, str]) -> None:
    finding = blocked(gate_1(job(text, security=demand)))
    ((name, value),) = demand.items()
    assert finding.location == f"spec.security.{name}"
    assert value in finding.evidence
    assert f"{name}: auto" in finding.remedy


@pytest.mark.parametrize("strategy", ["sharded", "tensor", "pipeline", "hybrid"])
def test_a_split_that_nobody_carries_out_is_refused(text: Path, strategy: str) -> None:
    finding = blocked(gate_1(job(text, workers={"strategy": strategy})))
    assert finding.rule == "workers.strategy"
    assert "strategy: data" in finding.remedy


@pytest.mark.parametrize("axis", ["shard", "tensor", "pipeline"])
def test_a_mesh_with_another_axis_than_data_is_refused(text: Path, axis: str) -> None:
    finding = blocked(gate_1(job(text, workers={"count": 2, "mesh": {axis: 2}})))
    assert (finding.rule, finding.subject) == ("workers.mesh", axis)


def test_a_mesh_along_data_is_allowed(text: Path) -> None:
    assert gate_1(job(text, workers={"count": 2, "strategy": "data", "mesh": {"data": 2}})).verdict == "allow"


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    wrong = job(
        tmp_path / "nothing",
        model={"name": "none-such", "objective": "causal-lm"},
        workers={"strategy": "tensor"},
        security={"isolation": "microvm", "network": "segment"},
    )
    rules = [finding.rule for finding in gate_1(wrong).findings]
    assert rules == ["data.missing", "model.unknown", "workers.strategy", *["security.unenforceable"] * 2]
    assert len({finding.id for finding in gate_1(wrong).findings}) == 5


def test_admission_loads_no_torch() -> None:
    program = "import sys, phalanx.admission; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_built_dataset_is_admitted_without_a_look_at_the_vocabulary_of_the_job(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", [30] * 20)
    decision = gate_1(job(tmp_path / "data", data={"sequence_length": 16}))
    assert (decision.verdict, decision.findings) == ("allow", ())


@pytest.mark.parametrize(
    ("changes", "evidence"),
    [
        ({"data": {"vocabulary": {"kind": "bpe"}}}, "has its vocabulary already"),
        ({"data": {"held_out": 0.2}}, "has its held-out part already"),
        ({"data": {"sequence_length": 512}}, "fewer than one batch"),
        ({"model": {"name": "bert-tiny", "objective": "classify"}}, "text without labels"),
    ],
)
def test_what_a_built_dataset_cannot_give_is_refused(tmp_path: Path, changes: dict[str, Any], evidence: str) -> None:
    make_dataset(tmp_path / "data", [30] * 20)
    assert evidence in blocked(gate_1(job(tmp_path / "data", **changes))).evidence


def test_a_cut_shard_is_refused_by_name(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", [30] * 20)
    file = tmp_path / "data" / "train-00001.tokens"
    file.write_bytes(file.read_bytes()[:-2])
    found = blocked(gate_1(job(tmp_path / "data")))
    assert (found.subject, "was cut" in found.evidence) == (str(file), True)


REVIEWS = "sentence\tlabel\n" + "".join(f"review number {number}\t{number % 2}\n" for number in range(40))
CLASSIFY = {"name": "bert-tiny", "objective": "classify"}
PIECES = {"vocabulary": {"kind": "wordpiece"}}


def test_labelled_examples_are_admitted(tmp_path: Path) -> None:
    (tmp_path / "reviews.tsv").write_text(REVIEWS)
    decision = gate_1(job(tmp_path / "reviews.tsv", model=CLASSIFY, data=PIECES))
    assert (decision.verdict, decision.findings) == ("allow", ())


@pytest.mark.parametrize(
    ("text", "data", "evidence"),
    [
        (REVIEWS, {"columns": {"label": "stars"}}, "there is no column 'stars': sentence, label"),
        (REVIEWS, {"held_out_source": "/none/dev.tsv"}, "there is no such file"),
        ("", {}, "there are no examples in it"),
        ("caf\xe9\t1\n", {}, "line 1 is not UTF-8"),
        (REVIEWS, {"vocabulary": {"path": "/none"}}, "there is no such path"),
    ],
)
def test_examples_that_cannot_be_used_are_refused(
    tmp_path: Path, text: str, data: dict[str, Any], evidence: str
) -> None:
    (tmp_path / "reviews.tsv").write_text(text, "latin-1")
    assert evidence in blocked(gate_1(job(tmp_path / "reviews.tsv", model=CLASSIFY, data=PIECES | data))).evidence


def test_weights_must_lead_to_a_model(tmp_path: Path) -> None:
    (tmp_path / "reviews.tsv").write_text(REVIEWS)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    begun = CLASSIFY | {"weights": str(tmp_path / "weights")}
    found = blocked(gate_1(job(tmp_path / "reviews.tsv", model=begun)))
    assert (found.rule, found.location) == ("model.weights", "spec.model.weights")
    (tmp_path / "weights" / "config.json").write_text("{}")
    assert gate_1(job(tmp_path / "reviews.tsv", model=begun)).verdict == "allow"
    pretraining = {"name": "bert-tiny", "objective": "masked-lm", "weights": str(tmp_path / "weights")}
    wrong = blocked(gate_1(job(tmp_path / "reviews.tsv", model=pretraining)))
    assert wrong.evidence == "the vocabulary has no [MASK], which masked-lm needs"
