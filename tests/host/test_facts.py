"""Facts of this machine compared with what other programs say of it, and of machines that are not here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from phalanx.host import disk_free, facts_of_host
from phalanx.host.commands import said_by
from phalanx.host.processors import gpu_facts, model_facts, usable_cores


def test_every_fact_has_a_value_and_its_evidence() -> None:
    facts = facts_of_host()
    names = [fact.name for fact in facts.facts]
    assert len(names) == len(set(names))
    for fact in facts.facts:
        assert fact.value, fact.name
        assert fact.evidence, fact.name
    assert {"kernel", "python", "torch", "cpu.model", "cpu.flags", "namespaces", "kvm", "compiler"} <= set(names)


def test_the_numbers_are_those_that_other_programs_see(tmp_path: Path) -> None:
    facts = facts_of_host(tmp_path)
    assert facts.host == os.uname().nodename
    assert 1 <= facts.cores <= int(subprocess.check_output(["nproc"], env={"PATH": os.environ["PATH"]}))
    assert facts.memory_bytes <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < facts.memory_available_bytes <= facts.memory_bytes
    free = shutil.disk_usage(tmp_path).free
    assert abs(facts.disk_free_bytes - free) < 1 << 30


def test_torch_is_named_without_loading_it() -> None:
    program = (
        "import sys; from phalanx.host import facts_of_host\n"
        "print({f.name: f.value for f in facts_of_host().facts}['torch'], 'torch' in sys.modules)"
    )
    said = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert said == [torch.__version__, "False"]


def test_free_space_of_a_place_that_is_not_there_yet_is_its_parents(tmp_path: Path) -> None:
    assert abs(disk_free(tmp_path / "runs" / "a") - disk_free(tmp_path)) < 1 << 30


def test_affinity_bounds_the_cores() -> None:
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nfrom phalanx.host import facts_of_host\nprint(facts_of_host().cores)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "1"


def test_a_quota_of_less_than_a_core_still_is_one(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "proc/self/mountinfo").write_text("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.stat").write_text("")
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("50000 100000\n")
    cores, facts = usable_cores(tmp_path)
    assert cores == 1
    assert {fact.name: fact.value for fact in facts}["cores.quota"] == "0.5"


def test_a_processor_of_another_kind_is_read(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd sve bf16 i8mm\n")
    facts = {fact.name: fact.value for fact in model_facts(tmp_path)}
    assert facts["cpu.flags"] == "asimd sve bf16 i8mm"
    assert facts["cpu.model"]


def test_flags_are_those_torch_sees() -> None:
    flags = {fact.name: fact.value for fact in model_facts()}["cpu.flags"].split()
    capability = torch.backends.cpu.get_cpu_capability()
    assert ("avx512f" in flags) or capability != "AVX512"
    assert ("avx2" in flags) or capability not in ("AVX2", "AVX512")


def test_a_gpu_without_its_tool_is_found_through_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    directory = tmp_path / "proc/driver/nvidia/gpus/0000:00:04.0"
    directory.mkdir(parents=True)
    (directory / "information").write_text("Model: \t\t NVIDIA L4\nIRQ: 10\n")
    (fact,) = gpu_facts(tmp_path)
    assert fact.name == "gpu.0"
    assert fact.value.startswith("NVIDIA L4")


def test_gpus_are_listed_by_their_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100, 81559 MiB, 570.1'\necho 'NVIDIA H100, 81559 MiB, 570.1'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert [(fact.name, fact.value) for fact in gpu_facts()] == [
        ("gpu.0", "NVIDIA H100, 81559 MiB, 570.1"),
        ("gpu.1", "NVIDIA H100, 81559 MiB, 570.1"),
    ]


def test_a_command_that_fails_says_why() -> None:
    assert said_by(["sh", "-c", "echo partly; echo broken >&2; exit 3"]) == ("partly", "broken")
    assert said_by(["sh", "-c", "exit 3"]) == ("", "exit code 3")
    assert said_by(["no-such-command-here"]) == ("", "no-such-command-here is not installed")
    assert said_by(["sh", "-c", "printf '\\377'"]) == ("\ufffd", "")


def test_without_a_compiler_the_fact_says_no(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    facts = {fact.name: fact.value for fact in facts_of_host().facts}
    assert facts["compiler"] == "no"
    assert facts["namespaces"].startswith("no: ")


def test_the_file_system_is_that_of_the_innermost_mount(tmp_path: Path) -> None:
    expected = subprocess.check_output(["stat", "-f", "-c", "%T", "/proc"], text=True).strip()
    assert {fact.name: fact.value for fact in facts_of_host(Path("/proc/self")).facts}["disk.filesystem"] == expected
    here = {fact.name: fact.value for fact in facts_of_host(tmp_path / "not" / "there").facts}["disk.filesystem"]
    told = subprocess.check_output(["df", "--output=fstype", str(tmp_path)], text=True).split()[-1]
    assert here == told
