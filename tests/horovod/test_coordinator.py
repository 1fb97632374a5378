"""What rank 0 tells the ranks, and what it draws of it, with a timeline that may come late."""

from __future__ import annotations

import json
from pathlib import Path

from phalanx.horovod.coordinator import Coordinator
from phalanx.horovod.negotiation import Fail, Joined, Request, Run
from phalanx.horovod.stall import Stalls
from phalanx.horovod.timeline import Timeline


def request(shape: tuple[int, ...]) -> Request:
    return Request("allreduce", "allreduce.a", op="sum", tensors=(("float32", shape),))


def drawn(timeline: Timeline) -> list[str]:
    timeline.close()
    return [event["name"] for event in json.loads(timeline.path.read_text()) if event["ph"] in "BX"]


def test_a_negotiation_that_began_before_the_timeline_is_drawn_from_there_on(tmp_path: Path) -> None:
    coordinator = Coordinator(2, 1 << 20, Stalls())
    assert coordinator.hear(1, [request((3,)).encode()]) == []
    timeline = coordinator.timeline = Timeline(tmp_path / "timeline.json")
    (response,) = coordinator.hear(0, [request((3,)).encode()])
    assert isinstance(response, Run)
    assert drawn(timeline) == ["NEGOTIATE_ALLREDUCE", "0"]


def test_ranks_that_disagree_end_a_negotiation_and_the_next_of_that_name_is_another(tmp_path: Path) -> None:
    coordinator = Coordinator(2, 1 << 20, Stalls())
    timeline = coordinator.timeline = Timeline(tmp_path / "timeline.json")
    coordinator.hear(0, [request((3,)).encode()])
    (response,) = coordinator.hear(1, [request((4,)).encode()])
    assert isinstance(response, Fail)
    coordinator.hear(1, [request((4,)).encode()])
    assert drawn(timeline) == ["NEGOTIATE_ALLREDUCE", "0", "1", "NEGOTIATE_ALLREDUCE", "1"]


def test_who_has_joined_is_told_what_to_guess_also_when_the_last_joins_in_the_same_message() -> None:
    coordinator = Coordinator(2, 1 << 20, Stalls())
    coordinator.hear(0, [["join"]])
    run, joined = coordinator.hear(1, [request((3,)).encode(), ["join"]])
    assert isinstance(run, Run)
    assert run.requests == (request((3,)),)
    assert joined == Joined(1)
