import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import bench_collectives
from benchmarks.bench_collectives import Wish, contest, load_of, size_of
from benchmarks.collectives.peers import Copy, DeepSpeed, Mpi, Order, Peer, Sample, Task, Torch, everyone, slowest
from benchmarks.collectives.report import KIB, MIB, SIZES, report
from benchmarks.collectives.results import Results, compared, statistic_of
from benchmarks.harness import Comparison, MissingData
from benchmarks.ranks import ROOT, RankFailed, run_processes

ORDER = Order(64 * MIB, "float32")


def sample(median: float, variant: str = "in place", mean: float = 900.0) -> Sample:
    return Sample(*ORDER, variant, 7, median, mean)


def results_of(**medians: list[float]) -> Results:
    return Results({name: [[sample(median)] for median in values] for name, values in medians.items()})


def comparison_of(results: Results, ranks: int = 2, kind: str = "idle") -> Comparison:
    [comparison] = compared(results, Task(ranks, [0, 1], 5, 0.1, [ORDER]), kind, 0.0)
    return comparison


def test_the_time_of_a_launch_is_that_of_its_slowest_rank() -> None:
    line = '{"bytes": 8, "dtype": "float32", "variant": "in place", "count": 5, "median_us": %s, "mean_us": %s}'
    output = "\n".join(["a word of a library", line % (3.0, 9.0), line % (4.0, 5.0)])
    assert slowest(output) == [Sample(8, "float32", "in place", 5, 4.0, 9.0)]


def test_the_faster_variant_of_a_launch_counts_and_is_named() -> None:
    both = [[sample(5.0, "memcpy"), sample(3.0, "non-temporal stores")], [sample(2.0, "memcpy"), sample(4.0)]]
    comparison = comparison_of(Results({"copy": both}))
    assert comparison.values["copy"] == [3.0, 2.0]
    assert comparison.settings["copy"]["variants"] == ["non-temporal stores", "memcpy"]


def test_where_ranks_share_cores_the_mean_counts_because_a_median_hides_waits() -> None:
    assert [statistic_of(*setting, 2) for setting in ((2, "idle"), (2, "busy"), (4, "idle"))] == [
        "median",
        "mean",
        "mean",
    ]
    busy = comparison_of(results_of(phalanx=[1.0], gloo=[100.0]), kind="busy")
    assert busy.values["phalanx"] == [900.0]
    assert "gloo" in report([busy])
    assert "slowest rank's mean" in report([busy])
    assert "slowest rank's median" in report([busy])


def test_a_target_is_met_by_the_median_of_the_ratios_within_a_launch() -> None:
    results = results_of(phalanx=[10.0, 10.0, 10.0], gloo=[49.0, 51.0, 90.0], copy=[7.0, 7.0, 99.0])
    lines = report([comparison_of(results)]).splitlines()
    [gloo] = [line for line in lines if line.startswith("gloo")]
    [copy] = [line for line in lines if line.startswith("copy")]
    [mpich] = [line for line in lines if line.startswith("mpich")]
    assert "5.10  (4.90 to 9.00)" in gloo
    assert gloo.endswith("pass")
    assert copy.endswith("FAIL")
    assert mpich.endswith("not measured: no mpich")


def test_who_was_left_out_stands_in_the_report_with_the_reason() -> None:
    results = replace(results_of(phalanx=[1.0], mpich=[2.0]), left_out={"gloo": "gloo failed: its last words"})
    results.fail("mpich", "mpich failed too")
    text = report([comparison_of(results)])
    assert "LEFT OUT: gloo failed: its last words" in text
    assert "LEFT OUT: mpich failed too" in text


@pytest.mark.parametrize(("text", "size"), [("8", 8), ("4KiB", 4 * KIB), ("64 mib", 64 * MIB), ("440MB", SIZES[-1])])
def test_sizes_are_written_as_people_write_them(text: str, size: int) -> None:
    assert size_of(text) == size


@pytest.mark.parametrize(
    ("peer", "remedy"),
    [
        (Copy("copy"), "apt-get install gcc"),
        (Mpi("openmpi", packages="openmpi-bin libopenmpi-dev"), "apt-get install openmpi-bin libopenmpi-dev"),
        (DeepSpeed("deepspeed", python=Path("/nowhere/python")), "requirements/bench-deepspeed.txt"),
    ],
)
def test_a_missing_peer_is_said_with_how_to_install_it(
    peer: Peer, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    said: list[str] = []
    with pytest.raises(MissingData, match=remedy):
        contest(Wish([peer]), said.append)
    assert remedy in said[-1]


def test_the_busy_load_has_a_process_on_each_core_and_ends_with_its_block() -> None:
    def children() -> set[int]:
        return {int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}

    before, cores = children(), sorted(os.sched_getaffinity(0))
    with load_of("busy", cores):
        busy = children() - before
        assert len(busy) == len(cores)
    assert not children() & busy


def test_an_operation_that_sums_nothing_is_noticed(tmp_path: Path) -> None:
    code = "from benchmarks.collectives import protocol; protocol.run(lambda buffer: None)"
    command = [sys.executable, "-c", code, str(min(os.sched_getaffinity(0))), "5", "0.01", "4096:bfloat16"]
    environment = os.environ | {"RANK": "0", "WORLD_SIZE": "2"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the sum of 2048 torch.bfloat16 is wrong" in done.stderr


def everyone_here() -> list[Peer]:
    """Those of the quick run, and each MPI that is installed; the others have a test of how they are missed."""
    mpis = [peer for peer in everyone({}) if isinstance(peer, Mpi) and shutil.which(f"mpirun.{peer.name}")]
    return [Torch("phalanx"), Copy("copy"), Torch("gloo"), *mpis]


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_every_side_that_is_here_sums_right_and_is_timed() -> None:
    here = everyone_here()
    wish = Wish(here, [(2, "idle")], (8, 64 * KIB), ("float32",), launches=1, seconds=0.02)
    small, large = contest(wish, lambda text: None)
    for comparison in (small, large):
        assert comparison.notes["left out"] == []
        assert set(comparison.values) == {peer.name for peer in here}
        assert next(iter(comparison.values)) == here[0].name
    assert "64 KiB" in report([small, large])


class Failing(Peer):
    def outputs(self, task: Task, scratch: Path) -> list[str]:
        command = ["sh", "-c", "echo last words >&2; exit 3"]
        return run_processes(self.name, [command] * 2, [os.environ] * 2, scratch, 60)


def test_a_side_that_fails_is_left_out_and_nothing_else_is_lost() -> None:
    wish = Wish([Failing("nobody"), Copy("copy")], [(2, "idle")], (8,), ("float32",), launches=2, seconds=0.02)
    [comparison] = contest(wish, lambda text: None)
    assert list(comparison.values) == ["copy"]
    assert "nobody failed with 2 ranks, idle" in report([comparison])
    assert "last words" in report([comparison])
    with pytest.raises(RankFailed, match="nobody failed"):
        contest(replace(wish, peers=[Failing("nobody")]), lambda text: None)


def test_the_command_line_measures_what_it_names_and_tells_of_the_missing_by_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHALANX_BENCH_DEEPSPEED_PYTHON", "/nowhere/python")
    common = ["--sizes", "8", "--dtype", "float32", "--ranks", "2", "--launches", "1", "--seconds", "0.01"]
    assert bench_collectives.main([*common, "--peers", "copy", "--json", str(tmp_path)]) == 0
    assert "2 ranks, idle, float32" in capsys.readouterr().out
    assert bench_collectives.main([*common, "--peers", "copy", "deepspeed", "--json", str(tmp_path)]) == 1
    assert len(list(tmp_path.glob("*.json"))) == 2
