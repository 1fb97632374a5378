"""Sums over the ranks of one host: ours against gloo, OpenMPI, MPICH, DeepSpeed, and one copy of the buffer.

A launch starts all ranks of one side, pinned to cores, and makes blocking calls in place on touched buffers, after a
sum that is checked and a warm-up; its time is that of the slowest rank. Sides take turns launch by launch, in rotated
order. The programs are in `collectives/`. MPI sums in place and from one buffer to another, the copy is memcpy and
non-temporal stores: the faster counts. More options than `python -m benchmarks` has:

    python -m benchmarks.bench_collectives --ranks 2 --load busy --sizes 4KiB 440MB --peers phalanx gloo
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.collectives.peers import Order, Peer, PeerMissing, Task, everyone
from benchmarks.collectives.report import KIB, OURS, SIZES, left_out, report
from benchmarks.collectives.results import Results, compared
from benchmarks.harness import Comparison, MissingData, Options, save
from benchmarks.ranks import RankFailed
from phalanx.host.processes import start

Progress = Callable[[str], None]
VARIANTS = ((2, "idle"), (2, "busy"), (4, "idle"))
DTYPES = ("float32", "bfloat16")
BUSY = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
WATCH_S, QUIET = 1.0, 0.1  # cores that other programs may use


@dataclass(frozen=True)
class Wish:
    """What to run. An order is measured for `seconds` in each launch, at most `most` times."""

    peers: Sequence[Peer]
    variants: Sequence[tuple[int, str]] = VARIANTS
    sizes: Sequence[int] = SIZES
    dtypes: Sequence[str] = DTYPES
    launches: int = 5
    cores: int = 2
    most: int = 200_000
    seconds: float = 0.5

    @property
    def orders(self) -> list[Order]:
        return [Order(size, dtype) for dtype in self.dtypes for size in self.sizes]


def run(options: Options, progress: Progress) -> list[Comparison]:
    """With `quick`: two sizes of three sides. Raises MissingData when nothing can run, RankFailed when ours fails."""
    wish = Wish(everyone(os.environ), launches=options.rounds)
    if options.quick:
        few = [peer for peer in wish.peers if peer.name in (OURS, "copy", "gloo")]
        wish = Wish(few, [(2, "idle")], (8, 64 * KIB), ("float32",), launches=options.rounds, seconds=0.05)
    found = contest(wish, progress)
    if without := [comparison for comparison in found if OURS not in comparison.values]:
        raise RankFailed("; ".join(left_out(without[0])))
    return found


def contest(wish: Wish, progress: Progress) -> list[Comparison]:
    """One Comparison for each setting and order. A side that is missing or fails is in its notes, and in the report."""
    cores = sorted(os.sched_getaffinity(0))[: wish.cores]
    found: list[Comparison] = []
    reasons: dict[str, None] = {}
    with tempfile.TemporaryDirectory(prefix="phalanx-bench-") as scratch:
        missing = Results()
        present = [peer for peer in wish.peers if ready(peer, Path(scratch), missing, progress)]
        if not present:
            raise MissingData("; ".join(missing.left_out.values()))
        others = busy_cores(WATCH_S)
        if others > QUIET:
            progress(f"collectives: other programs use {others:.2f} cores: the times will be too long")
        for ranks, kind in wish.variants:
            results = Results(left_out=dict(missing.left_out))
            task = Task(ranks, cores, wish.most, wish.seconds, wish.orders)
            with load_of(kind, cores):
                measure(present, task, kind, wish.launches, Path(scratch), results, progress)
            found += compared(results, task, kind, others)
            reasons |= dict.fromkeys(results.left_out.values())
    if not found:
        raise RankFailed("; ".join(reasons))
    return found


def busy_cores(seconds: float) -> float:
    """How many cores were not idle while this waited."""

    def idle() -> float:
        fields = Path("/proc/stat").read_text().split(maxsplit=6)
        return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")  # idle, and waiting for a disk

    before, begin = idle(), time.monotonic()
    time.sleep(seconds)
    return max(0.0, (os.cpu_count() or 1) - (idle() - before) / (time.monotonic() - begin))


def ready(peer: Peer, scratch: Path, results: Results, progress: Progress) -> bool:
    try:
        peer.prepare(scratch)
    except PeerMissing as error:
        results.fail(peer.name, f"{peer.name} is missing: {error}")
        progress(f"collectives: LEFT OUT: {results.left_out[peer.name]}")
        return False
    return True


def measure(
    peers: Sequence[Peer], task: Task, kind: str, launches: int, scratch: Path, results: Results, progress: Progress
) -> None:
    """Every launch of one setting, into `results`."""
    for launch in range(launches):
        first = launch % len(peers)
        for peer in (*peers[first:], *peers[:first]):
            if peer.name in results.left_out:
                continue
            progress(f"collectives: {task.ranks} ranks, {kind}: launch {launch + 1} of {launches}: {peer.name}")
            try:
                results.launches.setdefault(peer.name, []).append(peer.launch(task, scratch))
            except RankFailed as error:
                results.fail(peer.name, f"{peer.name} failed with {task.ranks} ranks, {kind}: {error}")
                progress(f"collectives: LEFT OUT: {results.left_out[peer.name]}")


@contextmanager
def load_of(kind: str, cores: Sequence[int]) -> Iterator[None]:
    """`busy`: a foreign process that never waits, pinned to each of `cores`. `idle`: nothing."""
    command = [sys.executable, "-I", "-S", "-c", BUSY]
    processes = [start([*command, str(core)], env=os.environ) for core in cores if kind == "busy"]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def size_of(text: str) -> int:
    """8, 4KiB, 64MiB, 440MB."""
    units = {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9, "B": 1, "": 1}
    digits = text.rstrip("KMGiBkmgb ")
    size = int(digits) * units[text[len(digits) :].strip().upper()]
    if size <= 0 or size % 4:
        raise ValueError("a size is a multiple of 4 bytes")
    return size


def arguments(given: Sequence[str]) -> argparse.Namespace:
    names = [peer.name for peer in everyone({})]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_collectives",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", nargs="+", type=size_of, default=SIZES, help="as 8, 4KiB or 440MB [default: seven]")
    parser.add_argument("--peers", nargs="+", choices=names, default=names, help=f"of {', '.join(names)}")
    parser.add_argument("--ranks", nargs="+", type=int, help="[default: 2 idle, 2 busy, 4 idle]")
    parser.add_argument("--load", nargs="+", choices=("idle", "busy"), help="busy: a foreign process on each core")
    parser.add_argument("--launches", type=int, default=5, help="of every side [default: 5]")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--cores", type=int, default=2, help="how many the ranks get together [default: 2]")
    parser.add_argument("--seconds", type=float, default=0.5, help="that one order takes in one launch, at least")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results", help="directory for the JSON")
    return parser.parse_args(given)


def main(given: Sequence[str]) -> int:
    """Exit code 1 when a side was left out."""
    parsed = arguments(given)
    variants: Sequence[tuple[int, str]] = VARIANTS
    if parsed.ranks or parsed.load:
        variants = [(ranks, kind) for ranks in parsed.ranks or [2] for kind in parsed.load or ["idle"]]
    wish = Wish(
        [peer for peer in everyone(os.environ) if peer.name in parsed.peers],
        variants,
        parsed.sizes,
        parsed.dtype,
        parsed.launches,
        parsed.cores,
        seconds=parsed.seconds,
    )
    try:
        found = contest(wish, lambda text: print(text, file=sys.stderr, flush=True))
    except (MissingData, RankFailed) as error:
        print(error, file=sys.stderr)
        return 1
    print(report(found))
    print(save(found, parsed.json, " ".join(["python -m benchmarks.bench_collectives", *given])))
    return 1 if any(left_out(comparison) for comparison in found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
