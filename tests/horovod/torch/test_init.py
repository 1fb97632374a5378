"""What `hvd.init` does before it asks for a place: in a group, others wait for whatever a process does later."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# The modules that a first optimizer brings, after init.
SCRIPT = """
import sys
import torch
import phalanx.horovod.torch as hvd
hvd.init()
before = set(sys.modules)
torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
print("torch._dynamo" in set(sys.modules) - before)
"""


@pytest.mark.parametrize(("elastic", "imports_it_late"), [("1", "False"), ("0", "True")])
def test_a_worker_of_an_elastic_job_has_all_that_an_optimizer_needs_before_others_wait_for_it(
    elastic: str, imports_it_late: str
) -> None:
    env = os.environ | {"HOROVOD_ELASTIC": elastic}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr, done.returncode) == (imports_it_late, "", 0)
