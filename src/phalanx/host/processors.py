"""The processors of this machine: cores this process may use, what they can compute, GPUs if there are any."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from phalanx.host import cgroups
from phalanx.host.commands import said_by
from phalanx.job import Fact

# Instruction sets that decide how fast a matrix product is, by the kernel's names of them (x86 and arm).
_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16", "i8mm")

_NVIDIA = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]


def usable_cores(root: Path = Path("/")) -> tuple[int, list[Fact]]:
    """Cores this process may use at once, at least 1: its affinity, and the quota of its control groups."""
    affinity = len(os.sched_getaffinity(0))
    facts = [Fact(name="cores.affinity", value=str(affinity), evidence="sched_getaffinity")]
    cores = affinity
    limit = cgroups.cpu_limit(root)
    if limit is not None:
        facts.append(Fact(name="cores.quota", value=f"{limit.value:g}", evidence=limit.evidence))
        cores = max(1, min(cores, int(limit.value)))
    return cores, facts


def model_facts(root: Path = Path("/")) -> Iterator[Fact]:
    """The processor's name and its instruction sets."""
    text = (root / "proc/cpuinfo").read_text()
    name = re.search(r"^(?:model name|Hardware|cpu model)\s*: (.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.+)$", text, re.MULTILINE)
    there = set(flags[1].split()) if flags else set()
    yield Fact(name="cpu.model", value=name[1].strip() if name else os.uname().machine, evidence="/proc/cpuinfo")
    known = " ".join(flag for flag in _FLAGS if flag in there)
    yield Fact(name="cpu.flags", value=known or "none known", evidence="/proc/cpuinfo")


def gpu_facts(root: Path = Path("/")) -> Iterator[Fact]:
    """One fact a GPU: its name, memory and driver; one fact "no" without any."""
    said, failed = said_by(_NVIDIA)
    if said and not failed:
        for index, line in enumerate(said.splitlines()):
            yield Fact(name=f"gpu.{index}", value=line.strip(), evidence="nvidia-smi")
        return
    listed = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    for index, file in enumerate(listed):
        model = re.search(r"^Model:\s*(.+)$", file.read_text(), re.MULTILINE)
        value = f"{model[1] if model else 'unknown'} (nvidia-smi: {failed})"
        yield Fact(name=f"gpu.{index}", value=value, evidence=str(file))
    if not listed:
        yield Fact(name="gpu", value="no", evidence=f"nvidia-smi: {failed or 'lists none'}; /proc/driver/nvidia/gpus")
