"""Random operations for as long as one likes, every result checked bit for bit.

    python -m tests.collectives.transports.soak --ranks 4 --seconds 600

Every rank draws the same operations from the seed, and the inputs of all ranks from a bank that all have, so
each checks its own results against a reduction in rank order done in torch. Blocking and asynchronous, sizes
from nothing to 32 MiB, the dtypes below, ranks that dawdle, subgroups that come and go while the big one works.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import torch
from torch.distributed import PrefixStore, Store, TCPStore

from phalanx.collectives.errors import CollectiveError
from phalanx.collectives.transports.shm import SharedMemory
from phalanx.collectives.transports.transport import ReduceOp, Transport

OPS: tuple[ReduceOp, ...] = ("sum", "average", "min", "max", "product")
REAL = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
WHOLE = [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8]
EIGHT = [torch.float8_e5m2, torch.float8_e4m3fn]
KINDS = [
    "allreduce", "allreduce", "allreduce", "reduce", "broadcast", "allgather", "reducescatter", "alltoall",
    "gather", "scatter", "barrier", "allgather_ragged", "alltoall_ragged", "join", "subgroup",
]  # fmt: skip
LARGEST = 32 << 20  # bytes of one rank's input
UNCHECKED_AT_MOST = 8  # asynchronous operations under way


@dataclass(frozen=True)
class Draw:
    """One operation, the same on every rank."""

    number: int
    kind: str
    op: ReduceOp
    dtype: torch.dtype
    count: int  # elements, or rows, of the unit that is exchanged
    root: int
    asynchronous: bool
    prescale: float
    postscale: float
    sizes: tuple[int, ...]  # a number for every rank: rows, pieces, operations before it joins
    name: str

    @property
    def named(self) -> dict[str, object]:
        return {"name": self.name, "asynchronous": self.asynchronous}

    @property
    def scaled(self) -> dict[str, object]:
        return self.named | {"prescale": self.prescale, "postscale": self.postscale}


def draw(seed: int, number: int, size: int, largest: int) -> Draw:
    rng = random.Random(f"{seed} {number}")
    dtype = rng.choice([*REAL, *REAL, *WHOLE, *EIGHT])
    kind = rng.choice(KINDS)
    most = largest // dtype.itemsize // (1 if kind in {"allreduce", "reduce", "broadcast"} else size)
    count = int(most ** rng.random()) - 1 if rng.random() < 0.9 else rng.choice([0, 1, 1024, 4096])
    scaled = dtype.is_floating_point and rng.random() < 0.2
    return Draw(
        number, kind, rng.choice(OPS), dtype, max(0, count), rng.randrange(size), rng.random() < 0.5,
        rng.choice([0.5, 3.0]) if scaled else 1.0, rng.choice([0.25, 7.0]) if scaled else 1.0,
        tuple(rng.choice([0, 1, 2, 3, rng.randrange(50)]) for _ in range(size)), rng.choice(["", f"tensor.{number}"]),
    )  # fmt: skip


class Bank:
    """Random values of every dtype; an input is a window of them at a place of its own."""

    def __init__(self, largest: int) -> None:
        self._numbers: dict[torch.dtype, torch.Tensor] = {}
        self._largest = largest

    def window(self, dtype: torch.dtype, count: int, number: int, rank: int) -> torch.Tensor:
        if dtype not in self._numbers:
            generator = torch.Generator().manual_seed(dtype.itemsize)
            if dtype.is_floating_point:
                some = torch.randn(199_999, generator=generator).to(dtype)
            else:
                info = torch.iinfo(dtype)
                some = torch.randint(info.min, info.max, (199_999,), generator=generator, dtype=dtype)
            raw = some.view(torch.uint8).repeat(self._largest // some.nbytes + 2)
            self._numbers[dtype] = raw.view(dtype)
        start = random.Random(f"{number} {rank}").randrange(65_536)
        return self._numbers[dtype][start : start + count]


def reduction(inputs: Sequence[torch.Tensor], op: ReduceOp, size: int, pre: float, post: float) -> torch.Tensor:
    """((r0 op r1) op r2) ..., in float32 where the dtype is narrower."""
    dtype = inputs[0].dtype
    wide = torch.float32 if dtype.is_floating_point and dtype.itemsize < 4 else dtype
    rows = [row.to(wide) if pre == 1.0 else row.to(wide) * pre for row in inputs]
    total = rows[0].clone()
    for row in rows[1:]:
        if op in {"sum", "average"}:
            total += row
        elif op == "product":
            total *= row
        else:
            total = (torch.minimum if op == "min" else torch.maximum)(total, row)
    if op == "average":
        total = total / size if dtype.is_floating_point else torch.div(total, size, rounding_mode="trunc")
    return (total if post == 1.0 else total * post).to(dtype)


def same(got: torch.Tensor, expected: torch.Tensor) -> bool:
    """Bit for bit, but any NaN is a NaN."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return False
    if not got.numel():
        return True
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[got.dtype.itemsize]
    if torch.equal(got.view(whole), expected.view(whole)):
        return True
    wide = torch.float64 if got.dtype.is_floating_point else got.dtype
    differs = (got.view(whole) != expected.view(whole)) & ~(got.to(wide).isnan() & expected.to(wide).isnan())
    return not bool(differs.any())


Check = Callable[[], None]


class Soak:
    """Works for one rank of one group."""

    def __init__(self, transport: Transport, form: Callable[[str, int, int], Transport], seed: int, bank: Bank) -> None:
        self._transport, self._form, self._seed, self._bank = transport, form, seed, bank
        self._rank, self._size = transport.rank, transport.size
        self._rng = random.Random(f"{seed} dawdles {self._rank}")

    def run(self, seconds: float, largest: int) -> int:
        """Until rank 0 says that the time is over; the number of operations."""
        until, number, unchecked = time.monotonic() + seconds, 0, list[Check]()
        while True:
            if number % 16 == 0:
                over = torch.tensor([int(time.monotonic() > until)])
                self._transport.broadcast(over, 0)
                if over.item():
                    break
            if (rest := self._rng.random()) < 0.02:
                time.sleep(rest / 4)
            number += 1
            unchecked.append(self.begin(draw(self._seed, number, self._size, largest)))
            if len(unchecked) > UNCHECKED_AT_MOST or self._rng.random() < 0.3:
                self._rng.shuffle(unchecked)
                for check in unchecked:
                    check()
                unchecked.clear()
        for check in unchecked:
            check()
        return number

    def begin(self, what: Draw) -> Check:
        """Submit it; the check waits for it and compares."""
        method = getattr(self, f"_{what.kind}")
        ticket, verify = method(what)

        def check() -> None:
            if ticket:
                self._transport.wait(ticket, 120.0)
            for got, expected in verify():
                if not same(got, expected):
                    raise AssertionError(
                        f"rank {self._rank} of {self._size}, seed {self._seed}: wrong result of {what}"
                    )

        if not what.asynchronous:
            check()
            return lambda: None
        return check

    def _input(self, what: Draw, rank: int, count: int) -> torch.Tensor:
        return self._bank.window(what.dtype, count, what.number, rank)

    def _inputs(self, what: Draw, count: int) -> list[torch.Tensor]:
        return [self._input(what, rank, count) for rank in range(self._size)]

    def _reduction(self, what: Draw, count: int) -> torch.Tensor:
        return reduction(self._inputs(what, count), what.op, self._size, what.prescale, what.postscale)

    def _allreduce(self, what: Draw):
        mine = self._input(what, self._rank, what.count).clone()
        output = mine if what.root else torch.empty_like(mine)
        ticket = self._transport.allreduce(mine, what.op, output=output, **what.scaled)
        return ticket, lambda: [(output, self._reduction(what, what.count))]

    def _reduce(self, what: Draw):
        mine = self._input(what, self._rank, what.count).clone()
        ticket = self._transport.reduce(mine, what.root, what.op, **what.scaled)
        if self._rank == what.root:
            return ticket, lambda: [(mine, self._reduction(what, what.count))]
        return ticket, lambda: [(mine, self._input(what, self._rank, what.count))]

    def _broadcast(self, what: Draw):
        mine = self._input(what, self._rank, what.count).clone()
        ticket = self._transport.broadcast(mine, what.root, **what.named)
        return ticket, lambda: [(mine, self._input(what, what.root, what.count))]

    def _allgather(self, what: Draw):
        mine = self._input(what, self._rank, what.count).clone()
        output = torch.empty(self._size * what.count, dtype=what.dtype)
        ticket = self._transport.allgather(output, mine, **what.named)
        return ticket, lambda: [
            (output, torch.cat(self._inputs(what, what.count))),
            (mine, self._input(what, self._rank, what.count)),
        ]

    def _reducescatter(self, what: Draw):
        uneven = what.number % 2 == 0
        counts = [min(what.count, 999) * part for part in what.sizes] if uneven else [what.count] * self._size
        mine = self._input(what, self._rank, sum(counts)).clone()
        output = torch.empty(counts[self._rank], dtype=what.dtype)
        ticket = self._transport.reducescatter(output, mine, what.op, counts=counts if uneven else None, **what.scaled)
        return ticket, lambda: [(output, self._reduction(what, sum(counts)).split(counts)[self._rank])]

    def _alltoall(self, what: Draw):
        mine = self._input(what, self._rank, self._size * what.count).clone()
        output = torch.empty_like(mine)
        ticket = self._transport.alltoall(output, mine, **what.named)
        return ticket, lambda: [(output, self._pieces(what, what.count))]

    def _pieces(self, what: Draw, count: int) -> torch.Tensor:
        begin = self._rank * count
        return torch.cat([row[begin : begin + count] for row in self._inputs(what, self._size * count)])

    def _gather(self, what: Draw):
        mine = self._input(what, self._rank, what.count).clone()
        output = torch.empty(self._size * what.count, dtype=what.dtype) if self._rank == what.root else None
        ticket = self._transport.gather(output, mine, what.root, **what.named)
        return ticket, lambda: [] if output is None else [(output, torch.cat(self._inputs(what, what.count)))]

    def _scatter(self, what: Draw):
        whole = self._input(what, what.root, self._size * what.count).clone()
        output = torch.empty(what.count, dtype=what.dtype)
        ticket = self._transport.scatter(output, whole if self._rank == what.root else None, what.root, **what.named)
        return ticket, lambda: [(output, whole[self._rank * what.count :][: what.count])]

    def _barrier(self, what: Draw):
        return self._transport.barrier(**what.named), list

    def _rows(self, what: Draw, rank: int, rows: int) -> torch.Tensor:
        width = min(what.count, 2000)
        return self._input(what, rank, rows * width).view(rows, width)

    def _allgather_ragged(self, what: Draw):
        mine = self._rows(what, self._rank, what.sizes[self._rank]).clone()
        ticket = self._transport.allgather_ragged(mine, **what.named)
        expected = torch.cat([self._rows(what, rank, rows) for rank, rows in enumerate(what.sizes)])
        return 0, lambda: self._taken(ticket, expected, list(what.sizes))

    def _alltoall_ragged(self, what: Draw):
        splits = [[(rows + to) % 7 for to in range(self._size)] for rows in what.sizes]
        mine = self._rows(what, self._rank, sum(splits[self._rank])).clone()
        ticket = self._transport.alltoall_ragged(mine, splits[self._rank], **what.named)
        parts = [self._rows(what, rank, sum(split)).split(split)[self._rank] for rank, split in enumerate(splits)]
        return 0, lambda: self._taken(ticket, torch.cat(parts), [len(part) for part in parts])

    def _taken(self, ticket: int, expected: torch.Tensor, rows: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        result, came = self._transport.take(ticket)
        assert list(came) == rows, (came, rows)
        return [(result, expected)]

    def _join(self, what: Draw):
        """Each rank has data for some allreduces, and joins then."""
        steps = [size % 4 for size in what.sizes]
        for step in range(steps[self._rank]):
            part = replace(what, number=what.number * 100 + step, kind="allreduce", prescale=1.0, postscale=1.0)
            count = min(what.count, 100_000)
            mine = self._input(part, self._rank, count).clone()
            rows = [row for rank, row in enumerate(self._inputs(part, count)) if steps[rank] > step]
            self._transport.allreduce(mine, "sum", name=f"step {step}")
            if not same(mine, reduction(rows, "sum", self._size, 1.0, 1.0)):
                raise AssertionError(f"rank {self._rank} of {self._size}, seed {self._seed}: wrong result of {part}")
        last = self._transport.join()
        assert steps[last] == max(steps), (last, steps)
        return 0, list

    def _subgroup(self, what: Draw):
        """Some of the ranks form a group, work a little and part; the others go on."""
        members = [rank for rank in range(self._size) if what.sizes[rank] % 3 or rank == what.root]
        if self._rank in members and len(members) > 1:
            transport = self._form(f"{what.number}", members.index(self._rank), len(members))
            part = Soak(transport, self._form, self._seed + what.number, self._bank)
            part.some(5)
            transport.close()
        return 0, list

    def some(self, operations: int) -> None:
        checks = []
        for number in range(1, operations + 1):
            what = draw(self._seed, number, self._size, 100_000)
            if what.kind != "subgroup":
                checks.append(self.begin(what))
        for check in checks:
            check()
        self._transport.barrier()


def soak(store: Store, rank: int, size: int, seconds: float, seed: int, largest: int = LARGEST) -> int:
    """One rank of it; the number of operations."""

    def form(name: str, number: int, members: int) -> Transport:
        return SharedMemory(PrefixStore(f"{seed} {name}", store), number, members)

    transport = form("all", rank, size)
    done = Soak(transport, form, seed, Bank(largest)).run(seconds, largest)
    transport.close()
    return done


def _child(rank: int, port: int, options: argparse.Namespace) -> NoReturn:
    status = 1
    try:
        store = TCPStore("127.0.0.1", port, None, is_master=False)
        done = soak(store, rank, options.ranks, options.seconds, options.seed, options.largest)
        print(f"rank {rank}: {done} operations", flush=True)  # noqa: T201
        status = 0
    except (AssertionError, CollectiveError):
        traceback.print_exc()
    finally:
        os._exit(status)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--largest", type=int, default=LARGEST, help="bytes of a rank's input")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    store = TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
    children = {}
    for rank in range(options.ranks):
        if not (pid := os.fork()):
            _child(rank, store.port, options)
        children[pid] = rank
    ended = {children[pid]: status for pid, status in (os.wait() for _ in children)}
    print(f"seed {options.seed}: {'every result right' if not any(ended.values()) else ended}")  # noqa: T201
    return int(any(ended.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
