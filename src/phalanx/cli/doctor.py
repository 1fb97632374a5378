"""`phalanx doctor`: what this machine has and lacks, what that means for Phalanx, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal

import click

from phalanx.cli._options import echo_json, home_option, json_option
from phalanx.foundation import Home, size_in_words

if TYPE_CHECKING:
    from phalanx.job import HostFacts

State = Literal["has", "lacks", "note"]
GIB = 1 << 30
_MARKS: dict[State, tuple[str, str]] = {"has": ("✓", "green"), "lacks": ("✗", "red"), "note": ("·", "yellow")}

# File systems on which SQLite's WAL mode, which needs shared memory between processes, is not safe.
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "lustre", "afs"}


@dataclass(frozen=True)
class Line:
    """`lacks`: something does not work or is slower; `note`: nothing uses it yet, or only a few things do."""

    what: str
    state: State
    found: str
    means: str
    to_do: str = ""
    evidence: str = ""


def judge(facts: HostFacts, source_problem: str = "") -> list[Line]:
    """What each fact means for Phalanx. `source_problem`: why the example jobs' text cannot be read; "": it can."""
    evidence = {fact.name: fact.evidence for fact in facts.facts}
    value = {fact.name: fact.value for fact in facts.facts}
    lines = [_cores(facts), _memory(facts), _disk(facts), _filesystem(value), _torch(value)]
    lines += [_text(source_problem), _arithmetic(value), _gpus(value)]
    lines += [_later(value, name, means) for name, means in _LATER.items()]
    return [replace(line, evidence=evidence.get(_EVIDENCE.get(line.what, line.what), "")) for line in lines]


# The fact behind a line, where it has another name.
_EVIDENCE = {
    "cores": "cores.affinity",
    "memory": "memory.available",
    "disk": "disk.free",
    "file system": "disk.filesystem",
    "bf16": "cpu.flags",
    "control groups": "cgroup.writable",
}
_LATER = {
    "namespaces": "would hold the jail around workers",
    "seccomp": "would limit what workers may ask of the kernel",
    "kvm": "would run workers in a microVM",
    "control groups": "would bound what workers take",
    "compiler": "would build faster transports",
}


def _cores(facts: HostFacts) -> Line:
    many = f"{facts.cores} workers compute side by side; more share the cores and are slower"
    if facts.cores > 1:
        return Line("cores", "has", str(facts.cores), many)
    return Line("cores", "lacks", "1", "one worker computes at a time; more only take turns", "use workers: {count: 1}")


def _memory(facts: HostFacts) -> Line:
    free = facts.memory_available_bytes
    found = f"{size_in_words(free)} of {size_in_words(facts.memory_bytes)} free"
    if free >= 2 * GIB:
        return Line("memory", "has", found, "the plan of a job says how much of it the workers will take")
    return Line("memory", "lacks", found, "two workers of a small model take about 1 GiB", "end other programs")


def _disk(facts: HostFacts) -> Line:
    free = facts.disk_free_bytes
    found = f"{size_in_words(free)} free for the home"
    if free >= GIB:
        return Line("disk", "has", found, "prepared text, checkpoints and events of the example jobs take under 1 GiB")
    return Line("disk", "lacks", found, "an example job may not fit", "free space, or choose another place with --home")


def _filesystem(value: Mapping[str, str]) -> Line:
    kind = value.get("disk.filesystem", "unknown")
    if kind in _NETWORK:
        to_do = "choose a home on a local disk with --home"
        return Line("file system", "lacks", kind, "SQLite's write-ahead log is not safe on a network", to_do)
    if kind in ("tmpfs", "ramfs"):
        return Line("file system", "note", kind, "the home is in memory: everything is gone after a restart")
    return Line("file system", "has", kind, "state and events survive a crash of this machine")


def _torch(value: Mapping[str, str]) -> Line:
    version = value.get("torch", "no")
    if version == "no":
        return Line("torch", "lacks", "not installed", "nothing can be trained", "pip install torch")
    return Line("torch", "has", version, "trains the models")


def _text(problem: str) -> Line:
    if problem:
        to_do = "name your own text in data.source, or install Python's library as files"
        return Line("example text", "lacks", problem, "the example jobs have nothing to read", to_do)
    return Line("example text", "has", "Python's standard library", "the example jobs train on it")


def _arithmetic(value: Mapping[str, str]) -> Line:
    flags = value.get("cpu.flags", "").split()
    found = sorted({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))
    if found:
        return Line("bf16", "has", ", ".join(found), "half-width arithmetic in hardware; precision: auto tries it")
    return Line("bf16", "note", "not in this processor", "precision: auto means fp32 here")


def _gpus(value: Mapping[str, str]) -> Line:
    gpus = [text for name, text in value.items() if name.startswith("gpu.")]
    if gpus:
        return Line("gpu", "note", "; ".join(gpus), "not used yet: workers compute on the processor")
    return Line("gpu", "note", "none", "not needed: workers compute on the processor")


def _later(value: Mapping[str, str], what: str, means: str) -> Line:
    """Things that no room uses yet, said so."""
    fact = value.get(_EVIDENCE.get(what, what), "no")
    if what == "control groups" and fact in ("yes", "no"):
        version = value.get("cgroup.version", "none")
        fact = f"version {version}, writable" if fact == "yes" else f"version {version}, not writable"
    return Line(what, "note", fact, f"{means}; nothing uses it yet")


@click.command()
@home_option
@json_option
def command(home: Home, as_json: bool) -> None:
    """Say what this machine has and lacks.

    Each line says what was found, what it means for Phalanx, and what to do where something is lacking.

    \b
    Examples:
      phalanx doctor
      phalanx doctor --json
      phalanx doctor --home /data/phalanx     judge the disk of another home
    """
    from phalanx.data import check_source
    from phalanx.host import facts_of_host
    from phalanx.job import DataSpec

    facts = facts_of_host(home.root)
    problems = [p for p in check_source(DataSpec(source="stdlib-source")).problems if p.severity != "info"]
    lines = judge(facts, problems[0].evidence if problems else "")
    if as_json:
        checks = [asdict(line) for line in lines]
        echo_json({"host": facts.host, "checks": checks, "facts": [fact.model_dump() for fact in facts.facts]})
        return
    model = next(fact.value for fact in facts.facts if fact.name == "cpu.model")
    click.echo(f"{facts.host}: {model}, {facts.cores} cores, {size_in_words(facts.memory_bytes)}. Home: {home.root}\n")
    _draw(lines, click.echo)


def _draw(lines: list[Line], echo: Callable[[str], object]) -> None:
    width = max(len(line.what) for line in lines)
    for line in lines:
        mark, color = _MARKS[line.state]
        echo(f"{click.style(mark, fg=color)} {line.what:<{width}}  {line.found}")
        echo(f"  {'':<{width}}  {click.style(line.means, dim=True)}")
        if line.to_do:
            echo(f"  {'':<{width}}  To do: {line.to_do}")
    lacking = sum(line.state == "lacks" for line in lines)
    echo(f"\n{lacking} of {len(lines)} lacking." if lacking else "\nNothing is lacking for training.")
