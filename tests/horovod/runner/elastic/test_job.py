"""A whole elastic job: real processes, one killed, one added by the discovery script, every sample accounted for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import left_behind, wait_until

SCRIPT = """
import json, os, sys, time
import torch
import horovod.torch as hvd
hvd.init()
data = torch.arange(120.0)
model = torch.nn.Linear(2, 1)
optimizer = hvd.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.01), model.named_parameters())
sampler = hvd.elastic.ElasticSampler(data)
state = hvd.elastic.TorchState(model, optimizer, sampler=sampler, epoch=0, seen=[])
log = open(f"{sys.argv[1]}/log-{os.getpid()}", "a", buffering=1)
@hvd.elastic.run
def train(state):
    while not (hvd.size() == 3 and os.path.exists(sys.argv[1] + "/enough")):
        for number, batch in enumerate(torch.utils.data.DataLoader(data, batch_size=2, sampler=sampler)):
            optimizer.zero_grad()
            model(batch[:, None].expand(-1, 2)).mean().backward()
            optimizer.step()
            state.seen = state.seen + sum(hvd.allgather_object(batch.tolist()), [])
            sampler.record_batch(number, 2)
            log.write(json.dumps({"size": hvd.size(), "rank": hvd.rank(), "host": os.uname().nodename}) + "\\n")
            time.sleep(0.02)
            state.commit()
        assert sorted(set(state.seen)) == data.tolist() and len(state.seen) <= 126, sorted(state.seen)
        state.epoch, state.seen = state.epoch + 1, []
        sampler.set_epoch(state.epoch)
        state.commit()
train(state)
print("finished", state.epoch > 0)
"""


def last_steps(folder: Path) -> dict[int, dict[str, Any]]:
    """What each process, by pid, said at its last step: size, rank and host."""
    found = {}
    for file in folder.glob("log-*"):
        lines = file.read_text().rpartition("\n")[0].splitlines()
        if lines:
            found[int(file.name.removeprefix("log-"))] = json.loads(lines[-1])
    return found


def sizes(folder: Path) -> list[int]:
    """Of the group at the last step of each process."""
    return [step["size"] for step in last_steps(folder).values()]


@pytest.mark.slow
def test_one_is_killed_and_one_is_added_and_every_sample_is_seen_once(tmp_path):
    hosts, script = tmp_path / "hosts", tmp_path / "train.py"
    hosts.write_text("localhost:3\n")
    script.write_text(SCRIPT)
    options = ["-np", "3", "--min-np", "2", "--host-discovery-script", f"cat {hosts}"]
    command = [sys.executable, "-m", "phalanx", "horovodrun", *options, sys.executable, str(script), str(tmp_path)]
    output = tmp_path / "output"
    with output.open("wb") as file:
        launcher = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
    try:
        wait_until(lambda: sizes(tmp_path) == [3, 3, 3], "three did not train", 90)
        hosts.write_text("localhost:2\n127.0.0.1:1\n")  # the third place is on another host from now on
        first = sorted(last_steps(tmp_path))
        os.kill(first[0], signal.SIGKILL)
        wait_until(lambda: len(last_steps(tmp_path)) >= 4, "nobody took the place of the one that was killed", 90)
        (tmp_path / "enough").touch()
        assert launcher.wait(90) == 0, output.read_text()
    finally:
        launcher.terminate()
        launcher.wait()
    text = output.read_text()
    assert "was killed by SIGKILL" in text
    assert text.count("finished True") == 3
    assert not left_behind(tmp_path)
