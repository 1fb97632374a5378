"""The real `phalanx` command, as a person has it in several terminals over one home."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phalanx.cluster import Key, StoredJob, read_job, read_placement, submit
from phalanx.daemons.hold import open_state
from phalanx.events import list_files, read_rows
from phalanx.foundation import Home
from phalanx.job import Job, MemberStatus, PlacementStatus
from phalanx.training.checkpoint import newest_good
from tests.processes import wait_until

KEY: Key = ("default", "small")
FILES = ("plan.json", "decision-1.json", "decision-2.json")


def job_document(source: Path | str, workers: dict[str, Any] | None = None, **training: Any) -> dict[str, Any]:
    """A decoder whose step takes milliseconds, two workers. JSON is YAML."""
    steps = {"steps": 120, "globalBatch": 8, "microBatch": 2, "checkpointEvery": 20, "evaluateEvery": 60}
    return {
        "apiVersion": "phalanx.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": KEY[1]},
        "spec": {
            "model": {"name": "gpt-tiny", "objective": "causal-lm", "dropout": 0.1},
            "data": {"source": str(source), "sequenceLength": 32},
            "training": steps | {"precision": "fp32"} | training,
            "workers": {"count": 2} | (workers or {}),
        },
    }


@dataclass
class Command:
    """One invocation; its outputs go to files, so that it may be killed at any time."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def wait(self, timeout_s: float = 120.0) -> int:
        return self.process.wait(timeout_s)

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def stdout(self) -> str:
        return self.out.read_text()

    @property
    def stderr(self) -> str:
        return self.err.read_text()

    @property
    def said(self) -> str:
        return f"exit {self.process.poll()}\n{self.stdout}\n{self.stderr}"


@dataclass
class Terminals:
    """`phalanx(...)` begins a command, `run_to_end(...)` waits for it; the rest looks at what is there meanwhile."""

    home: Home
    scratch: Path
    commands: list[Command] = field(default_factory=list)

    def phalanx(self, *arguments: str, program: tuple[str, ...] = ("-m", "phalanx")) -> Command:
        number = len(self.commands)
        out, err = self.scratch / f"{number}.out", self.scratch / f"{number}.err"
        environment = os.environ | {"PHALANX_HOME": str(self.home.root), "OMP_NUM_THREADS": "1"}
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, *program, *arguments],
                stdout=stdout,
                stderr=stderr,
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd=self.scratch,
                start_new_session=True,
            )
        self.commands.append(Command(process, out, err))
        return self.commands[-1]

    def run_to_end(self, *arguments: str, code: int = 0) -> Command:
        command = self.phalanx(*arguments)
        assert command.wait() == code, command.said
        return command

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run_to_end(*arguments, "--json").stdout)

    def write_job(self, document: dict[str, Any], name: str = "job.yaml") -> str:
        path = self.scratch / name
        path.write_text(json.dumps(document))
        return str(path)

    def prepare(self, finished: Terminals, files: tuple[str, ...] = FILES, **training: Any) -> None:
        """Leave the job as a controller that was killed after planning leaves it: `phalanx resume` places it.

        `files`: what it had written. `finished` had planned the same job, maybe for another number of steps.
        """
        source = finished.job().job.spec.data.source
        job = Job.model_validate(job_document(source, **training))
        state = open_state(self.home)
        run_dir = Path(submit(state, job, self.home.runs_dir).job.status.run_dir)
        state.close()
        run_dir.mkdir(parents=True, mode=0o700)
        for name in files:
            shutil.copy(Path(finished.job().job.status.run_dir) / name, run_dir / name)
        (run_dir / "job.json").write_text(job.model_dump_json(by_alias=True))
        shutil.copytree(finished.home.cache_dir, self.home.cache_dir, dirs_exist_ok=True)

    def job(self, name: str = KEY[1]) -> StoredJob:
        state = open_state(self.home)
        try:
            return read_job(state, KEY[0], name)
        finally:
            state.close()

    def placed(self, name: str = KEY[1]) -> PlacementStatus | None:
        """What the agent reports."""
        state = open_state(self.home)
        placement = read_placement(state, (KEY[0], name))
        state.close()
        return placement.status if placement is not None else None

    def agent_pid(self) -> int:
        placed = self.placed()
        assert placed is not None
        return placed.agent_pid

    def workers(self, generation: int = 1) -> list[MemberStatus]:
        placed = self.placed()
        return list(placed.members) if placed is not None and placed.generation == generation else []

    def exits(self, generation: int = 1) -> list[str]:
        """How the workers ended that have, by rank."""
        return [member.exit.kind for member in self.workers(generation) if member.exit]

    def pids(self, generation: int = 1) -> list[int]:
        return [member.pid or 0 for member in self.workers(generation)]

    def rows(self, table: str, **context: Any) -> list[dict[str, Any]]:
        """Of the spool: what was emitted in the last seconds."""
        found = []
        for file in list_files(self.home.spool_dir):
            try:
                found += [r.fields | r.context for r in read_rows(file.path) if r.table == table]
            except FileNotFoundError:
                continue
        return [row for row in found if context.items() <= row.items()]

    def wait_for_step(self, step: int, generation: int = 1, **context: Any) -> None:
        """Return once rank 0 has said that it did `step`, or a later one."""

        def reached() -> bool:
            ended = [command for command in self.commands[-1:] if command.process.poll() is not None]
            assert not ended, ended[0].said
            rows = self.rows("steps", rank=0, generation=generation, **context)
            return any(row["step"] >= step for row in rows)

        wait_until(reached, f"step {step} of generation {generation} is not reached", 90)

    def sql(self, query: str) -> list[dict[str, Any]]:
        return list(self.json("events", "sql", query))

    def losses(self) -> dict[int, float]:
        """Of rank 0 by step; of a step that was done twice, the later one."""
        rows = self.sql("SELECT step, loss FROM steps WHERE rank = 0 ORDER BY generation, step")
        return {row["step"]: row["loss"] for row in rows}

    def checkpointed(self) -> int:
        """The step of the newest good checkpoint."""
        found = newest_good(Path(self.job().job.status.run_dir) / "checkpoints").checkpoint
        return found.manifest.step if found is not None else 0
