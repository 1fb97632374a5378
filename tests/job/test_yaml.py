"""Job files: what is read, and what every mistake in one is answered with (cases/*.yaml hold their own answers)."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from phalanx.foundation import UsageError
from phalanx.job import Job, JobFileError, JobStatus, MeshSpec, Metadata, WorkersSpec, dump_job, parse_job, read_job

CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))

GOOD = """\
apiVersion: phalanx.dev/v1alpha1
kind: TrainingJob
metadata: {name: tiny, namespace: research, uid: abc}
spec:
  model: {name: bert-tiny, objective: masked-lm}
  data: {source: stdlib-docs, sequenceLength: 128}
  training: {steps: 300, globalBatch: 64, optimizer: {name: adamw, lr: 1e-3}}
  workers: {count: 2}
"""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_every_problem_of_a_file_is_told_at_once_with_its_line(case: Path) -> None:
    expected = [line[2:] for line in case.read_text().partition("# expected:\n")[2].splitlines()]
    with pytest.raises(JobFileError) as caught:
        read_job(case)
    told = [f"{problem.line}: {problem.message}" for problem in caught.value.problems]
    assert sorted(told) == sorted(expected)
    assert [problem.line for problem in caught.value.problems] == sorted(p.line for p in caught.value.problems)


def test_a_file_and_python_give_the_same_object() -> None:
    by_python = Job.model_validate(
        {
            "metadata": Metadata(name="tiny", namespace="research", uid="abc"),
            "spec": {
                "model": {"name": "bert-tiny", "objective": "masked-lm"},
                "data": {"source": "stdlib-docs", "sequence_length": 128},
                "training": {"steps": 300, "global_batch": 64, "optimizer": {"name": "adamw", "lr": 0.001}},
                "workers": {"count": 2},
            },
        }
    )
    assert parse_job(GOOD) == by_python


def test_a_number_may_be_written_with_an_exponent_and_no_dot() -> None:
    assert parse_job(GOOD).spec.training.optimizer.lr == pytest.approx(0.001)


def test_a_mesh_alone_says_how_many_workers_there_are() -> None:
    text = GOOD.replace("{count: 2}", "{mesh: {data: 2, tensor: 3}}")
    assert parse_job(text).spec.workers.count == 6
    assert WorkersSpec(mesh=MeshSpec(data=2, tensor=3)).count == 6
    assert WorkersSpec(count=4, mesh=MeshSpec(data=4)).count == 4


def test_no_uid_in_the_file_makes_a_new_one_each_time() -> None:
    text = GOOD.replace(", uid: abc", "")
    assert parse_job(text).metadata.uid != parse_job(text).metadata.uid


@pytest.mark.parametrize("uid", ['""', "a b", "a/b", '"a\\0b"', "x" * 65])
def test_a_uid_that_could_not_be_part_of_a_name_is_refused(uid: str) -> None:
    with pytest.raises(JobFileError, match=r"metadata\.uid"):
        parse_job(GOOD.replace("uid: abc", f"uid: {uid}"))


def test_a_job_written_and_read_again_is_the_same_but_for_its_status() -> None:
    job = parse_job(GOOD).model_copy(update={"status": JobStatus(phase="Running", step=7)})
    assert parse_job(dump_job(job)) == job.model_copy(update={"status": JobStatus()})


@given(
    steps=st.integers(1, 10**8),
    batch=st.integers(1, 2**20),
    lr=st.floats(min_value=1e-12, max_value=10),
    clip=st.none() | st.floats(min_value=1e-3, max_value=1e6),
    source=st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=40),
)
def test_whatever_a_job_holds_survives_its_file(
    steps: int, batch: int, lr: float, clip: float | None, source: str
) -> None:
    job = Job.model_validate(
        {
            "metadata": {"name": "a"},
            "spec": {
                "model": {"name": "decoder", "objective": "causal-lm"},
                "data": {"source": source},
                "training": {
                    "steps": steps,
                    "global_batch": batch,
                    "optimizer": {"lr": lr},
                    "clip": clip,
                    "schedule": {"warmup": 0},
                },
            },
        }
    )
    assert parse_job(dump_job(job)) == job


def test_a_training_shorter_than_the_default_warmup_is_no_contradiction() -> None:
    job = parse_job(GOOD.replace("steps: 300", "steps: 3"))
    assert parse_job(dump_job(job)) == job


def test_one_problem_is_one_line_and_the_remedy() -> None:
    with pytest.raises(JobFileError) as caught:
        parse_job(GOOD.replace("count: 2", "count: 0"), "my.yaml")
    assert str(caught.value).splitlines() == [
        "my.yaml:8: spec.workers.count is 0; allowed: a whole number from 1 to 4,096",
        "  To do: `phalanx job init` writes a commented first file; `phalanx job schema` lists every key",
    ]
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"# only a comment\n", "the file is empty"),
        (b"- a\n- b\n", "a job is keys with values"),
        (b"\x7fELF\x02\x01\x01\x00\xff\xfe", "not UTF-8 text"),
        (b"a: \x00\n", "not YAML text"),
        (b"a: [1\n", "not YAML"),
        (b"a:\n\tb: 1\n", "not YAML"),
        (b"x" * ((1 << 20) + 1), "at most 1,048,576"),
        (b"\xff" * ((1 << 20) + 1), "at most 1,048,576"),
    ],
)
def test_a_file_that_is_no_job_is_named_with_the_reason(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(content)
    with pytest.raises(JobFileError, match=said) as caught:
        read_job(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_job(tmp_path / "nothing.yaml")
    with pytest.raises(UsageError, match="directory"):
        read_job(tmp_path)


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(GOOD, encoding="utf-8-sig")
    assert read_job(file) == parse_job(GOOD)


@given(st.text(max_size=200))
def test_any_text_is_a_job_or_one_error(text: str) -> None:
    with contextlib.suppress(JobFileError):
        parse_job(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = [
    "model",
    "data",
    "training",
    "workers",
    "security",
    "suspend",
    "name",
    "steps",
    "mesh",
    "labels",
    "optimizer",
    "betas",
]


@given(
    st.dictionaries(st.sampled_from(KEYS), st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3) | JSON, max_size=4)
)
def test_any_values_in_the_right_places_are_a_job_or_one_error(spec: dict[str, object]) -> None:
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(
        {"apiVersion": "phalanx.dev/v1alpha1", "kind": "TrainingJob", "metadata": spec, "spec": spec}, stream
    )
    with contextlib.suppress(JobFileError):
        parse_job(stream.getvalue())
