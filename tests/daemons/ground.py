"""A home with placements for a real agent, whose workers are small shell scripts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from phalanx.cluster import (
    Key,
    StoredPlacement,
    controller_lease,
    read_placement,
    stop_placement,
    write_placement,
)
from phalanx.daemons.agent import agent_lease
from phalanx.daemons.hold import open_state
from phalanx.foundation import Home, ensure_private_directory
from phalanx.host import own_identity, start
from phalanx.job import Member, MemberStatus, Placement, PlacementStatus, WorkerSpec
from tests.processes import wait_until

UNTIL_STOPPED = "trap 'echo stopped; exit 75' TERM; while :; do sleep 0.05; done"
STUBBORN = "trap '' TERM; while :; do sleep 0.05; done"
_TUNED = "import sys; from phalanx.daemons.agent import Agent; from phalanx.foundation import Home; Agent(Home.find(sys.argv[1]), 'tests', 'small', sys.argv[2], **eval(sys.argv[3])).run()"


class Ground:
    """`place` says what shall run, `agent` starts one, `status` is what it reports."""

    key: Key = ("tests", "small")
    name = "here-1"

    def __init__(self, home: Home) -> None:
        self.home = home
        self.state = open_state(home)
        self.run_dir = ensure_private_directory(home.run_dir(*self.key, 1))
        self.log = self.run_dir / "agent.log"

    def control(self) -> None:
        """Be the controller, for an hour at most."""
        assert self.state.lease(controller_lease(self.key), own_identity(), 3600) is not None

    def place(self, *scripts: str, generation: int = 1, attempt: int = 1, agent: str = name) -> None:
        before = read_placement(self.state, self.key)
        members = tuple(Member(rank=rank, local_rank=rank, host=agent) for rank in range(len(scripts)))
        placement = Placement(job_uid="u1", attempt=attempt, generation=generation, members=members)
        specs = [
            WorkerSpec(
                job_uid="u1",
                attempt=attempt,
                generation=generation,
                rank=rank,
                argv=("/bin/sh", "-c", script, str(self.home.root)),
                env={"RANK": str(rank)},
            )
            for rank, script in enumerate(scripts)
        ]
        expect = before.version if before else 0
        write_placement(self.state, self.key, placement, specs, self.run_dir, expect=expect)

    def stop(self) -> None:
        stop_placement(self.state, self.key)

    def agent(self, timeout_s: float = 60.0) -> subprocess.Popen[bytes]:
        """As the controller starts it."""
        argv = [sys.executable, "-m", "phalanx.daemons.agent", "--home", str(self.home.root)]
        argv += ["--namespace", self.key[0], "--job", self.key[1], "--name", self.name]
        argv += ["--controller-timeout", str(timeout_s)]
        return start(argv, env=os.environ, output=self.log, die_with_parent=False)

    def tuned_agent(self, **options: float) -> subprocess.Popen[bytes]:
        """One with other times to wait."""
        argv = [sys.executable, "-c", _TUNED, str(self.home.root), self.name, repr(options)]
        return start(argv, env=os.environ, output=self.log, die_with_parent=False)

    def placement(self) -> StoredPlacement:
        stored = read_placement(self.state, self.key)
        assert stored is not None
        return stored

    def status(self) -> PlacementStatus | None:
        return self.placement().status

    def members(self, generation: int = 1) -> list[MemberStatus]:
        status = self.status()
        return list(status.members) if status is not None and status.generation == generation else []

    def wait_running(self, workers: int, generation: int = 1) -> list[MemberStatus]:
        def holds() -> bool:
            members = self.members(generation)
            return len(members) == workers and all(m.phase == "running" for m in members)

        wait_until(holds, f"{workers} workers of generation {generation} do not run")
        return self.members(generation)

    def wait_ended(self, workers: int, generation: int = 1) -> list[MemberStatus]:
        def holds() -> bool:
            members = self.members(generation)
            return len(members) == workers and all(m.phase == "ended" for m in members)

        wait_until(holds, f"{workers} workers of generation {generation} do not end")
        return self.members(generation)

    def output(self, rank: int, generation: int = 1) -> str:
        return (self.run_dir / "logs" / f"generation-{generation}" / f"rank-{rank}.log").read_text()

    def has_agent(self) -> bool:
        return self.state.holder(agent_lease(self.name)) is not None

    def close(self) -> None:
        self.state.close()


def kinds(members: list[MemberStatus]) -> list[str]:
    return [member.exit.kind if member.exit else "none" for member in members]


def waiting_for(file: Path, then: str) -> str:
    """A script that goes on once `file` is there."""
    return f"while [ ! -e {file} ]; do sleep 0.02; done; {then}"
