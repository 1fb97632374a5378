"""Findings, decisions and host facts: what the rooms tell each other about what they saw."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from phalanx.job.spec import Value

Severity = Literal["info", "low", "medium", "high", "critical"]
Verdict = Literal["allow", "hold", "block"]


class Finding(Value):
    id: str = Field(description="Unique in its decision: rule and subject.")
    rule: str = Field(description="Such as data.empty or disk.too-small.")
    severity: Severity
    subject: str = Field(description="What it is about: a source, a file, a host.")
    location: str = ""
    evidence: str
    remedy: str
    tags: tuple[str, ...] = ()
    source: str = Field(description="Room that found it.")


class Coverage(Value):
    scanned: tuple[str, ...] = ()
    skipped: tuple[str, ...] = Field(default=(), description="Each with its reason.")


class Decision(Value):
    verdict: Verdict
    gate: int = Field(ge=1, le=2)
    findings: tuple[Finding, ...] = ()
    coverage: Coverage = Coverage()


class Fact(Value):
    """One thing known of a host, with the place it was read from."""

    name: str
    value: str
    evidence: str


class HostFacts(Value):
    host: str
    cores: int
    memory_bytes: int
    memory_available_bytes: int
    disk_free_bytes: int
    facts: tuple[Fact, ...] = ()
