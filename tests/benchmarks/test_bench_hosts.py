"""Two hosts of two ranks, really made, and what their interfaces sent."""

from __future__ import annotations

import os
import shutil

import pytest

from benchmarks.bench_hosts import compared, launch, run
from benchmarks.harness import MissingData, Options
from benchmarks.namespaces import Hosts
from benchmarks.side_hosts import Sample

MIB = 1 << 20


def test_every_side_is_compared_in_time_and_in_bytes() -> None:
    launches = {
        "hierarchical": [[Sample(MIB, 0.010, 2 * MIB)], [Sample(MIB, 0.012, 2 * MIB)]],
        "gloo": [[Sample(MIB, 0.020, 3 * MIB)], [Sample(MIB, 0.024, 3 * MIB)]],
    }
    time, sent = compared(launches, 0, MIB)
    assert (time.name, time.unit, sent.name, sent.unit) == ("sum of 1 MiB", "ms", "sent for 1 MiB", "MiB")
    assert time.values["hierarchical"] == [10.0, 12.0]
    assert sent.values["gloo"] == [3.0, 3.0]
    assert time.ratio("hierarchical", "gloo") == 0.5


def test_without_root_it_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MissingData, match="needs root"):
        run(Options(), lambda text: None)


@pytest.mark.root
def test_hosts_that_reduce_first_send_each_sum_once() -> None:
    """Two hosts exchange the tensor: 2 MiB for 1. The ring of four ranks crosses twice, with 1.5 times the bytes each."""
    (flat,) = launch("gloo", [(MIB, 3)])
    assert 3.0 <= flat.sent / MIB < 3.1
    if shutil.which("cc"):
        (ours,) = launch("hierarchical", [(MIB, 3)])
        assert 2.0 <= ours.sent / MIB < 2.1


@pytest.mark.root
def test_hosts_end_with_those_who_made_them() -> None:
    with Hosts(2) as hosts:
        holders = [hosts.holder(0), hosts.holder(1)]
        networks = {os.stat(f"/proc/{pid}/ns/net").st_ino for pid in [os.getpid(), *holders]}
        assert len(networks) == 3
    assert not any(os.path.exists(f"/proc/{pid}") for pid in holders)
