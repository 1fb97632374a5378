"""Labelled examples judged: against predictions made one by one, and scikit-learn's numbers of them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn import metrics

from phalanx.data.errors import BadTable
from phalanx.evaluation import evaluate
from phalanx.evaluation.evaluator import find_answers
from phalanx.evaluation.labelled import judge_file, more_numbers
from phalanx.events.tables import TABLES
from phalanx.foundation import UsageError
from phalanx.job.spec import Objective
from phalanx.pages.checkpoint import render_checkpoint
from phalanx.pages.run_files import parse_evaluation
from phalanx.pages.verdict import _scored
from tests.evaluation.runs import Trained, make_job, train

OBJECTIVES: list[Objective] = ["classify", "regress", "tag"]
WORDS = "alpha beta gamma delta eta theta iota kappa lambda mu".split()  # noqa: SIM905


def write(directory: Path, objective: Objective) -> Path:
    draw = random.Random(7)
    rows = [draw.choices(WORDS, k=draw.randint(2, 9)) for _ in range(160)]
    if objective == "tag":
        kinds = {"alpha": "B-A", "beta": "B-B"}
        text = "\n\n".join("\n".join(f"{word} {kinds.get(word, 'O')}" for word in words) for words in rows)
        path = directory / "words.conll"
    else:
        labels = [len(w) / 3 if objective == "regress" else "yes" if "alpha" in w else "no" for w in rows]
        text = "".join(
            json.dumps({"text": " ".join(words), "text2": "kappa mu", "label": label}) + "\n"
            for words, label in zip(rows, labels, strict=True)
        )
        path = directory / "texts.jsonl"
    path.write_text(text)
    return path


@pytest.fixture(scope="module", params=OBJECTIVES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    place = tmp_path_factory.mktemp(request.param)
    job = make_job(write(place, request.param), request.param, held_out=0.3)
    return train(place / "run", job, place / "cache", steps=25)


@pytest.fixture(scope="module")
def document(trained: Trained) -> dict[str, Any]:
    return json.loads(evaluate(trained.directory, trained.cache).to_json())


def one_by_one(run: Trained, name: str = "held_out") -> tuple[Any, Any]:
    """Truths and the model's outputs, each example alone in its row, unpacked."""
    corpus, vocabulary = run.corpus, run.corpus.vocabulary
    split, texts = corpus.split(name), corpus.manifest.texts
    truths: list[Any] = []
    outputs = []
    for example in range(split.documents // texts):
        parts = [
            split.tokens[split.offsets[at] : split.offsets[at + 1]].tolist()
            for at in range(example * texts, (example + 1) * texts)
        ]
        tokens = [vocabulary.cls_id] + [id_ for part in parts for id_ in [*part, vocabulary.sep_id]]
        segments = [0] * (len(parts[0]) + 2) + [1] * (len(tokens) - len(parts[0]) - 2)
        if corpus.objective == "tag":
            labels = split.labels[split.offsets[example] : split.offsets[example + 1]]
            places = np.flatnonzero(labels >= 0) + 1
            truths += labels[labels >= 0].tolist()
        else:
            places = np.zeros(1, int)
            truths.append(split.labels[example])
        batch = {
            "tokens": torch.tensor([tokens]),
            "document": torch.ones(1, len(tokens), dtype=torch.int32),
            "segments": torch.tensor([segments]),
            "positions": torch.from_numpy(places),
        }
        with torch.no_grad():
            outputs.append(run.module.predict(batch).numpy())
    return np.array(truths), np.concatenate(outputs)


def test_the_score_and_the_loss_are_those_of_examples_taken_one_by_one(
    trained: Trained, document: dict[str, Any]
) -> None:
    truth, outputs = one_by_one(trained)
    if trained.corpus.objective == "regress":
        assert document["model"]["value"] == pytest.approx(metrics.mean_absolute_error(truth, outputs), rel=1e-4)
        assert document["model"]["loss"] == pytest.approx(metrics.mean_squared_error(truth, outputs), rel=1e-4)
        return
    assert document["model"]["value"] == pytest.approx((outputs.argmax(1) == truth).mean())
    logs = torch.from_numpy(outputs).log_softmax(1).numpy()
    assert document["model"]["loss"] == pytest.approx(metrics.log_loss(truth, np.exp(logs)), rel=1e-3)


def test_the_report_has_scikit_learn_s_numbers(trained: Trained, document: dict[str, Any]) -> None:
    truth, outputs = one_by_one(trained)
    numbers = more_numbers(document["labelled"])
    if trained.corpus.objective == "regress":
        assert numbers["pearson"] == pytest.approx(scipy.stats.pearsonr(truth, outputs[:, 0])[0], rel=1e-3)
        assert numbers["spearman"] == pytest.approx(scipy.stats.spearmanr(truth, outputs[:, 0])[0], rel=1e-3)
        return
    called = outputs.argmax(1)
    assert numbers["mcc"] == pytest.approx(metrics.matthews_corrcoef(truth, called))
    labels = sorted({*truth.tolist(), *called.tolist()})
    assert numbers["f1_macro"] == pytest.approx(metrics.f1_score(truth, called, average="macro", labels=labels))
    assert len(document["labelled"]["worst"]) == min(10, int((truth != called).sum()))


def test_baselines_know_the_training_examples_only(trained: Trained, document: dict[str, Any]) -> None:
    train_, held_out = trained.corpus.train.labels, trained.corpus.held_out.labels
    scores = {each["name"]: each["value"] for each in document["baselines"]}
    if trained.corpus.objective == "regress":
        expected = np.abs(held_out - np.median(train_)).mean()
        assert scores["median of the training examples"] == pytest.approx(expected)
        assert scores["bag of words"] < expected
        return
    train_, held_out = train_[train_ >= 0], held_out[held_out >= 0]
    name = "most frequent tag" if trained.corpus.objective == "tag" else "most frequent label"
    assert scores[name] == pytest.approx((held_out == np.bincount(train_).argmax()).mean())
    best = "most frequent tag of the word" if trained.corpus.objective == "tag" else "bag of words"
    assert scores[best] > 0.9  # a word decides
    assert document["strongest"] == best


def test_several_processes_say_the_same(trained: Trained, document: dict[str, Any]) -> None:
    parts = [find_answers(trained.directory, trained.cache, part, 2) for part in range(2)]
    whole = find_answers(trained.directory, trained.cache, 0, 1)
    assert [len(each) for each in parts] == [(len(whole) + 1) // 2, len(whole) // 2]
    for place, logits in enumerate(whole):
        np.testing.assert_array_equal(parts[place % 2][place // 2], logits)


def test_rows_and_pages_show_it(trained: Trained, document: dict[str, Any]) -> None:
    evaluation = evaluate(trained.directory, trained.cache)
    columns = {column.name for column in TABLES["scores"].columns}
    rows = list(evaluation.rows())
    assert all(row.keys() == columns for row in rows)
    found = {row["metric"] for row in rows if not row["is_baseline"]}
    assert found >= {"loss", evaluation.scores.metric, *more_numbers(document["labelled"])}
    read = parse_evaluation(document)
    assert read is not None
    assert "baseline" in _scored(read).headline
    page = render_checkpoint(document, ["said"])
    for name in trained.corpus.manifest.labels:
        assert f"called {name}" in page
    assert ("Entities found whole" in page) == (trained.corpus.objective == "tag")
    assert document["labelled"]["worst"] == [] or "Worst examples" in page
    assert (document["perplexity"] is None) == (trained.corpus.objective == "regress")


def test_another_file_is_judged_with_the_run_s_own_vocabulary_and_labels(trained: Trained) -> None:
    """The file that it was trained on: both of its splits, taken one by one."""
    file = Path(trained.job.spec.data.source)
    parts = [one_by_one(trained, name) for name in ("train", "held_out")]
    truth, outputs = (np.concatenate(each) for each in zip(*parts, strict=True))
    found = judge_file(trained.directory, file, trained.cache)
    assert found["source"] == [str(file)]
    assert found["examples"] == len(truth)
    if trained.corpus.objective == "regress":
        expected = metrics.mean_absolute_error(truth, outputs)
        assert found["numbers"]["mae"]["value"] == pytest.approx(expected, rel=1e-4)
    else:
        assert found["accuracy"]["value"] == pytest.approx((outputs.argmax(1) == truth).mean())
    other = file.with_name(f"other{file.suffix}")
    other.write_text(file.read_text().replace("alpha", "omega", 1).replace('"yes"', '"maybe"').replace("B-A", "B-Z"))
    if trained.corpus.objective != "regress":
        with pytest.raises(BadTable, match="is none of"):
            judge_file(trained.directory, other, trained.cache)


def test_a_model_of_text_judges_no_labels(encoder: Trained, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a model that learned masked-lm knows no labels"):
        judge_file(encoder.directory, tmp_path / "x.tsv", encoder.cache)
