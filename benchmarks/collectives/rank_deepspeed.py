"""A rank that sums through DeepSpeed's shared memory, in a Python that has DeepSpeed. Calls the operation directly.

`deepspeed.comm.inference_all_reduce` ends in the same call; it is left out so that its Python costs the peer nothing.
"""

from __future__ import annotations

from benchmarks.collectives import protocol

import torch  # isort: skip - pinned before
from deepspeed.ops.op_builder.cpu.comm import ShareMemCommBuilder  # type: ignore[import-not-found]

if __name__ == "__main__":
    # Built before the ranks start. It trusts LOCAL_SIZE; without it the operation would do nothing, which check() sees.
    ShareMemCommBuilder().load(verbose=False).initialize(protocol.RANKS, protocol.RANK)
    protocol.run(torch.ops.deepspeed.inference_all_reduce_)
