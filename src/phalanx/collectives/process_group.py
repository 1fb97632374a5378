"""A torch.distributed ProcessGroup over a transport of ours: what torch calls, and what it gets back.

A Python subclass, so that `torch.distributed.all_reduce` reaches our method without a detour through C++ (2 of an
operation's 5 microseconds were there). What transports do not have (send and receive, bitwise reductions, sparse
tensors) goes to a gloo group, connected pair by pair when it is first needed; tensors of a GPU go to NCCL. Knows
nothing of how a transport moves tensors, nor which one it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any, NoReturn, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import (
    AllgatherOptions,
    AllreduceCoalescedOptions,
    AllreduceOptions,
    AllToAllOptions,
    BarrierOptions,
    BroadcastOptions,
    GatherOptions,
    PrefixStore,
    ProcessGroupGloo,
    ReduceOptions,
    ReduceScatterOptions,
    ScatterOptions,
    Store,
)

from phalanx.collectives.errors import CollectiveError, Mismatch
from phalanx.collectives.transports.transport import ReduceOp, Transport
from phalanx.collectives.watch import unwatch
from phalanx.collectives.work import All, Call, Courier, Done, Pending, plain

# By hash: torch's ReduceOp hashes to its number, and looking one up by equality costs 1.2 microseconds, not 0.3.
_OPS: dict[int, ReduceOp] = {
    hash(dist.ReduceOp.SUM): "sum",
    hash(dist.ReduceOp.AVG): "average",
    hash(dist.ReduceOp.MIN): "min",
    hash(dist.ReduceOp.MAX): "max",
    hash(dist.ReduceOp.PRODUCT): "product",
}
_SUM = hash(dist.ReduceOp.SUM)
_PREMULTIPLIED = hash(dist.ReduceOp.PREMUL_SUM)
_DONE = Done([])  # of every blocking operation: torch only waits for it
# Untyped: mypy cannot see that one method of ours takes what two overloads of torch's do.
_ProcessGroup: Any = dist.ProcessGroup


class ProcessGroupPhalanx(_ProcessGroup):  # type: ignore[misc]
    """The ranks of one torch.distributed group called `name`. `store` is theirs alone."""

    def __init__(self, name: str, transport: Transport, store: Store, timeout: timedelta) -> None:
        super().__init__(transport.rank, transport.size)
        self._backend = name
        self._rank, self._size = transport.rank, transport.size
        self._store, self._timeout = store, timeout
        self._name = self._description = ""
        self._others: dict[str, Any] = {}
        self._coalesced: list[dist.Work] | None = None
        self.transport: Any = transport
        self.courier = Courier("phalanx-futures")
        self._sum = getattr(self.transport, "sum_in_place", self.transport.allreduce)

    # Who we are.

    def rank(self) -> int:
        return self._rank

    def size(self) -> int:
        return self._size

    getRank, getSize = rank, size  # noqa: N815 - C++ asks by these names

    def getBackendName(self) -> str:  # noqa: N802
        return self._backend

    name = _get_backend_name = getBackendName

    def getGroupName(self) -> str:  # noqa: N802
        return self._name

    def setGroupName(self, name: str) -> None:  # noqa: N802
        self._name = name

    def getGroupDesc(self) -> str:  # noqa: N802
        return self._description

    def setGroupDesc(self, description: str) -> None:  # noqa: N802
        self._description = description

    _set_group_name, _set_group_desc = setGroupName, setGroupDesc
    group_name, group_desc = property(getGroupName), property(getGroupDesc)

    def get_group_store(self) -> Store:
        return self._store

    @property
    def _device_types(self) -> list[torch.device]:
        return [torch.device("cpu")]

    # The end.

    def shutdown(self) -> None:
        """Give everything back. Others who still wait for this rank get PeerLost."""
        if self.transport.unfinished():
            self.transport.abort("the group was destroyed with operations under way")
        self._end()

    def abort(self) -> None:
        """The others' operations fail with PeerLost."""
        self.transport.abort("the group was aborted")
        self._end()

    def _end(self) -> None:
        self.courier.close()  # nothing is under way that could keep it
        transport, self.transport, self._sum = self.transport, _Ended(), _ended
        unwatch(transport)
        transport.close()
        for other in self._others.values():
            other.shutdown()
        self._others.clear()

    def set_timeout(self, timeout: timedelta) -> None:
        """Of what is waited for from now on; a blocking operation keeps that of the group's making."""
        self._timeout = timeout
        for other in self._others.values():
            other.set_timeout(timeout)

    # Reductions.

    def allreduce(self, tensors: Any, opts: Any = None, timeout: timedelta | None = None) -> dist.Work:
        if type(opts) is AllreduceOptions and not opts.asyncOp and len(tensors) == 1:
            tensor = tensors[0]
            sums = hash(opts.reduceOp) == _SUM
            if sums and tensor.is_cpu and tensor.is_contiguous():  # sparse ones never are
                self._sum(tensor)
                return _DONE
        opts = _options(AllreduceOptions, opts, timeout, reduceOp=opts)
        return self.allreduce_coalesced(_list(tensors), opts)

    def allreduce_coalesced(self, tensors: list[Tensor], opts: Any = None) -> dist.Work:
        opts = AllreduceCoalescedOptions() if opts is None else opts
        how = _how(opts.reduceOp)
        if how is None or not _ours(tensors[0]):
            return self._elsewhere(tensors[0]).allreduce(tensors, opts)
        call = Call("phalanx:all_reduce", opts, tensors)
        for tensor in tensors:
            call.tickets.append(self.transport.allreduce(call.output(tensor), asynchronous=call.asynchronous, **how))
        return self._begun(call)

    def reduce(self, tensors: Any, opts: Any = None, op: Any = None, timeout: timedelta | None = None) -> dist.Work:
        tensors, opts = _list(tensors), _options(ReduceOptions, opts, timeout, rootRank=opts, reduceOp=op)
        how = _how(opts.reduceOp)
        if how is None or not _ours(tensors[0]):
            return self._elsewhere(tensors[0]).reduce(tensors, opts)
        call = Call("phalanx:reduce", opts, tensors)
        flat = call.output(tensors[0])
        call.tickets.append(self.transport.reduce(flat, opts.rootRank, asynchronous=call.asynchronous, **how))
        return self._begun(call)

    def reduce_scatter_single(self, output: Tensor, tensor: Tensor, opts: Any = None) -> dist.Work:
        return self.reduce_scatter_single_coalesced([output], [tensor], opts)

    def reduce_scatter_single_coalesced(
        self, outputs: list[Tensor], tensors: list[Tensor], opts: Any = None
    ) -> dist.Work:
        opts = ReduceScatterOptions() if opts is None else opts
        how = _how(opts.reduceOp)
        if how is None or not _ours(tensors[0]):
            return self._elsewhere(tensors[0]).reduce_scatter_tensor_coalesced(outputs, tensors, opts)
        call = Call("phalanx:reduce_scatter", opts, outputs)
        for output, tensor in zip(outputs, tensors, strict=True):
            into = call.output(output)
            call.tickets.append(
                self.transport.reducescatter(into, plain(tensor), asynchronous=call.asynchronous, **how)
            )
        return self._begun(call)

    def reduce_scatter(
        self, outputs: Any, inputs: Any, opts: Any = None, timeout: timedelta | None = None
    ) -> dist.Work:
        if not isinstance(outputs, list):
            outputs, inputs = [outputs], [inputs]
        opts = _options(ReduceScatterOptions, opts, timeout, reduceOp=opts)
        how = _how(opts.reduceOp)
        if how is None or not _ours(outputs[0]):
            return self._elsewhere(outputs[0]).reduce_scatter(outputs, inputs, opts)
        call = Call("phalanx:reduce_scatter", opts, outputs)
        into, counts = call.output(outputs[0]), [piece.numel() for piece in inputs[0]]
        call.tickets.append(
            self.transport.reducescatter(into, _joined(inputs[0]), counts=counts, asynchronous=call.asynchronous, **how)
        )
        return self._begun(call)

    # What moves without being added up.

    def broadcast(self, tensors: Any, opts: Any = None, timeout: timedelta | None = None) -> dist.Work:
        tensors, opts = _list(tensors), _options(BroadcastOptions, opts, timeout, rootRank=opts)
        if not _ours(tensors[0]):
            return self._elsewhere(tensors[0]).broadcast(tensors, opts)
        call = Call("phalanx:broadcast", opts, tensors)
        for tensor in tensors:
            flat = call.output(tensor)
            call.tickets.append(self.transport.broadcast(flat, opts.rootRank, asynchronous=call.asynchronous))
        return self._begun(call)

    def all_gather_single(self, output: Tensor, tensor: Tensor, opts: Any = None) -> dist.Work:
        return self.all_gather_single_coalesced([output], [tensor], opts)

    def all_gather_single_coalesced(self, outputs: list[Tensor], tensors: list[Tensor], opts: Any = None) -> dist.Work:
        opts = AllgatherOptions() if opts is None else opts
        if not _ours(tensors[0]):
            return self._elsewhere(tensors[0]).allgather_into_tensor_coalesced(outputs, tensors, opts)
        call = Call("phalanx:all_gather", opts, outputs)
        for output, tensor in zip(outputs, tensors, strict=True):
            into = call.output(output)
            call.tickets.append(self.transport.allgather(into, plain(tensor), asynchronous=call.asynchronous))
        return self._begun(call)

    def allgather(self, outputs: Any, inputs: Any, opts: Any = None, timeout: timedelta | None = None) -> dist.Work:
        if not isinstance(inputs, list):
            outputs, inputs = [outputs], [inputs]
        return self.allgather_coalesced(outputs, inputs, _options(AllgatherOptions, opts, timeout))

    def allgather_coalesced(self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: Any = None) -> dist.Work:
        opts = AllgatherOptions() if opts is None else opts
        if not _ours(inputs[0]):
            return self._elsewhere(inputs[0]).allgather(outputs, inputs, opts)
        call = Call("phalanx:all_gather", opts, outputs)
        for rows, tensor in zip(outputs, inputs, strict=True):
            flat = plain(tensor)
            into = self._rows(call, rows, flat)
            call.tickets.append(self.transport.allgather(into, flat, asynchronous=call.asynchronous))
        return self._begun(call)

    def gather(self, outputs: Any, inputs: Any, opts: Any = None, timeout: timedelta | None = None) -> dist.Work:
        if not isinstance(inputs, list):
            outputs, inputs = [outputs] if outputs else [], [inputs]
        opts = _options(GatherOptions, opts, timeout, rootRank=opts)
        if not _ours(inputs[0]):
            return self._elsewhere(inputs[0]).gather(outputs, inputs, opts)
        call = Call("phalanx:gather", opts, outputs)
        flat = plain(inputs[0])
        into = self._rows(call, outputs[0], flat) if self._rank == opts.rootRank else None
        call.tickets.append(self.transport.gather(into, flat, opts.rootRank, asynchronous=call.asynchronous))
        return self._begun(call)

    def scatter(self, outputs: Any, inputs: Any, opts: Any = None, timeout: timedelta | None = None) -> dist.Work:
        if not isinstance(outputs, list):
            outputs, inputs = [outputs], [inputs] if inputs else []
        opts = _options(ScatterOptions, opts, timeout, rootRank=opts)
        if not _ours(outputs[0]):
            return self._elsewhere(outputs[0]).scatter(outputs, inputs, opts)
        call = Call("phalanx:scatter", opts, outputs)
        into = call.output(outputs[0])
        flat = _joined(inputs[0]) if self._rank == opts.rootRank else None
        call.tickets.append(self.transport.scatter(into, flat, opts.rootRank, asynchronous=call.asynchronous))
        return self._begun(call)

    def all_to_all_single(
        self,
        output: Tensor,
        tensor: Tensor,
        output_splits: list[int] | None = None,
        input_splits: list[int] | None = None,
        opts: Any = None,
        timeout: timedelta | None = None,
    ) -> dist.Work:
        """Splits are rows for each rank; where one rank gives them, all must (to say that they are equal is fine)."""
        opts = _options(AllToAllOptions, opts, timeout)
        if not _ours(tensor):
            return self._elsewhere(tensor).alltoall_base(output, tensor, output_splits or [], input_splits or [], opts)
        call = Call("phalanx:all_to_all", opts, [output])
        if output_splits or input_splits:
            splits = input_splits or [tensor.shape[0] // self._size] * self._size
            ticket = self.transport.alltoall_ragged(plain(tensor), splits)
            call.afterwards.append(partial(self._take, ticket, output, output_splits))
        else:
            ticket = self.transport.alltoall(call.output(output), plain(tensor), asynchronous=call.asynchronous)
        call.tickets.append(ticket)
        return self._begun(call)

    def alltoall(
        self, outputs: list[Tensor], inputs: list[Tensor], opts: Any = None, timeout: timedelta | None = None
    ) -> dist.Work:
        opts = _options(AllToAllOptions, opts, timeout)
        if not _ours(inputs[0]):
            return self._elsewhere(inputs[0]).alltoall(outputs, inputs, opts)
        call = Call("phalanx:all_to_all", opts, outputs)
        ticket = self.transport.alltoall_ragged(_joined(inputs), [piece.numel() for piece in inputs])
        call.tickets.append(ticket)
        call.afterwards.append(partial(self._take_list, ticket, outputs))
        return self._begun(call)

    def barrier(self, opts: Any = None, timeout: timedelta | None = None) -> dist.Work:
        opts = _options(BarrierOptions, opts, timeout or opts)
        call = Call("phalanx:barrier", opts, [])
        call.tickets.append(self.transport.barrier(asynchronous=call.asynchronous))
        return self._begun(call)

    # What our transports do not have.

    def send(self, tensors: list[Tensor], destination: int, tag: int) -> dist.Work:
        return self._elsewhere(tensors[0]).send(tensors, destination, tag)

    def recv(self, tensors: list[Tensor], source: int, tag: int) -> dist.Work:
        return self._elsewhere(tensors[0]).recv(tensors, source, tag)

    def recv_anysource(self, tensors: list[Tensor], tag: int) -> dist.Work:
        return self._elsewhere(tensors[0]).recv_anysource(tensors, tag)

    def monitored_barrier(self, timeout: timedelta | None = None, wait_all_ranks: bool = False) -> None:
        self._get_backend(torch.device("cpu")).monitored_barrier(timeout or self._timeout, wait_all_ranks)

    def _elsewhere(self, tensor: Tensor) -> dist.ProcessGroup:
        return cast(dist.ProcessGroup, self._get_backend(tensor.device))  # torch's stubs: a Backend does nothing

    def _get_backend(self, device: torch.device) -> Any:
        """torch's own group of `device`, made when it is first asked for: each rank may do so when it needs it."""
        if device.type not in self._others:
            store = PrefixStore(f"{device.type}/others", self._store)
            if device.type == "cpu":
                options = ProcessGroupGloo._Options()  # type: ignore[attr-defined] # not in torch's stubs
                options._timeout = self._timeout
                options._devices = [ProcessGroupGloo.create_default_device(lazy_init=True)]
                other: Any = ProcessGroupGloo(store, self._rank, self._size, options)
            elif device.type == "cuda" and dist.is_nccl_available():
                options = dist.ProcessGroupNCCL.Options()
                options._timeout = self._timeout
                other = dist.ProcessGroupNCCL(store, self._rank, self._size, options)
            else:
                raise CollectiveError(
                    f"the backend {self._backend} has nothing for tensors on {device}",
                    remedy="move them to the CPU first",
                )
            self._others[device.type] = other
        return self._others[device.type]

    # torch's own coalescing: what was begun between the two is waited for as one.

    def _start_coalescing(self, device: torch.device) -> None:
        self._coalesced = []

    def _end_coalescing(self, device: torch.device) -> dist.Work:
        works, self._coalesced = self._coalesced or [], None
        return All(works)

    # Names that differ between versions of torch.

    _allgather_base = all_gather_single
    allgather_into_tensor_coalesced = all_gather_single_coalesced
    _reduce_scatter_base = reduce_scatter_single
    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced
    alltoall_base = all_to_all_single

    def _begun(self, call: Call) -> dist.Work:
        if not call.asynchronous or not any(call.tickets):
            call.finish()
            return Done(call.result) if call.asynchronous else _DONE
        work = Pending(call, self)
        if self._coalesced is not None:
            self._coalesced.append(work)
        return work

    def _rows(self, call: Call, outputs: list[Tensor], flat: Tensor) -> Tensor:
        """Room for `flat` of every rank, which will be copied to `outputs`."""
        self._check(outputs, [flat.numel()] * self._size, flat.dtype)
        rows = flat.new_empty((self._size, flat.numel()))
        call.afterwards.append(partial(_distribute, outputs, rows))
        return rows

    def _take(self, ticket: int, output: Tensor, splits: list[int] | None) -> None:
        received, rows = self.transport.take(ticket)
        if received.numel() != output.numel() or (splits and rows != splits):
            raise self._refused(
                f"all_to_all: {rows} rows came from the ranks, the output expects {splits or list(output.shape)}",
                "make every rank's input_split_sizes what the others' output_split_sizes say",
            )
        _distribute([output], [received])

    def _take_list(self, ticket: int, outputs: list[Tensor]) -> None:
        received, counts = self.transport.take(ticket)
        expected = [output.numel() for output in outputs]
        if expected != counts or any(output.dtype != received.dtype for output in outputs):
            raise self._refused(
                f"all_to_all: {counts} numbers of {received.dtype} came from the ranks, the outputs expect {expected}",
                "give one output for each rank, of the size and dtype that it sends",
            )
        _distribute(outputs, received.split(counts))

    def _refused(self, what: str, remedy: str) -> Mismatch:
        """What came is not what this rank expects: the others, who have what they expect, are told as well."""
        self.transport.abort(what)
        return Mismatch(what, where=f"rank {self._rank}", remedy=remedy)

    def _check(self, outputs: Sequence[Tensor], counts: Sequence[int], dtype: torch.dtype) -> None:
        """Raises CollectiveError where `outputs` are not one a rank, of that many numbers."""
        expected = [output.numel() for output in outputs]
        if expected != list(counts) or any(output.dtype != dtype for output in outputs):
            raise CollectiveError(
                f"the list of outputs has {expected} numbers of {outputs[0].dtype}, for {list(counts)} of {dtype}",
                where=f"rank {self._rank}",
                remedy="give one output for each rank, of the size and dtype that it sends",
            )


class _Ended:
    """The transport of a group that was destroyed."""

    def unfinished(self) -> list[object]:
        return []

    def done(self, ticket: int) -> bool:
        return True

    def abort(self, reason: str) -> None:
        return None

    def close(self) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        return _ended


def _ended(*_: object, **__: object) -> NoReturn:
    raise CollectiveError("the group was destroyed", remedy="form a new one with torch.distributed.init_process_group")


def _distribute(outputs: Sequence[Tensor], pieces: Sequence[Tensor] | Tensor) -> None:
    for output, piece in zip(outputs, pieces, strict=True):
        output.copy_(piece.view(output.shape))


def _joined(pieces: Sequence[Tensor]) -> Tensor:
    """All their numbers in one row."""
    return torch.cat([plain(piece).view(-1) for piece in pieces])


def _ours(tensor: Tensor) -> bool:
    return tensor.is_cpu and not tensor.is_sparse


def _how(op: Any) -> dict[str, Any] | None:
    """Arguments of a transport's reduction; None for one that it does not have (bitwise)."""
    if hash(op) == _PREMULTIPLIED:
        return {"op": "sum", "prescale": float(op.__getstate__()[1])}  # torch 2.11 has no op.factor
    known = _OPS.get(hash(op))
    return None if known is None else {"op": known}


def _list(tensors: Any) -> Any:
    return [tensors] if isinstance(tensors, Tensor) else tensors


def _options(kind: type, given: Any, timeout: timedelta | None, **fields: Any) -> Any:
    """`given` if it is options already; else options of `fields`: ProcessGroup's methods take either."""
    if isinstance(given, kind):
        return given
    options = kind()
    for name, value in (fields | {"timeout": timeout}).items():
        if value is not None:
            setattr(options, name, value)
    return options
