"""The timeline of real ranks, begun and ended by the script."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import phalanx.horovod.torch as hvd
from phalanx.foundation import UsageError
from phalanx.horovod.common.exceptions import HorovodInternalError
from tests.horovod.test_timeline import bars, lanes, of_lane, read


def draw(path: str, mark_cycles: bool) -> None:
    hvd.start_timeline(path, mark_cycles=mark_cycles)
    hvd.barrier()  # rank 0 draws from here on
    hvd.allreduce(torch.ones(10), name="one")
    hvd.grouped_allreduce([torch.ones(2), torch.ones(3)], name="many")
    hvd.allgather(torch.ones(hvd.rank() + 1, 2), name="rows")
    hvd.broadcast(torch.ones(4), root_rank=1, name="moved")
    for handle in [hvd.allreduce_async(torch.ones(5), name=f"small.{number}") for number in range(4)]:
        hvd.synchronize(handle)
    with pytest.raises(HorovodInternalError, match="do not mean the same"):
        hvd.allreduce(torch.ones(hvd.rank() + 1), name="wrong")
    hvd.allreduce(torch.ones(10), name="one")
    hvd.barrier()
    hvd.stop_timeline()


@pytest.mark.parametrize("mark_cycles", [False, True])
@pytest.mark.parametrize("size", [2, 3])
def test_every_name_has_a_lane_that_says_who_was_ready_when_and_what_was_done(crew, size, mark_cycles, tmp_path):
    path = tmp_path / "timeline.json"
    crew(size).tell(draw, str(path), mark_cycles)
    events = read(path)
    kinds = {"allreduce.one": ("ALLREDUCE", 2), "allgather.rows": ("ALLGATHER", 1), "broadcast.moved": ("BROADCAST", 1)}
    kinds |= {f"allreduce.small.{number}": ("ALLREDUCE", 1) for number in range(4)}
    for name, (kind, times) in kinds.items():
        lane = of_lane(events, name)
        said = bars([event for event in lane if event["ph"] != "X"])
        assert said[:2] == [(f"NEGOTIATE_{kind}", 0), (kind, 0)]
        assert said[2][0].endswith(f"_{kind}")
        assert said == said[:3] * times
        ticks = [event["name"] for event in lane if event["ph"] == "X"]
        assert sorted(ticks) == sorted([str(rank) for rank in range(size)] * times)
    assert any("many" in name for name in lanes(events))
    wrong = bars([event for event in of_lane(events, "allreduce.wrong") if event["ph"] != "X"])
    assert wrong == [("NEGOTIATE_ALLREDUCE", 0)]
    assert any(event.get("name") == "CYCLE_START" for event in events) is mark_cycles


def begin_nowhere(path: str) -> bool:
    if hvd.rank() == 0:
        with pytest.raises(UsageError, match="cannot be written"):
            hvd.start_timeline(path)
    else:
        hvd.start_timeline(path)
    hvd.stop_timeline()
    return bool(hvd.allreduce(torch.ones(1), name="after").item() == 1.0)


def test_a_file_that_cannot_be_written_is_an_error_of_rank_0_and_harms_no_operation(crew, tmp_path):
    assert crew(2).tell(begin_nowhere, str(tmp_path / "missing" / "t.json")) == [True, True]
    assert list(Path(tmp_path).iterdir()) == []
