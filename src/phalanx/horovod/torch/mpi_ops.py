"""The operations of `horovod.torch`, with its names, arguments and defaults.

An operation is known by its name: ranks may issue operations in any order. Each comes in up to four forms: `op` waits
and makes a new tensor through which gradients flow, `op_` waits and changes its tensor, `op_async` and `op_async_`
return a handle for `poll` and `synchronize`; `grouped_op` does many tensors at once. Errors: HorovodInternalError for
what the ranks disagree on and for ranks that are gone; ValueError for what is wrong on this rank.
Beyond Horovod: every dtype that can be computed in, tensors of any layout.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from phalanx.horovod.common.basics import basics as _basics
from phalanx.horovod.common.exceptions import HorovodInternalError as HorovodInternalError
from phalanx.horovod.common.process_sets import ProcessSet as ProcessSet
from phalanx.horovod.common.process_sets import add_process_set as add_process_set
from phalanx.horovod.common.process_sets import global_process_set as global_process_set
from phalanx.horovod.common.process_sets import remove_process_set as remove_process_set
from phalanx.horovod.torch.compression import Compression as Compression
from phalanx.horovod.torch.handles import forget_handles, submit
from phalanx.horovod.torch.handles import poll as poll
from phalanx.horovod.torch.handles import synchronize as synchronize
from phalanx.horovod.torch.moves import (
    allgather as allgather,
)
from phalanx.horovod.torch.moves import (
    allgather_async as allgather_async,
)
from phalanx.horovod.torch.moves import (
    alltoall as alltoall,
)
from phalanx.horovod.torch.moves import (
    alltoall_async as alltoall_async,
)
from phalanx.horovod.torch.moves import (
    broadcast as broadcast,
)
from phalanx.horovod.torch.moves import (
    broadcast_ as broadcast_,
)
from phalanx.horovod.torch.moves import (
    broadcast_async as broadcast_async,
)
from phalanx.horovod.torch.moves import (
    broadcast_async_ as broadcast_async_,
)
from phalanx.horovod.torch.moves import (
    grouped_allgather as grouped_allgather,
)
from phalanx.horovod.torch.moves import (
    grouped_allgather_async as grouped_allgather_async,
)
from phalanx.horovod.torch.moves import (
    grouped_reducescatter as grouped_reducescatter,
)
from phalanx.horovod.torch.moves import (
    grouped_reducescatter_async as grouped_reducescatter_async,
)
from phalanx.horovod.torch.moves import (
    reducescatter as reducescatter,
)
from phalanx.horovod.torch.moves import (
    reducescatter_async as reducescatter_async,
)
from phalanx.horovod.torch.reductions import (
    Adasum as Adasum,
)
from phalanx.horovod.torch.reductions import (
    Average as Average,
)
from phalanx.horovod.torch.reductions import (
    Max as Max,
)
from phalanx.horovod.torch.reductions import (
    Min as Min,
)
from phalanx.horovod.torch.reductions import (
    Product as Product,
)
from phalanx.horovod.torch.reductions import (
    Sum as Sum,
)
from phalanx.horovod.torch.reductions import (
    allreduce as allreduce,
)
from phalanx.horovod.torch.reductions import (
    allreduce_ as allreduce_,
)
from phalanx.horovod.torch.reductions import (
    allreduce_async as allreduce_async,
)
from phalanx.horovod.torch.reductions import (
    allreduce_async_ as allreduce_async_,
)
from phalanx.horovod.torch.reductions import (
    grouped_allreduce as grouped_allreduce,
)
from phalanx.horovod.torch.reductions import (
    grouped_allreduce_ as grouped_allreduce_,
)
from phalanx.horovod.torch.reductions import (
    grouped_allreduce_async as grouped_allreduce_async,
)
from phalanx.horovod.torch.reductions import (
    grouped_allreduce_async_ as grouped_allreduce_async_,
)
from phalanx.horovod.torch.reductions import (
    handle_average_backwards_compatibility as handle_average_backwards_compatibility,
)
from phalanx.horovod.torch.reductions import (
    sparse_allreduce_async as sparse_allreduce_async,
)
from phalanx.horovod.variables import Variables

is_initialized = _basics.is_initialized
start_timeline = _basics.start_timeline
stop_timeline = _basics.stop_timeline
size = _basics.size
local_size = _basics.local_size
cross_size = _basics.cross_size
rank = _basics.rank
local_rank = _basics.local_rank
cross_rank = _basics.cross_rank
is_homogeneous = _basics.is_homogeneous
mpi_threads_supported = _basics.mpi_threads_supported
mpi_enabled = _basics.mpi_enabled
mpi_built = _basics.mpi_built
gloo_enabled = _basics.gloo_enabled
gloo_built = _basics.gloo_built
nccl_built = _basics.nccl_built
ddl_built = _basics.ddl_built
ccl_built = _basics.ccl_built
cuda_built = _basics.cuda_built
rocm_built = _basics.rocm_built


def init(*args: Any, **kwargs: Any) -> None:
    """Form the group of all processes: see `HorovodBasics.init`."""
    if Variables.from_environment(os.environ).elastic:
        # The first optimizer imports it, for 1 to 2 s. As soon as a worker of an elastic job has its place, all others
        # wait until it can sync with them; nobody waits now.
        importlib.import_module("torch._dynamo")
    _basics.init(*args, **kwargs)


def shutdown() -> None:
    """Leave. What has not been synchronized is forgotten."""
    forget_handles()
    _basics.shutdown()


# All together


def join(device: int = -1) -> int:
    """This rank has no more data: it adds zeros to the others' allreduces until all have joined. Who came last.

    Meanwhile the others' operations other than allreduce and barrier raise HorovodInternalError. `device`: ignored.
    """
    return _basics.engine.join()


def barrier(process_set: ProcessSet = global_process_set) -> None:
    """Return when every rank of the set has called it."""
    synchronize(submit("barrier", [], None, process_set))
