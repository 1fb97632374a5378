"""A plain Horovod script that trains a net of `horovod_models`. Which Horovod that is, it does not know.

horovodrun -np 2 python -m benchmarks.side_horovod ORDERS
"""

from __future__ import annotations

import torch

import horovod.torch as hvd
from benchmarks.horovod_models import Orders, build, train


def main(orders: Orders) -> None:
    hvd.init()
    model = build(orders.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
    train(model, optimizer, orders, hvd.rank()).write(orders, hvd.rank())


if __name__ == "__main__":
    main(Orders.given())
