"""The score of a text: every character but the first of each window counts once."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from benchmarks import bench_shakespeare
from phalanx.data.learn import vocabulary_of_bytes
from phalanx.job.yaml import dump_job, parse_job
from phalanx.models import build, resolve


def test_a_model_that_knows_nothing_pays_the_logarithm_of_its_vocabulary() -> None:
    vocabulary = vocabulary_of_bytes("causal-lm")
    fresh = build(resolve("gram-decoder", vocabulary.size, 32)).eval()
    found = bench_shakespeare.nats_a_character(fresh, vocabulary, b"to be or not to be " * 20, 32)
    assert found == pytest.approx(math.log(vocabulary.size), rel=1e-5)


def test_the_score_is_the_mean_of_a_plain_loop() -> None:
    vocabulary = vocabulary_of_bytes("causal-lm")
    torch.manual_seed(0)
    model = build(resolve("gram-decoder", vocabulary.size, 32)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    text = b"that is the question: whether tis nobler in the mind to suffer"
    tokens = torch.tensor(list(text))
    with torch.no_grad():
        logits = model(tokens[None, :32])[0].log_softmax(-1)  # 62 characters have one whole window and its answer
    costs = [-float(logits[place, tokens[place + 1]]) for place in range(32)]
    found = bench_shakespeare.nats_a_character(model, vocabulary, text, 32)
    assert found == pytest.approx(sum(costs) / len(costs), rel=1e-4)


def test_the_job_reads_the_text_it_is_given(tmp_path: Path) -> None:
    job = bench_shakespeare.job_on(tmp_path / "first.txt", quick=True)
    assert parse_job(dump_job(job), "job").spec.data.source == str(tmp_path / "first.txt")
    assert job.spec.training.steps == 20
