"""Two `phalanx run` at the same moment over one home: of different jobs, and of one."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.terminal import Terminals, job_document
from tests.processes import wait_until


def test_two_runs_at_once_disturb_each_other_in_nothing(terminals: Terminals, text: Path) -> None:
    documents = {}
    for name in ("one", "two"):
        documents[name] = job_document(text, steps=40, evaluateEvery=40)
        documents[name]["metadata"]["name"] = name
    commands = [terminals.phalanx("run", terminals.write_job(documents[name], name)) for name in ("one", "two")]
    assert [command.wait(200) for command in commands] == [0, 0], [command.said for command in commands]
    query = "SELECT job_uid, rank, count(*) AS n, count(DISTINCT step) AS steps FROM steps GROUP BY job_uid, rank"
    rows = terminals.sql(query)
    assert len(rows) == 4
    assert {(row["n"], row["steps"]) for row in rows} == {(40, 40)}
    assert terminals.sql("SELECT count(*) AS n FROM losses") == [{"n": 0}]
    for command in commands:
        assert "killed" not in Path(command.stdout.splitlines()[-1]).read_text()


def test_of_two_runs_of_one_name_at_the_same_moment_one_begins(terminals: Terminals, text: Path) -> None:
    file = terminals.write_job(job_document(text, steps=100_000))
    commands = [terminals.phalanx("run", file) for _ in range(2)]
    wait_until(lambda: any(command.process.poll() is not None for command in commands), "both run", 60)
    loser, winner = sorted(commands, key=lambda command: command.process.poll() is None)
    assert loser.wait() == 1
    assert "default/small is running" in loser.stderr
    wait_until(lambda: "... planning" in winner.stderr, f"the winner does not go on: {winner.said}")
    winner.interrupt()
    assert winner.wait() == 130
    assert terminals.job().job.status.phase == "Stopped"
