"""`phalanx doctor`: what it says of this machine, and of machines that lack something."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from phalanx.cli.doctor import Line, command, judge
from phalanx.host import facts_of_host
from phalanx.job import Fact, HostFacts

GIB = 1 << 30


def facts(cores: int = 8, memory: int = 32 * GIB, disk: int = 100 * GIB, **values: str) -> HostFacts:
    named = {name.replace("_", "."): value for name, value in values.items()}
    return HostFacts(
        host="elsewhere",
        cores=cores,
        memory_bytes=memory,
        memory_available_bytes=memory,
        disk_free_bytes=disk,
        facts=tuple(Fact(name=name, value=value, evidence=f"from {name}") for name, value in named.items()),
    )


def line(lines: list[Line], what: str) -> Line:
    return next(line for line in lines if line.what == what)


def test_a_good_machine_lacks_nothing() -> None:
    lines = judge(facts(torch="2.13.0", disk_filesystem="ext4", cpu_flags="avx2 avx512_bf16"))
    assert not [line for line in lines if line.state == "lacks"]


@pytest.mark.parametrize(
    ("what", "machine"),
    [
        ("cores", facts(cores=1)),
        ("memory", facts(memory=GIB)),
        ("disk", facts(disk=GIB // 2)),
        ("file system", facts(disk_filesystem="nfs4")),
        ("torch", facts(torch="no")),
    ],
)
def test_what_is_lacking_comes_with_what_it_means_and_what_to_do(what: str, machine: HostFacts) -> None:
    found = line(judge(machine), what)
    assert found.state == "lacks"
    assert found.means
    assert found.to_do


def test_text_that_is_not_there_is_lacking() -> None:
    found = line(judge(facts(), "holds no text"), "example text")
    assert (found.state, found.found) == ("lacks", "holds no text")


def test_what_nothing_uses_yet_is_a_note_however_it_is() -> None:
    for machine in (facts(), facts(kvm="yes", namespaces="yes", seccomp="yes", compiler="cc 12")):
        for what in ("kvm", "namespaces", "seccomp", "control groups", "compiler"):
            assert line(judge(machine), what).state == "note"
            assert "nothing uses it yet" in line(judge(machine), what).means


def test_a_gpu_is_shown_and_not_promised_to_be_used() -> None:
    machine = facts().model_copy(update={"facts": (Fact(name="gpu.0", value="NVIDIA L4", evidence="nvidia-smi"),)})
    found = line(judge(machine), "gpu")
    assert (found.found, found.state) == ("NVIDIA L4", "note")
    assert "not used yet" in found.means


def test_evidence_is_carried_to_the_line() -> None:
    assert line(judge(facts(disk_filesystem="xfs")), "file system").evidence == "from disk.filesystem"
    assert all(line.evidence for line in judge(facts_of_host()) if line.what not in ("example text", "gpu"))


def test_it_prints_a_table_and_ends_well(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["--home", str(tmp_path)])
    assert result.exit_code == 0
    assert "cores" in result.output
    assert str(tmp_path) in result.output


def test_as_json_it_gives_checks_and_facts(tmp_path: Path) -> None:
    answer = json.loads(CliRunner().invoke(command, ["--json", "--home", str(tmp_path)]).stdout)
    assert {check["what"] for check in answer["checks"]} >= {"cores", "memory", "disk", "torch"}
    assert all(fact["evidence"] for fact in answer["facts"])
    assert answer["host"]


def test_help_has_examples() -> None:
    assert "Examples:" in CliRunner().invoke(command, ["--help"]).output
