"""The twin of `side_horovod` without Horovod: under DistributedDataParallel over gloo, or with no average at all.

python -m benchmarks.side_horovod_ddp ORDERS      (started on every rank with torchrun's environment)
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import nn

from benchmarks.horovod_models import Orders, build, train


def main(orders: Orders) -> None:
    model, rank = build(orders.model), int(os.environ["RANK"])
    if orders.average:
        dist.init_process_group("gloo")
        # Horovod leaves running statistics to each rank, so here nobody sends them either.
        model = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    train(model, optimizer, orders, rank).write(orders, rank)
    if orders.average:
        dist.destroy_process_group()
    os._exit(0)  # gloo now and then aborts a process that ends in the ordinary way


if __name__ == "__main__":
    main(Orders.given())
