"""A group of processes and the operations they do together.

Every operation must be called by all members in the same order; a mismatch, or a member that dies, makes it fail on
all of them, and nothing is retried: a new generation is formed instead. Operations that change their tensor return a
Handle at once; those that make a new one wait for it, and have an `_async` sister that returns a Handle.
How the bytes travel is the transport's concern (`connect` chooses it). Knows nothing of models or meshes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch.distributed import PrefixStore  # type: ignore[attr-defined]

from phalanx.collectives import compression as compressions
from phalanx.collectives import fusion, objects, sparse, watch
from phalanx.collectives.compression import Compression
from phalanx.collectives.connect import Party, connect, parse_choice
from phalanx.collectives.errors import CollectiveError, Mismatch
from phalanx.collectives.handle import Handle, Reduction
from phalanx.collectives.membership import Membership, Place, Register, place_among
from phalanx.collectives.transports.alone import Alone
from phalanx.collectives.transports.transport import ReduceOp, Transport

T = TypeVar("T")


class Group:
    """Members of one generation. Made by `join` and `subgroup`; alone, every operation is the identity.

    Tensors may have any layout and dtype; sums of float16, bfloat16 and float8 are taken in float32 and rounded once,
    in the order that the transport documents. `name` is what errors call the operation; two calls that one rank
    swapped are told apart by their names. `members`: the world's ranks of these, in order.
    """

    def __init__(
        self,
        membership: Membership,
        transport: Transport | None,
        *,
        place: Place | None = None,
        members: Sequence[int] | None = None,
    ) -> None:
        self.membership = membership
        self.transport = transport if transport is not None else Alone()
        self.rank = membership.rank
        self.size = membership.size
        self.generation = membership.generation
        self.members = tuple(range(self.size) if members is None else members)
        if place is None:
            each = membership.local_size
            place = Place(membership.local_rank, each, self.rank // each, self.size // each)
        self.local_rank, self.local_size = place.local_rank, place.local_size
        self.cross_rank, self.cross_size = place.cross_rank, place.cross_size
        self.address = ""  # of this host in the network of the members; "" for those of one host
        self._party: Party | None = None
        self._register: Register | None = None
        self._subgroups: list[Group] = []
        self._formed = 0
        # Also at the end of the process: a thread that is then in C++ would abort it.
        self._leave = weakref.finalize(self, _leave, self.transport)

    # Reductions

    def allreduce(
        self,
        tensor: torch.Tensor,
        op: ReduceOp = "sum",
        name: str = "",
        *,
        in_place: bool = True,
        prescale: float = 1.0,
        postscale: float = 1.0,
        compression: Compression = compressions.none,
        asynchronous: bool = True,
    ) -> Handle[torch.Tensor]:
        """The reduction of all ranks' `tensor` (same shape and dtype), into `tensor` unless not `in_place`.

        Every input is multiplied by `prescale`, the result by `postscale`. Sparse COO tensors (sum and average) are
        gathered and added up instead. Blocking (`asynchronous=False`) is quickest for one that is waited for at once.
        """
        if tensor.is_sparse:
            return self._allreduce_sparse(tensor, op, name, in_place, prescale * postscale, asynchronous)
        how = Reduction(op, name, prescale, postscale, asynchronous)
        result = tensor.detach() if in_place else torch.empty_like(tensor)
        small, context = compression.compress(tensor.detach())
        ticket, unpack = self._reduce([small], [result], how, lambda piece, _: compression.decompress(piece, context))

        def finish() -> torch.Tensor:
            unpack()
            return tensor if in_place else result

        return Handle(self.transport, [ticket], finish)

    def grouped_allreduce(
        self,
        tensors: Sequence[torch.Tensor],
        op: ReduceOp = "sum",
        name: str = "",
        *,
        in_place: bool = True,
        prescale: float = 1.0,
        postscale: float = 1.0,
        compression: Compression = compressions.none,
        asynchronous: bool = True,
    ) -> Handle[list[torch.Tensor]]:
        """As one `allreduce` each, bit for bit, but in few operations: tensors of one dtype travel together."""
        how = Reduction(op, name, prescale, postscale, asynchronous)
        results = [tensor.detach() if in_place else torch.empty_like(tensor) for tensor in tensors]
        small = [compression.compress(tensor.detach()) for tensor in tensors]
        under_way = []
        for indices in fusion.buckets([tensor for tensor, _ in small]):

            def decompress(piece: torch.Tensor, index: int, indices: list[int] = indices) -> torch.Tensor:
                return compression.decompress(piece, small[indices[index]][1])

            parts = [small[index][0] for index in indices]
            under_way.append(self._reduce(parts, [results[index] for index in indices], how, decompress))

        def finish() -> list[torch.Tensor]:
            for _, unpack in under_way:
                unpack()
            return list(tensors) if in_place else results

        return Handle(self.transport, [ticket for ticket, _ in under_way], finish)

    def _reduce(
        self,
        parts: Sequence[torch.Tensor],
        results: Sequence[torch.Tensor],
        how: Reduction,
        decompress: Callable[[torch.Tensor, int], torch.Tensor],
    ) -> tuple[int, Callable[[], None]]:
        """Reduce `parts` as one: the ticket, and what is to be done when it is done to have `results`."""
        direct = (
            len(parts) == 1
            and fusion.is_plain(parts[0])
            and fusion.is_plain(results[0])
            and parts[0].dtype == results[0].dtype
        )
        flat = parts[0] if direct else fusion.pack(parts)
        ticket = self.transport.allreduce(
            flat,
            how.op,
            output=results[0] if direct else flat,
            name=how.name,
            prescale=how.prescale,
            postscale=how.postscale,
            asynchronous=how.asynchronous,
        )

        def unpack() -> None:
            if not direct:
                pieces = torch.split(flat, [part.numel() for part in parts])
                for index, (piece, part) in enumerate(zip(pieces, parts, strict=True)):
                    results[index].copy_(decompress(piece.view(part.shape), index))

        return ticket, unpack

    def _allreduce_sparse(
        self, tensor: torch.Tensor, op: ReduceOp, name: str, in_place: bool, scale: float, asynchronous: bool
    ) -> Handle[torch.Tensor]:
        if op not in ("sum", "average"):
            raise CollectiveError(f"allreduce {op} of a sparse tensor {name!r}: sum and average only")
        mine = tensor.detach().coalesce()
        rows = mine.indices().t().contiguous()
        values = mine.values().contiguous()
        what = f"{op} of sparse {list(tensor.shape)} by {scale:g} {name}".strip()  # must be the same on all ranks
        tickets = [self._gather_rows(part, what, asynchronous) for part in (rows, values)]

        def finish() -> torch.Tensor:
            indices, counts = self.transport.take(tickets[0])
            gathered, _ = self.transport.take(tickets[1])
            parts = list(zip(torch.split(indices.t(), counts, 1), torch.split(gathered, counts), strict=True))
            total = sparse.add_up(parts, tensor.shape, self.size if op == "average" else None, scale)
            if not in_place:
                return total
            with torch.no_grad():
                tensor.copy_(total)
            return tensor

        return Handle(self.transport, tickets, finish)

    def reducescatter(self, tensor: torch.Tensor, op: ReduceOp = "sum", name: str = "", **how: float) -> torch.Tensor:
        """This rank's rows (first dimension) of the reduction; earlier ranks get one more where it does not divide.

        `prescale`, `postscale` as in `allreduce`.
        """
        return self.reducescatter_async(tensor, op, name, asynchronous=False, **how).synchronize()

    def reducescatter_async(
        self,
        tensor: torch.Tensor,
        op: ReduceOp = "sum",
        name: str = "",
        *,
        prescale: float = 1.0,
        postscale: float = 1.0,
        asynchronous: bool = True,
    ) -> Handle[torch.Tensor]:
        """As `reducescatter`."""
        how = Reduction(op, name, prescale, postscale, asynchronous)
        return self._scatter([tensor], how, lambda outputs: outputs[0])

    def grouped_reducescatter(
        self, tensors: Sequence[torch.Tensor], op: ReduceOp = "sum", name: str = "", **how: float
    ) -> list[torch.Tensor]:
        """As one `reducescatter` each, bit for bit, in few operations."""
        return self.grouped_reducescatter_async(tensors, op, name, asynchronous=False, **how).synchronize()

    def grouped_reducescatter_async(
        self,
        tensors: Sequence[torch.Tensor],
        op: ReduceOp = "sum",
        name: str = "",
        *,
        prescale: float = 1.0,
        postscale: float = 1.0,
        asynchronous: bool = True,
    ) -> Handle[list[torch.Tensor]]:
        """As `grouped_reducescatter`."""
        return self._scatter(tensors, Reduction(op, name, prescale, postscale, asynchronous), lambda outputs: outputs)

    def _scatter(
        self, tensors: Sequence[torch.Tensor], how: Reduction, choose: Callable[[list[torch.Tensor]], T]
    ) -> Handle[T]:
        if any(tensor.ndim == 0 for tensor in tensors):
            raise CollectiveError(f"{f'reducescatter {how.name}'.strip()}: a tensor without dimensions has no rows")
        mine = [fusion.divided(tensor.shape[0], self.size)[self.rank] for tensor in tensors]
        outputs = [tensor.new_empty((rows, *tensor.shape[1:])) for rows, tensor in zip(mine, tensors, strict=True)]
        tickets, flats = [], []
        for indices in fusion.buckets(tensors):
            flat, counts = fusion.pack_by_rank([tensors[index].detach() for index in indices], self.size)
            output = flat.new_empty(counts[self.rank])
            flats.append((output, [outputs[index] for index in indices]))
            tickets.append(
                self.transport.reducescatter(
                    output,
                    flat,
                    how.op,
                    counts=counts,
                    name=how.name,
                    prescale=how.prescale,
                    postscale=how.postscale,
                    asynchronous=how.asynchronous,
                )
            )

        def finish() -> T:
            for flat, results in flats:
                fusion.unpack_into(flat, results)
            return choose(outputs)

        return Handle(self.transport, tickets, finish)

    # Moves

    def broadcast(
        self,
        tensor: torch.Tensor,
        root: int = 0,
        name: str = "",
        *,
        in_place: bool = True,
        asynchronous: bool = True,
    ) -> Handle[torch.Tensor]:
        """`tensor` of `root` (same shape and dtype on all ranks), into `tensor` unless not `in_place`."""
        many = self.grouped_broadcast([tensor], root, name, in_place=in_place, asynchronous=asynchronous)
        return many.then(lambda results: results[0])

    def grouped_broadcast(
        self,
        tensors: Sequence[torch.Tensor],
        root: int = 0,
        name: str = "",
        *,
        in_place: bool = True,
        asynchronous: bool = True,
    ) -> Handle[list[torch.Tensor]]:
        """As one `broadcast` each, in few operations."""
        self._refuse_strangers(root, f"broadcast {name}".strip())
        results = [tensor.detach() if in_place else tensor.detach().clone() for tensor in tensors]
        tickets, flats = [], []
        for indices in fusion.buckets(results):
            parts = [results[index] for index in indices]
            direct = len(parts) == 1 and fusion.is_plain(parts[0])
            flat = parts[0] if direct else fusion.pack(parts)
            tickets.append(self.transport.broadcast(flat, root, name=name, asynchronous=asynchronous))
            if not direct and self.rank != root:
                flats.append((flat, parts))

        def finish() -> list[torch.Tensor]:
            for flat, parts in flats:
                fusion.unpack_into(flat, parts)
            return list(tensors) if in_place else results

        return Handle(self.transport, tickets, finish)

    def allgather(self, tensor: torch.Tensor, name: str = "") -> torch.Tensor:
        """All ranks' rows (first dimension, which may differ by rank) in rank order; a single number is one row."""
        return self.allgather_async(tensor, name, asynchronous=False).synchronize()

    def allgather_async(
        self, tensor: torch.Tensor, name: str = "", *, asynchronous: bool = True
    ) -> Handle[torch.Tensor]:
        """As `allgather`."""
        rows = tensor.detach().reshape(1) if tensor.ndim == 0 else tensor.detach()
        ticket = self._gather_rows(rows, name, asynchronous)
        return Handle(self.transport, [ticket], lambda: self.transport.take(ticket)[0])

    def grouped_allgather(self, tensors: Sequence[torch.Tensor], name: str = "") -> list[torch.Tensor]:
        """As one `allgather` each, in one operation."""
        return self.grouped_allgather_async(tensors, name, asynchronous=False).synchronize()

    def grouped_allgather_async(
        self, tensors: Sequence[torch.Tensor], name: str = "", *, asynchronous: bool = True
    ) -> Handle[list[torch.Tensor]]:
        """As `grouped_allgather`."""
        rows = [tensor.detach().reshape(1) if tensor.ndim == 0 else tensor.detach() for tensor in tensors]
        # The header shows bytes only; what they are goes into the name, which must be the same on all ranks.
        kinds = fusion.named_with_shapes(name, rows)
        ticket = self._gather_rows(fusion.pack_ragged(rows), kinds, asynchronous)

        def finish() -> list[torch.Tensor]:
            data, counts = self.transport.take(ticket)
            by_rank = [fusion.unpack_ragged(part, rows) for part in torch.split(data, counts) if part.numel()]
            return [torch.cat(parts) for parts in zip(*by_rank, strict=True)]

        return Handle(self.transport, [ticket], finish)

    def alltoall(
        self, tensor: torch.Tensor, splits: Sequence[int] | None = None, name: str = ""
    ) -> tuple[torch.Tensor, list[int]]:
        """Send `splits[r]` rows of `tensor` to rank r (None: equally many); what came, and how many rows from each."""
        return self.alltoall_async(tensor, splits, name, asynchronous=False).synchronize()

    def alltoall_async(
        self, tensor: torch.Tensor, splits: Sequence[int] | None = None, name: str = "", *, asynchronous: bool = True
    ) -> Handle[tuple[torch.Tensor, list[int]]]:
        """As `alltoall`."""
        if tensor.ndim == 0 or (splits is None and tensor.shape[0] % self.size):
            raise CollectiveError(
                f"{f'alltoall {name}'.strip()}: {list(tensor.shape)} has no {self.size} equal parts",
                remedy="give splits",
            )
        rows = [tensor.shape[0] // self.size] * self.size if splits is None else list(splits)
        data = tensor.detach().contiguous()
        ticket = self.transport.alltoall_ragged(data, rows, name=name, asynchronous=asynchronous)
        return Handle(self.transport, [ticket], lambda: self.transport.take(ticket))

    def _gather_rows(self, tensor: torch.Tensor, name: str, asynchronous: bool) -> int:
        return self.transport.allgather_ragged(tensor.contiguous(), name=name, asynchronous=asynchronous)

    def allgather_object(self, value: object, name: str = "") -> list[objects.Plain]:
        """Every rank's `value`: None, bool, int, float, str, and lists and dicts of these; nothing is pickled.

        Raises CollectiveError naming the place of anything else in it.
        """
        ticket = self._gather_rows(
            objects.encode(value, f"allgather_object {name}".strip()), f"object {name}".strip(), False
        )
        data, counts = self.transport.take(ticket)
        return [objects.decode(part) for part in torch.split(data, counts) if part.numel()]

    def broadcast_object(self, value: object = None, root: int = 0, name: str = "") -> objects.Plain:
        """`value` of `root`, which may be what `allgather_object` takes; the others' is not looked at."""
        what = f"broadcast_object {name}".strip()
        self._refuse_strangers(root, what)
        mine = objects.encode(value, what) if self.rank == root else torch.empty(0, dtype=torch.uint8)
        ticket = self._gather_rows(mine, f"object of rank {root} {name}".strip(), False)
        found, _ = self.transport.take(ticket)
        if not found.numel():
            raise Mismatch(f"{what}: rank {root}, whose object it is, has joined", where=self._where)
        return objects.decode(found)

    # Meeting and ending

    def barrier(self, name: str = "") -> None:
        """Return when every member has called it."""
        self.transport.barrier(name=name)

    def join(self) -> int:
        """This rank has no more data: take part in what the others do until all have called this; who came last.

        It counts as zeros in sums and averages (which are still over all), and not at all in other reductions and
        in allgathers. Broadcasts, alltoalls and objects of a root raise Mismatch meanwhile.
        """
        return self.transport.join()

    def subgroup(self, ranks: Sequence[int]) -> Group | None:
        """A group of some members, which may belong to any number; None for the others. Every member must call it.

        In it they are rank 0, 1, ... in the order of `ranks`; messages name them by their rank in the world.
        """
        asked = self.allgather_object(list(ranks), "subgroup")
        self._formed += 1
        self._subgroups = [group for group in self._subgroups if group._leave.alive]  # the others were closed
        if any(other != list(ranks) for other in asked):
            said = "; ".join(f"rank {self.members[rank]}: {other}" for rank, other in enumerate(asked))
            raise Mismatch(f"the ranks want different subgroups: {said}", where=self._where)
        if len(set(ranks)) != len(ranks) or not ranks or not all(0 <= rank < self.size for rank in ranks):
            raise CollectiveError(f"{list(ranks)} are no ranks of a group of {self.size}", where=self._where)
        if self.rank not in ranks:
            return None
        mine = list(ranks).index(self.rank)
        members = [self.members[rank] for rank in ranks]
        if self._party is None:
            return Group(self.membership, None, members=members)
        hosts = [[list(ranks).index(rank) for rank in host if rank in ranks] for host in self._party.hosts]
        hosts = sorted(sorted(host) for host in hosts if host)
        party = replace(
            self._party,
            store=PrefixStore(f"subgroup-{self._formed}", self._party.store),
            rank=mine,
            hosts=hosts,
            names=members,
        )
        membership = replace(self.membership, rank=mine, size=len(ranks), local_rank=0, local_size=1)
        group = _connected(membership, party, f"ranks {', '.join(map(str, members))}")
        self._subgroups.append(group)
        return group

    def abort(self, reason: str) -> None:
        """Leave because of `reason`: the others' operations fail with PeerLost that repeats it."""
        for group in self._subgroups:
            group.abort(reason)
        watch.unwatch(self.transport)
        self.transport.abort(reason)
        self.close()

    def close(self) -> None:
        """Leave, with the subgroups made of this one. Others who still wait for this member get PeerLost.

        gloo now and then aborts a process that ends after correct work: leave by `os._exit` after this.
        """
        while self._subgroups:
            self._subgroups.pop().close()
        self._leave()
        register, self._register = self._register, None
        if register is not None:
            register.close()

    def _refuse_strangers(self, root: int, what: str) -> None:
        if root not in range(self.size):
            raise CollectiveError(f"{what}: there is no rank {root} in a group of {self.size}", where=self._where)

    @property
    def _where(self) -> str:
        return f"rank {self.rank} of {self.size}, generation {self.generation}"


def _leave(transport: Transport) -> None:
    watch.unwatch(transport)
    transport.close()


def join(
    membership: Membership,
    *,
    timeout_s: float = 60.0,
    operation_timeout_s: float = 600.0,
) -> Group:
    """Form the group with the other holders of tokens of the same generation.

    `membership.transport`: see `connect`, the same on all ranks. `timeout_s`: for all to come;
    `operation_timeout_s`: for one operation, so longer than a member may be stopped or slow.
    Raises CollectiveTimeout naming who did not come.
    """
    if membership.size == 1:
        return Group(membership, None)
    register = Register(membership)
    register.meet(timeout_s)
    party = Party(
        PrefixStore("transport", register.store),
        membership.rank,
        register.hosts(),
        names=range(membership.size),
        address=register.address,
        choice=parse_choice(membership.transport),
        timeout_s=timeout_s,
        operation_timeout_s=operation_timeout_s,
    )
    group = _connected(membership, party, "world")
    group._register = register
    return group


def _connected(membership: Membership, party: Party, name: str) -> Group:
    transport = connect(party)
    place = place_among([list(ranks) for ranks in party.hosts], party.rank)
    group = Group(membership, transport, place=place, members=party.names)
    group._party, group.address = party, party.address
    if party.size > 1:
        watch.watch(transport, name, party.names)
    return group
