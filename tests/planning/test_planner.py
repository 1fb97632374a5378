"""Plans of small jobs on hosts of every size: what fits, what is refused, what is kept for when memory runs out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from phalanx.data import Loader, LoaderSpec, TextTooSmall, open_data, prepare
from phalanx.job import HostFacts, Job, MeshSpec, Plan, SecuritySpec, not_enforced
from phalanx.job.plan import WORKER_BASELINE_BYTES
from phalanx.planning import NotCarriedOut, NothingFits, Orders, RehearsalFailed, Trial, make_plan
from phalanx.planning.fitting import USABLE
from tests.data.streams import make as make_dataset
from tests.training.values import make_job
from tests.training.workers import write_text

GIB = 1 << 30
MakePlan = Callable[..., Plan]


class Measured:
    """A rehearsal whose times are known: `seconds(size, precision)`."""

    def __init__(self, seconds: Callable[[int, str], float], workers: int = 64) -> None:
        self._seconds, self.workers = seconds, workers
        self.orders: list[Orders] = []

    def try_out(self, orders: Orders) -> tuple[Trial, ...]:
        self.orders.append(orders)
        return tuple(Trial(s, p, self._seconds(s, p)) for s in orders.sizes for p in orders.precisions)


class Broken:
    """A rehearsal that cannot be held."""

    workers = 1

    def try_out(self, orders: Orders) -> tuple[Trial, ...]:
        raise RehearsalFailed("rank 0 ended: killed")


def host(memory: int = 8 * GIB, cores: int = 2) -> HostFacts:
    return HostFacts(
        host="here", cores=cores, memory_bytes=memory, memory_available_bytes=memory, disk_free_bytes=memory
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "files")


@pytest.fixture
def plan_of(text: Path, tmp_path_factory: pytest.TempPathFactory) -> MakePlan:
    """plan_of(workers=2, facts=..., rehearser=..., **training) -> Plan of a job of 16 sequences a step"""
    cache = tmp_path_factory.getbasetemp() / "plan-cache"

    def make(
        workers: int = 2,
        facts: HostFacts | None = None,
        rehearser: Measured | Broken | None = None,
        job: Job | None = None,
        **training: object,
    ) -> Plan:
        job = job or with_workers(make_job(text, **{"global_batch": 16, "precision": "fp32", **training}), workers)
        corpus = prepare(job.spec.data, job.spec.model.objective, cache)
        loader = Loader(corpus, LoaderSpec.of(job.spec))
        return make_plan(job, loader, facts or host(), rehearser or Measured(lambda size, _: 1 + abs(size - 4)))

    return make


def with_workers(job: Job, count: int, **changes: object) -> Job:
    workers = job.spec.workers.model_copy(update={"count": count, **changes})
    return job.model_copy(update={"spec": job.spec.model_copy(update={"workers": workers})})


def test_the_fastest_micro_batch_that_was_tried_is_planned(plan_of: MakePlan) -> None:
    rehearser = Measured(lambda size, _: {1: 4.0, 2: 2.0, 4: 1.0, 8: 3.0}[size])
    plan = plan_of(2, rehearser=rehearser)
    assert (plan.mesh, plan.global_batch, plan.micro_batch, plan.accumulation) == (MeshSpec(data=2), 16, 4, 2)
    assert plan.predicted.step_seconds == 1.0
    assert rehearser.orders == [Orders(sizes=(1, 2, 4, 8), precisions=("fp32",), threads=1)]
    assert plan.not_enforced == not_enforced(SecuritySpec())
    assert any("with 1 takes 4.00 s, 2 takes 2.00 s, 8 takes 3.00 s" in reason for reason in plan.reasons)


def test_fallbacks_keep_the_global_batch_and_each_takes_less_memory(plan_of: MakePlan) -> None:
    plan = plan_of(2, rehearser=Measured(lambda size, _: 1 / size))
    assert [f.micro_batch for f in (plan, *plan.fallbacks)] == [8, 4, 2, 1]
    totals = [f.predicted.memory.total for f in (plan, *plan.fallbacks)]
    assert totals == sorted(totals, reverse=True)
    assert len(set(totals)) == len(totals)
    for f in plan.fallbacks:
        assert f.mesh.data * f.micro_batch * f.accumulation >= f.global_batch == plan.global_batch
        assert (f.precision, f.threads, f.fallbacks) == (plan.precision, plan.threads, ())


def test_a_fallback_that_was_not_traced_is_predicted_no_smaller_than_if_it_were(plan_of: MakePlan) -> None:
    fallback = plan_of(2, rehearser=Measured(lambda size, _: 1 / size)).fallbacks[1]
    alone = plan_of(2, micro_batch=fallback.micro_batch)
    assert alone.predicted.memory.total <= fallback.predicted.memory.total <= 1.05 * alone.predicted.memory.total


def test_precision_auto_takes_the_faster_one_and_says_the_times(plan_of: MakePlan) -> None:
    plan = plan_of(precision="auto", rehearser=Measured(lambda _, kind: 1.0 if kind == "bf16" else 2.0))
    assert plan.precision == "bf16"
    assert any("1.00 s and 2.00 s in fp32" in reason for reason in plan.reasons)


def test_what_was_asked_is_kept(plan_of: MakePlan) -> None:
    plan = plan_of(2, micro_batch=3, precision="bf16")
    assert (plan.micro_batch, plan.accumulation, plan.precision) == (3, 3, "bf16")


def test_a_worker_holds_no_more_at_once_than_it_has(plan_of: MakePlan) -> None:
    plan = plan_of(8, micro_batch=4)
    assert (plan.micro_batch, plan.accumulation) == (2, 1)
    assert any("4 is asked, but a worker has only 2" in reason for reason in plan.reasons)


def test_cores_are_shared_out_and_too_many_workers_are_said(plan_of: MakePlan) -> None:
    plan = plan_of(2, host(cores=6), micro_batch=1)
    assert plan.threads == 3
    plan = plan_of(8, host(cores=2), Measured(lambda *_: 1.0, workers=2))
    assert plan.predicted.step_seconds == 4.0  # two rehearsed, eight take turns
    assert "more than the 2 cores" in plan.reasons[0]


def test_only_micro_batches_that_fit_are_tried(plan_of: MakePlan) -> None:
    everything = plan_of(1, rehearser=Measured(lambda size, _: 1 / size))
    assert everything.micro_batch == 16
    smaller = everything.fallbacks[0].predicted.memory.total
    room = (smaller + everything.predicted.memory.total) // 2 + WORKER_BASELINE_BYTES
    rehearser = Measured(lambda size, _: 1 / size)
    plan = plan_of(1, host(memory=math.ceil(room / USABLE)), rehearser)
    assert plan.micro_batch == 8
    assert rehearser.orders[0].sizes == (1, 2, 4, 8)
    assert any("16 would not fit into memory" in reason for reason in plan.reasons)


def test_nothing_fits_into_a_host_without_memory(plan_of: MakePlan) -> None:
    with pytest.raises(NothingFits) as caught:
        plan_of(1, host(memory=100 << 20))
    assert "100 MiB is available" in caught.value.message
    assert "use a machine with" in caught.value.remedy


def test_the_remedy_is_fewer_workers_where_that_helps(plan_of: MakePlan) -> None:
    with pytest.raises(NothingFits) as caught:
        plan_of(4, host(memory=2 * (WORKER_BASELINE_BYTES + (200 << 20))))
    assert "use workers.count" in caught.value.remedy


def test_the_remedy_is_another_micro_batch_where_one_was_asked(plan_of: MakePlan) -> None:
    whole = plan_of(1, micro_batch=16).predicted.memory.total + WORKER_BASELINE_BYTES
    with pytest.raises(NothingFits) as caught:
        plan_of(1, host(memory=int((whole - 1) / USABLE)), micro_batch=16)
    assert "training.microBatch to auto" in caught.value.remedy


def test_a_rehearsal_that_fails_leaves_a_plan_by_arithmetic(plan_of: MakePlan) -> None:
    plan = plan_of(2, rehearser=Broken())
    assert plan.predicted.step_seconds > 0
    assert any("calculated" in reason and "killed" in reason for reason in plan.reasons)


@pytest.mark.parametrize("changes", [{"strategy": "tensor"}, {"mesh": MeshSpec(shard=2)}])
def test_a_split_that_nobody_carries_out_is_refused(plan_of: MakePlan, text: Path, changes: dict[str, object]) -> None:
    with pytest.raises(NotCarriedOut) as caught:
        plan_of(job=with_workers(make_job(text), 2, **changes))
    assert "strategy: data" in caught.value.remedy


def test_too_little_text_for_a_batch_is_said_before_anything_is_planned(plan_of: MakePlan) -> None:
    with pytest.raises(TextTooSmall, match="fewer than one batch"):
        plan_of(global_batch=100_000)


def test_a_job_on_a_dataset_is_planned_like_one_on_text(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", [30] * 40)
    small = make_job(tmp_path / "data", global_batch=16, precision="fp32")
    data = small.spec.data.model_copy(update={"held_out": 0.05, "cross_documents": False})
    small = small.model_copy(update={"spec": small.spec.model_copy(update={"data": data})})
    made = make_plan(small, open_data(small.spec, tmp_path), host(), Measured(lambda size, _: 1 / size))
    assert (made.micro_batch, made.accumulation) == (16, 1)
    assert made.predicted.parameters > 0


@pytest.mark.parametrize("objective", ["classify", "regress", "tag"])
def test_labelled_examples_are_planned_and_the_plan_says_what_is_cut(objective: str, tmp_path: Path) -> None:
    rows = [{"text": "word " * (number % 30), "label": number % 3} for number in range(60)]
    if objective == "tag":
        rows = [{"tokens": ["word"] * (1 + number % 30), "tags": ["a", "b"] * 15} for number in range(60)]
        rows = [row | {"tags": row["tags"][: len(row["tokens"])]} for row in rows]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {
        "model": {"name": "bert-tiny", "objective": objective},
        "data": {
            "source": str(tmp_path / "rows.jsonl"),
            "held_out": 0.2,
            "sequence_length": 16,
            "vocabulary": {"kind": "wordpiece", "size": 300},
        },
        "training": {"steps": 2, "global_batch": 8, "precision": "fp32"},
    }
    job = Job.model_validate({"metadata": {"name": "small"}, "spec": spec})
    data = open_data(job.spec, tmp_path / "cache")
    plan = make_plan(job, data, host(), Measured(lambda size, _: 1 / size))
    assert "training examples are cut to 16 tokens" in plan.reasons[-1]
    assert plan.micro_batch == 8
    outputs = {"classify": 3, "regress": 1, "tag": 2}[objective]
    pooler = 0 if objective == "tag" else 128 * 129
    size = data.vocabulary.size
    assert plan.predicted.parameters == (size + 16 + 2 + 2) * 128 + 2 * 198_272 + pooler + 129 * outputs
