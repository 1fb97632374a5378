"""A plain elastic Horovod script: regression of a random network, a commit each few batches, every batch in a log.

    phalanx horovodrun -np 3 --min-np 2 ... python benchmarks/side_elastic.py --log DIRECTORY --until FILE

Each process writes `<pid>.jsonl` in DIRECTORY, line by line: when it began with a group, which samples it takes before
it computes anything with them, when it has finished the step. It trains whole epochs until FILE is there.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import horovod.torch as hvd

WIDTH, HIDDEN = 16, 128


def main(given: argparse.Namespace) -> None:
    hvd.init()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    dataset = samples(given.samples)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=given.lr, momentum=0.9)
    optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
    sampler = hvd.elastic.ElasticSampler(dataset)
    state = hvd.elastic.TorchState(model, optimizer, sampler=sampler, over=False)
    with (given.log / f"{os.getpid()}.jsonl").open("a", buffering=1) as log:

        def write(what: str, **more: object) -> None:
            log.write(json.dumps({"what": what, "at": time.monotonic(), **more}) + "\n")

        @hvd.elastic.run
        def train(state: hvd.elastic.TorchState) -> None:
            group = hvd.broadcast_object(time.monotonic())  # one number for all of it, later than any before
            place = {"rank": hvd.rank(), "size": hvd.size(), "host": os.environ["HOROVOD_HOSTNAME"]}
            write("began", group=group, position=position(), **place)
            while not state.over:
                for number, (indices, inputs, targets) in enumerate(DataLoader(dataset, given.batch, sampler=sampler)):
                    write("took", group=group, position=position(), samples=indices.tolist())
                    optimizer.zero_grad()
                    loss = nn.functional.mse_loss(model(inputs), targets)
                    loss.backward()
                    optimizer.step()
                    write("stepped", group=group, position=position(), loss=loss.item())
                    sampler.record_batch(number, len(indices))
                    if number % given.commit_every == given.commit_every - 1:
                        state.commit()
                sampler.set_epoch(sampler.epoch + 1)
                state.over = hvd.broadcast_object(given.until.exists())
                state.commit()

        def position() -> tuple[int, int]:
            return sampler.epoch, sampler.processed_num

        train(state)


def samples(number: int) -> TensorDataset:
    """Each with its index, to be written down."""
    draw = torch.Generator().manual_seed(2)
    inputs = torch.randn(number, WIDTH, generator=draw)
    hidden, out = torch.randn(WIDTH, WIDTH, generator=draw), torch.randn(WIDTH, 1, generator=draw)
    targets: Tensor = torch.sin(2 * inputs @ hidden / WIDTH**0.5) @ out / WIDTH**0.5
    return TensorDataset(torch.arange(number), inputs, targets)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(WIDTH, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1)
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--until", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--commit-every", type=int, default=10)
    parser.add_argument("--lr", type=float, default=0.01)
    return parser.parse_args()


if __name__ == "__main__":
    main(arguments())
