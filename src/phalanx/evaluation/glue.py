"""GLUE's nine tasks (Wang et al. 2019): their files as they are published, each one's own metrics, and known scores.

The labels of GLUE's test sets are secret, so what is reported here is of the development sets; the scores beside it
were given by the test server. Knows which file is which and what is asked of a model, not how one is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from phalanx.evaluation.errors import NoTask
from phalanx.job import ColumnsSpec
from phalanx.job.spec import Objective

MINIATURES = "github.com/google-research/bert, README, 11 March 2020: GLUE's test server"
DEVLIN = "Devlin et al. 2019, table 1: GLUE's test server; QQP and MRPC: F1, STS-B: Spearman; the average without WNLI"


@dataclass(frozen=True)
class Task:
    """`folder` of GLUE's directory; `columns` of its files (numbers from 1); `labels` as its files write them.

    `metrics`: what its score is the mean of. `development`: its files, each judged on its own.
    """

    name: str
    folder: str
    columns: ColumnsSpec
    metrics: tuple[str, ...]
    labels: tuple[str, ...] = ("0", "1")
    development: tuple[str, ...] = ("dev.tsv",)
    objective: Objective = "classify"

    def train(self, directory: Path) -> Path:
        return directory / self.folder / "train.tsv"

    def held_out(self, directory: Path) -> tuple[Path, ...]:
        return tuple(directory / self.folder / name for name in self.development)

    @property
    def words(self) -> str:
        """Its metrics as a table's head."""
        return "/".join(_SHORT[name] for name in self.metrics)


def _columns(text: int, pair: int | None, label: int, **more: Any) -> ColumnsSpec:
    return ColumnsSpec(text=text, pair=pair, label=label, **({"header": True} | more))


_SHORT = {
    "mcc": "MCC",
    "accuracy": "accuracy",
    "f1": "F1",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "matched": "matched",
    "mismatched": "mismatched",
}
_ENTAILED = ("entailment", "not_entailment")
TASKS: Mapping[str, Task] = MappingProxyType(
    {
        task.name: task
        for task in (
            Task("CoLA", "CoLA", _columns(4, None, 2, header=False), ("mcc",)),
            Task("SST-2", "SST-2", _columns(1, None, 2), ("accuracy",)),
            Task("MRPC", "MRPC", _columns(4, 5, 1), ("f1", "accuracy")),
            Task("STS-B", "STS-B", _columns(8, 9, 10), ("pearson", "spearman"), (), objective="regress"),
            # A few lines of the published file are torn by a newline inside a question.
            Task("QQP", "QQP", _columns(4, 5, 6, malformed="leave-out"), ("f1", "accuracy")),
            Task(
                "MNLI",
                "MNLI",
                # The development files have the labels of five people before the last column.
                ColumnsSpec(text="sentence1", pair="sentence2", label="gold_label", header=True),
                ("matched", "mismatched"),
                ("contradiction", "entailment", "neutral"),
                ("dev_matched.tsv", "dev_mismatched.tsv"),
            ),
            Task("QNLI", "QNLI", _columns(2, 3, 4), ("accuracy",), _ENTAILED),
            Task("RTE", "RTE", _columns(2, 3, 4), ("accuracy",), _ENTAILED),
            Task("WNLI", "WNLI", _columns(2, 3, 4), ("accuracy",)),
        )
    }
)


@dataclass(frozen=True)
class Published:
    """Percent, by task, in the order of its metrics; None: not told. `score`: the average as its source gives it."""

    source: str
    score: float
    tasks: Mapping[str, tuple[float | None, ...]]


def _published(source: str, score: float, *values: tuple[float | None, ...] | float | None) -> Published:
    each = zip(TASKS, values, strict=True)
    return Published(source, score, {task: v if isinstance(v, tuple) else (v,) for task, v in each})


PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "BERT-Tiny": _published(
            MINIATURES, 64.2, 0.0, 83.2, (81.1, 71.1), (74.3, 73.6), (62.2, 83.4), (70.2, 70.3), 81.5, 57.2, 62.3
        ),
        "BERT-Mini": _published(
            MINIATURES, 65.8, 0.0, 85.9, (81.1, 71.8), (75.4, 73.3), (66.4, 86.2), (74.8, 74.3), 84.1, 57.9, 62.3
        ),
        "BERT-Small": _published(
            MINIATURES, 71.2, 27.8, 89.7, (83.4, 76.2), (78.8, 77.0), (68.1, 87.0), (77.6, 77.0), 86.4, 61.8, 62.3
        ),
        "BERT-Medium": _published(
            MINIATURES, 73.5, 38.0, 89.6, (86.6, 81.6), (80.4, 78.4), (69.6, 87.9), (80.0, 79.1), 87.7, 62.2, 62.3
        ),
        "BERT-Base": _published(
            DEVLIN, 79.6, 52.1, 93.5, (88.9, None), (None, 85.8), (71.2, None), (84.6, 83.4), 90.5, 66.4, None
        ),
        "BERT-Large": _published(
            DEVLIN, 82.1, 60.5, 94.9, (89.3, None), (None, 86.5), (72.1, None), (86.7, 85.9), 92.7, 70.1, None
        ),
    }
)


@dataclass(frozen=True)
class TaskScore:
    """What a model reached. `values`: percent, in the order of the task's metrics (None: undefined); `examples` judged;
    `run_dir`: of its training."""

    task: str
    values: tuple[float | None, ...]
    examples: int
    run_dir: str = ""

    @property
    def score(self) -> float | None:
        """The mean of its metrics."""
        known = [value for value in self.values if value is not None]
        return sum(known) / len(known) if len(known) == len(self.values) else None


@dataclass(frozen=True)
class GlueReport:
    """`scores`: of the tasks that were found; `missing`: why each of the others is not there."""

    model: str
    scores: tuple[TaskScore, ...]
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def average(self) -> float | None:
        """Of the tasks that have a score, each counting alike, as GLUE takes it of all nine."""
        known = [each.score for each in self.scores if each.score is not None]
        return sum(known) / len(known) if known else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return {
            "schema": 1,
            "model": self.model,
            "sets": "development",
            "tasks": [
                {
                    "task": each.task,
                    "metrics": dict(zip(TASKS[each.task].metrics, each.values, strict=True)),
                    "score": each.score,
                    "examples": each.examples,
                    "run_dir": each.run_dir,
                }
                for each in self.scores
            ],
            "average": self.average,
            "averaged": sum(each.score is not None for each in self.scores),
            "missing": dict(self.missing),
            "published": {
                name: {
                    "source": known.source,
                    "score": known.score,
                    "tasks": {k: list(v) for k, v in known.tasks.items()},
                }
                for name, known in PUBLISHED.items()
            },
        }

    def table(self) -> list[list[str]]:
        """Rows of words: a head, then ours, then what is published; a column a task."""
        ours = {each.task: each.values for each in self.scores}
        rows = [["", "average", *(f"{name} {task.words}" for name, task in TASKS.items())]]
        rows.append([f"{self.model} (here)", _percent(self.average), *(_cell(ours.get(name)) for name in TASKS)])
        rows += [
            [name, _percent(known.score), *(_cell(known.tasks[task]) for task in TASKS)]
            for name, known in PUBLISHED.items()
        ]
        return rows

    def notes(self) -> list[str]:
        """What a reader of the table must know."""
        said = ["Here: on GLUE's development sets, after one fine-tuning each; published: on its test sets."]
        counted = sum(each.score is not None for each in self.scores)
        if self.scores and counted < len(TASKS):
            said.append(
                f"The average here is of {counted} of {len(TASKS)} tasks, so it cannot be set beside the others."
            )
        said += [f"{task} is missing: {why}." for task, why in self.missing.items()]
        sources = {known.source: [] for known in PUBLISHED.values()}  # type: dict[str, list[str]]
        for name, known in PUBLISHED.items():
            sources[known.source].append(name)
        return said + [f"{', '.join(names)}: {source}." for source, names in sources.items()]


def tasks_in(directory: Path, wanted: Sequence[str] = ()) -> tuple[list[Task], dict[str, str]]:
    """The tasks whose files are in `directory`, and of each other one why it is not there. `wanted`: only these.

    Raises NoTask for a name that is no task's, and when none is there.
    """
    names = {name.lower(): name for name in TASKS}
    for name in wanted:
        if name.lower() not in names:
            raise NoTask(f"there is no task {name!r}", where="--task", remedy=f"use one of {', '.join(TASKS)}")
    found, missing = [], {}
    for task in TASKS.values():
        if wanted and task.name.lower() not in {name.lower() for name in wanted}:
            missing[task.name] = "it was not asked for"
            continue
        absent = [file for file in (task.train(directory), *task.held_out(directory)) if not file.is_file()]
        if absent:
            missing[task.name] = f"there is no {absent[0].relative_to(directory)}"
        else:
            found.append(task)
    if not found:
        raise NoTask(
            "none of GLUE's tasks is here" if not wanted else "none of these tasks is here",
            where=str(directory),
            remedy="name the directory with the folders CoLA, SST-2, MRPC, ..., each with its train.tsv and dev.tsv",
        )
    return found, missing


def score_of(task: Task, documents: Sequence[Mapping[str, Any]], run_dir: str = "") -> TaskScore:
    """From what the evaluation of each development file said (`labelled` of `evaluate`'s document).

    The positive class of F1 is `1`. A correlation or MCC that is undefined, as of one label for all, counts 0, as
    GLUE's server counts it.
    """
    values = []
    for metric in task.metrics:
        document = documents[task.metrics.index(metric) if len(documents) > 1 else 0]
        value = _metric(metric, document)
        values.append(None if value is None else 100 * value)
    return TaskScore(task.name, tuple(values), sum(int(each["examples"]) for each in documents), run_dir)


def _metric(name: str, document: Mapping[str, Any]) -> float | None:
    if name in ("pearson", "spearman"):
        found: float | None = document["numbers"][name]["value"]
        return found or 0.0
    if name == "mcc":
        return float(document["mcc"] or 0.0)
    if name == "f1":
        positive = [each for each in document["classes"] if each["label"] == "1"]
        return float(positive[0]["f1"] or 0.0) if positive else 0.0
    return float(document["accuracy"]["value"])


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _cell(values: tuple[float | None, ...] | None) -> str:
    return "-" if values is None or all(v is None for v in values) else "/".join(_percent(value) for value in values)
