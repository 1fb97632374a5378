"""`phalanx glue`: every task in the format that GLUE publishes it in, from its files to the table."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from phalanx.cli.glue import command, job_of
from phalanx.data import Loader, LoaderSpec, prepare
from phalanx.evaluation.errors import NoTask
from phalanx.evaluation.glue import PUBLISHED, TASKS, GlueReport, TaskScore, score_of, tasks_in

SIZES = {"train.tsv": 60, "dev.tsv": 20, "dev_matched.tsv": 20, "dev_mismatched.tsv": 20}
OPTIONS: dict[str, Any] = {
    "weights": None, "epochs": 1.0, "batch": 8, "lr": 1e-3, "length": 32, "vocabulary": 300, "seed": 0, "workers": 1,
}  # fmt: skip
WORDS = [
    "the",
    "a",
    '"quoted',
    'word"',
    "cat",
    "dog",
    "saw",
    "it",
    "ran,",
    "and",
    "didn't",
    "stop",
    "—",
    "café",
    "1.5",
    "%",
    "over",
]


def sentence(draw: random.Random) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(3, 9))) + "."


def write_task(root: Path, name: str) -> None:
    """The files of one task, field by field as in GLUE's archives."""
    folder = root / TASKS[name].folder
    folder.mkdir(parents=True)
    draw = random.Random(name)
    task = TASKS[name]
    files = ["train.tsv", *task.development]
    for file in files:
        rows = []
        for number in range(SIZES[file]):
            one, two = f"{sentence(draw)} {number}", sentence(draw)
            label = draw.choice(task.labels) if task.labels else f"{draw.uniform(0, 5):.3f}"
            rows.append(_row(name, file, number, one, two, label))
        head = _HEADS.get((name, file), _HEADS.get((name, "")))
        (folder / file).write_text("\n".join([*([head] if head else []), *rows]) + "\n", "utf-8")


def _row(name: str, file: str, number: int, one: str, two: str, label: str) -> str:
    if name == "MNLI":
        parses = ["( x )"] * 4
        labels = [label, label] if file == "train.tsv" else ["neutral", label, label, label, label, label]
        return "\t".join([str(number), "31193", "31193n", "government", *parses, one, two, *labels])
    return {
        "CoLA": f"gj04\t{label}\t{'*' if label == '0' else ''}\t{one}",
        "SST-2": f"{one} \t{label}",
        "MRPC": f"{label}\t70{number}\t71{number}\t{one}\t{two}",
        "STS-B": f"{number}\tmain-captions\tMSRvid\t2012test\t0001\tnone\tnone\t{one}\t{two}\t{label}",
        "QQP": f"{number}\t1{number}\t2{number}\t{one}?\t{two}?\t{label}",
        "QNLI": f"{number}\t{one}?\t{two}\t{label}",
        "RTE": f"{number}\t{one}\t{two}\t{label}",
        "WNLI": f"{number}\t{one}\t{two}\t{label}",
    }[name]


_MNLI = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse\t"
    "sentence1\tsentence2\tlabel1"
)
_HEADS = {
    ("SST-2", ""): "sentence\tlabel",
    ("MRPC", ""): "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    ("STS-B", ""): "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
    ("QQP", ""): "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
    ("MNLI", "train.tsv"): f"{_MNLI}\tgold_label",
    ("MNLI", ""): f"{_MNLI}\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label",
    ("QNLI", ""): "index\tquestion\tsentence\tlabel",
    ("RTE", ""): "index\tsentence1\tsentence2\tlabel",
    ("WNLI", ""): "index\tsentence1\tsentence2\tlabel",
}


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("glue_data")
    for name in TASKS:
        write_task(root, name)
    return root


@pytest.mark.parametrize("name", TASKS)
def test_the_texts_and_labels_of_each_task_are_read_from_its_own_files(name: str, glue: Path, tmp_path: Path) -> None:
    task = TASKS[name]
    job = job_of(task, glue, "bert-tiny", f"glue-{name.lower()}", **OPTIONS)
    assert job.spec.training.steps == 8  # 60 examples, 8 at a time, once
    corpus = prepare(job.spec.data, task.objective, tmp_path)
    assert corpus.manifest.labels == task.labels
    texts = 1 if name in ("CoLA", "SST-2") else 2
    assert corpus.manifest.texts == texts
    assert (corpus.train.documents, corpus.held_out.documents) == (60 * texts, 20 * texts)
    lines = task.train(glue).read_text("utf-8").split("\n")
    for example, line in enumerate(corpus.names("train")[:10]):
        fields = lines[int(line) - 1].split("\t")
        for text in range(texts):
            at = example * texts + text
            ids = corpus.train.tokens[corpus.train.offsets[at] : corpus.train.offsets[at + 1]].tolist()
            assert any(corpus.vocabulary.encode(field).tolist() == ids for field in fields)
        label = corpus.train.labels[example]
        assert fields[_LABEL[name]] == (task.labels[int(label)] if task.labels else f"{float(label):.3f}")
    Loader(corpus, LoaderSpec.of(job.spec))


_LABEL = {"CoLA": 1, "SST-2": 1, "MRPC": 0, "STS-B": 9, "QQP": 5, "MNLI": 11, "QNLI": 3, "RTE": 3, "WNLI": 3}


def test_torn_lines_of_qqp_are_left_out_and_counted(tmp_path: Path) -> None:
    write_task(tmp_path, "QQP")
    file = TASKS["QQP"].train(tmp_path)
    file.write_text(file.read_text() + "99\t1\t2\tis this\ntorn?\tyes?\t1\n")
    job = job_of(TASKS["QQP"], tmp_path, "bert-tiny", "glue-qqp", **OPTIONS)
    corpus = prepare(job.spec.data, "classify", tmp_path / "cache")
    assert corpus.train.documents == 120
    assert corpus.manifest.excluded == {"lines with a wrong number of fields": (2, 0)}
    notes = Loader(corpus, LoaderSpec("classify", 200, 8)).notes
    assert notes == ("2 lines with a wrong number of fields are left out",)


def test_tasks_that_are_missing_are_said(tmp_path: Path) -> None:
    for name in ("RTE", "MNLI"):
        write_task(tmp_path, name)
    (tmp_path / "MNLI" / "dev_mismatched.tsv").unlink()
    found, missing = tasks_in(tmp_path)
    assert [task.name for task in found] == ["RTE"]
    assert missing["MNLI"] == "there is no MNLI/dev_mismatched.tsv"
    assert missing["CoLA"] == "there is no CoLA/train.tsv"
    report = GlueReport("bert-tiny", (TaskScore("RTE", (53.1,), 277),), missing)
    assert report.average == 53.1
    assert "MNLI is missing: there is no MNLI/dev_mismatched.tsv." in report.notes()
    assert any("of 1 of 9 tasks" in note for note in report.notes())
    with pytest.raises(NoTask, match="there is no task 'SST'"):
        tasks_in(tmp_path, ["SST"])
    with pytest.raises(NoTask, match="none of these tasks is here"):
        tasks_in(tmp_path, ["cola"])
    with pytest.raises(NoTask, match="none of GLUE's tasks is here"):
        tasks_in(tmp_path / "RTE")


def test_each_task_has_its_official_metrics() -> None:
    classes = {
        "examples": 10,
        "mcc": 0.25,
        "accuracy": {"value": 0.7},
        "classes": [{"label": "0", "f1": 0.1}, {"label": "1", "f1": 0.6}],
    }
    other = classes | {"accuracy": {"value": 0.5}}
    numbers = {"examples": 10, "numbers": {"pearson": {"value": 0.8}, "spearman": {"value": None}}}
    values = {
        name: score_of(task, [numbers] if name == "STS-B" else [classes, other][: len(task.development)]).values
        for name, task in TASKS.items()
    }
    assert values["CoLA"] == (25.0,)
    assert values["MRPC"] == values["QQP"] == (60.0, 70.0)
    assert values["STS-B"] == (80.0, 0.0)
    assert values["MNLI"] == (70.0, 50.0)
    assert all(values[name] == (70.0,) for name in ("SST-2", "QNLI", "RTE", "WNLI"))


def test_the_published_averages_are_those_of_the_published_tasks() -> None:
    """GLUE's, a mean over nine tasks each of its metrics' mean; Devlin's, over its columns without WNLI."""
    for name, known in PUBLISHED.items():
        if name in ("BERT-Base", "BERT-Large"):
            columns = [value for values in known.tasks.values() for value in values if value is not None]
            assert len(columns) == 9
            mean = sum(columns) / 9
        else:
            mean = sum(sum(values) / len(values) for values in known.tasks.values()) / 9  # type: ignore[arg-type]
        assert mean == pytest.approx(known.score, abs=0.06), name


def test_the_table_has_a_row_for_every_model_and_a_column_for_every_task() -> None:
    report = GlueReport("bert-tiny", (TaskScore("CoLA", (12.34,), 9), TaskScore("MRPC", (81.0, 70.0), 9)))
    rows = report.table()
    assert [row[0] for row in rows] == ["", "bert-tiny (here)", *PUBLISHED]
    assert all(len(row) == 2 + len(TASKS) for row in rows)
    assert rows[1][2:5] == ["12.3", "-", "81.0/70.0"]
    assert rows[1][1] == f"{(12.34 + 75.5) / 2:.1f}"
    document = report.to_dict()
    assert json.loads(json.dumps(document)) == document


@pytest.mark.slow
def test_two_tasks_are_fine_tuned_judged_and_not_trained_twice(glue: Path, tmp_path: Path) -> None:
    arguments = [
        str(glue),
        "--model",
        "bert-tiny",
        "--task",
        "MNLI",
        "--task",
        "sts-b",
        "--epochs",
        "1",
        "--batch",
        "16",
    ]
    arguments += ["--length", "32", "--vocabulary", "300", "--home", str(tmp_path)]
    result = CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [each["task"] for each in document["tasks"]] == ["STS-B", "MNLI"]
    matched, mismatched = document["tasks"][1]["metrics"].values()
    assert 0 <= matched <= 100
    assert 0 <= mismatched <= 100
    assert document["tasks"][1]["examples"] == 40
    assert document["missing"]["CoLA"] == "it was not asked for"
    again = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert again.exit_code == 0
    assert "Running" not in again.stderr  # both had succeeded
    assert "| bert-tiny (here) |" in again.stdout
    assert "BERT-Large" in again.stdout
    with (glue / "STS-B" / "train.tsv").open("a") as file:
        file.write((glue / "STS-B" / "train.tsv").read_text().splitlines()[-1] + "\n")
    third = CliRunner().invoke(command, [*arguments, "--task", "STS-B"], catch_exceptions=False)
    assert third.exit_code == 0
    assert third.stderr.count("Running") == 1  # STS-B's examples are others now
