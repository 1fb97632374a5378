"""The life of a job in a world where anything may fail at any moment: what must hold whatever happens.

The world has the controller's memory, state, an agent and workers as plain values; the controller is
`decide` and nothing else. Faults come from Hypothesis; after the last one the world is calm.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import example, given
from hypothesis import strategies as st

from phalanx.cluster import Action, Observed, decide
from phalanx.job import FINAL_PHASES, Job, JobStatus, MemberStatus, Placement, PlacementStatus
from tests.cluster.made import allow, ended, make_job, make_placement, make_plan, reported, running

WORKERS, MOST_RESTARTS, FALLBACKS = 2, 2, 2
CALM_TICKS = 80
FAULTS = (
    "calm",
    "controller dies before the status is written",
    "controller dies after the status is written",
    "controller dies after the action",
    "agent is killed",
    "agent is killed before it reports",
    "worker crashed",
    "worker out_of_memory",
    "worker bad_input",
    "worker preempted",
    "step fails",
    "a person stops it",
)


@dataclass
class World:
    status: JobStatus = field(default_factory=JobStatus)
    suspend: bool = False
    files: set[str] = field(default_factory=set)
    placement: Placement | None = None
    stopping: bool = False
    report: PlacementStatus | None = None
    agent: bool = False
    agent_comes: bool = False
    generation: int = 0
    workers: list[MemberStatus] = field(default_factory=list)
    steps_left: int = 3
    failures: dict[str, str] = field(default_factory=dict)
    placed: list[int] = field(default_factory=list)
    was_preempted: int = 0

    @property
    def job(self) -> Job:
        job = make_job(most_restarts=MOST_RESTARTS, suspend=self.suspend)
        return job.model_copy(update={"status": self.status})

    @property
    def alive(self) -> list[MemberStatus]:
        return [worker for worker in self.workers if worker.phase == "running"]

    def observe(self) -> Observed:
        return Observed(
            job=self.job,
            gate_1=allow(1) if "admit" in self.files else None,
            plan=make_plan(WORKERS, FALLBACKS) if "plan" in self.files else None,
            gate_2=allow(2) if "check_host" in self.files else None,
            placement=self.placement,
            placement_stopping=self.stopping,
            placement_status=self.report,
            agent_alive=self.agent or self.agent_comes,
            evaluation=self.result("evaluate"),
            report=self.result("report"),
            failures=tuple(self.failures.items()),
        )

    def result(self, step: str) -> str:
        return "done" if step in self.files else "failed" if step in self.failures else "missing"

    def act(self, action: Action, *, fails: bool) -> None:
        match action.name:
            case "wait" | "finish":
                pass
            case _ if fails and action.name != "stop_workers":
                self.failures[action.name] = "it broke"
            case "place":
                assert not self.alive, "a new generation while workers of an older one live"
                assert action.generation > (self.placement.generation if self.placement else 0)
                self.placement, self.stopping = make_placement(action.generation, WORKERS), False
                self.placed.append(action.generation)
                assert -1 <= action.fallback < FALLBACKS
            case "start_agent":
                assert not self.agent, "a second agent"
                self.agent_comes = True
            case "stop_workers":
                self.stopping = True
            case step:
                self.files.add(step)

    def live(self, fault: str) -> None:
        """One moment of agent and workers."""
        if self.agent_comes:
            self.agent, self.agent_comes, self.generation, self.workers = True, False, 0, []
        if fault.startswith("worker ") and self.alive:
            kind = fault.removeprefix("worker ")
            first = self.alive[0].rank
            self.workers = [ended(w.rank, kind if w.rank == first else "peer_lost") for w in self.workers]
            self.was_preempted += kind == "preempted"
        if not self.agent or self.placement is None:
            return
        if self.stopping:
            self.workers = [w if w.phase == "ended" else ended(w.rank, "preempted") for w in self.workers]
        elif self.generation != self.placement.generation:
            self.generation = self.placement.generation
            self.workers = [running(rank) for rank in range(WORKERS)]
        elif self.alive:
            self.steps_left -= 1
            if self.steps_left <= 0:
                self.workers = [ended(w.rank, "done") for w in self.workers]
        if fault != "agent is killed before it reports":
            first_bad = next((w.rank for w in self.workers if w.exit and w.exit.kind != "done"), None)
            self.report = reported(*self.workers, generation=self.generation, first=first_bad)
        if fault.startswith("agent is killed") or (self.stopping and not self.alive):
            self.agent, self.workers = False, []


def tick(world: World, fault: str) -> Action:
    seen = world.observe()
    status, action = decide(seen, 1)
    assert decide(seen, 1) == (status, action)
    again = Observed(**{**vars(seen), "job": seen.job.model_copy(update={"status": status})})
    same, repeated = decide(again, 2)
    assert (same, repeated.name, repeated.generation) == (status, action.name, action.generation), "not idempotent"
    assert status.restarts <= MOST_RESTARTS
    assert status.generation >= world.status.generation
    if world.status.phase in FINAL_PHASES:
        assert status.phase == world.status.phase
    if fault != "controller dies before the status is written":
        world.status = status
        if fault != "controller dies after the status is written":
            world.act(action, fails=fault == "step fails")
    if fault.startswith("controller dies"):
        world.failures.clear()
    if fault == "a person stops it":
        world.suspend = True
    world.live(fault)
    return action


@given(st.lists(st.sampled_from(FAULTS), max_size=40))
@example(["calm"] * 8 + ["agent is killed before it reports"] * 6)
@example(["calm"] * 6 + ["a person stops it", "controller dies after the action", "agent is killed"])
@example(["calm", "calm", "calm", "calm", "calm", "calm", "worker out_of_memory"] * 4)
def test_whatever_fails_the_job_ends_with_nobody_alive(faults: list[str]) -> None:
    world = World()
    for fault in faults:
        if tick(world, fault).name == "finish":
            break
    for _ in range(CALM_TICKS):
        if tick(world, "calm").name == "finish":
            break
    else:
        raise AssertionError(f"no end: {world}")
    assert world.status.phase in FINAL_PHASES
    assert not world.alive
    assert not world.agent
    assert world.placed == sorted(set(world.placed)), "a generation was placed twice"
    lost = faults.count("agent is killed") + faults.count("agent is killed before it reports")
    assert len(world.placed) <= 1 + MOST_RESTARTS + world.was_preempted + lost
    if world.status.phase == "Succeeded":
        assert {"admit", "plan", "check_host", "evaluate"} <= world.files
    if world.status.phase == "Stopped":
        assert world.suspend
    if world.status.phase == "Failed":
        assert any(condition.status == "False" and condition.message for condition in world.status.conditions)


def test_a_calm_world_succeeds_with_one_generation() -> None:
    world = World()
    actions: list[str] = []
    for _ in range(CALM_TICKS):
        name = tick(world, "calm").name
        if not actions or actions[-1] != name:
            actions.append(name)
        if name == "finish":
            break
    assert world.status.phase == "Succeeded"
    assert world.placed == [1]
    expected = "admit plan check_host place start_agent wait evaluate stop_workers wait report finish"
    assert actions in (expected.split(), expected.replace("stop_workers wait", "stop_workers").split())
