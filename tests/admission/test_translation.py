"""Gate 1 of jobs that translate: files that are not there, vocabularies and models that cannot serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from phalanx.admission import gate_1
from phalanx.job import Job


@pytest.fixture
def source(tmp_path: Path) -> str:
    for side in ("de", "en"):
        (tmp_path / f"text.{side}").write_text(f"a line of {side}\n" * 40)
    return f"{tmp_path}/text.{{de,en}}"


def job(source: str, model: str = "rnn-attention", **data: Any) -> Job:
    values = {"source": source, "sequence_length": 32, "vocabulary": {"kind": "bpe", "size": 400}}
    spec = {
        "model": {"name": model, "objective": "translate"},
        "data": values | data,
        "training": {"steps": 3, "global_batch": 8},
    }
    return Job.model_validate({"metadata": {"name": "small"}, "spec": spec})


@pytest.mark.parametrize("model", ["rnn-attention", "rnn-encoder-decoder"])
def test_pairs_and_a_translator_are_admitted(source, model):
    decision = gate_1(job(source, model))
    assert (decision.verdict, decision.findings) == ("allow", ())
    assert decision.coverage.scanned[0] == "data: 2 files, 1,040 bytes"


def test_what_cannot_be_trained_is_blocked_with_where_and_why(source, tmp_path):
    def rules(asked: Job) -> set[str]:
        decision = gate_1(asked)
        assert decision.verdict == "block"
        assert all(finding.remedy for finding in decision.findings)
        return {finding.rule for finding in decision.findings}

    assert rules(job(f"{tmp_path}/other.{{de,en}}")) == {"data.missing"}
    assert rules(job(source, held_out_source=f"{tmp_path}/val.{{de,en}}")) == {"data.missing"}
    assert rules(job(source, vocabulary={"kind": "wordpiece"})) == {"data.vocabulary"}
    assert rules(job(source, model="bert-tiny")) == {"model.objective"}
    (tmp_path / "text.en").write_bytes(b"\xff\xfe")
    assert rules(job(source)) == {"data.not-text"}
    (tmp_path / "text.en").write_text("one\n")
    (tmp_path / "text.de").write_text("")
    assert len(rules(job(source))) == 1
