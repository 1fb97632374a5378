"""The elastic benchmark: samples that are lost are noticed, the picture has every moment, and one small run goes well."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import bench_elastic
from benchmarks.bench_elastic import NAME, percentile, report
from benchmarks.harness import Options
from benchmarks.picture import svg
from benchmarks.samples import Logs, Unaccounted, account
from phalanx.pages.chart import Line, Mark, chart


class Worker:
    """What a worker writes: a line for each thing that it does."""

    def __init__(self, directory: Path, pid: int) -> None:
        self._log = directory / f"{pid}.jsonl"

    def began(self, group: float, rank: int, size: int, position: tuple[int, int]) -> None:
        self._write("began", group=group, rank=rank, size=size, position=position, host="127.0.0.2")

    def took(self, group: float, position: tuple[int, int], *samples: int, steps: bool = True) -> None:
        self._write("took", group=group, position=position, samples=samples)
        if steps:
            self._write("stepped", group=group, position=position, loss=0.5)

    def _write(self, what: str, **more: object) -> None:
        with self._log.open("a") as log:
            log.write(json.dumps({"what": what, "at": 1.0, **more}) + "\n")


@pytest.fixture
def workers(tmp_path: Path) -> tuple[Worker, Worker]:
    """Two that process five samples: 0 to 3 are committed, then the second is killed within a step, and 4 is left."""
    first, second = Worker(tmp_path, 1), Worker(tmp_path, 2)
    for rank, worker in enumerate((first, second)):
        worker.began(1.0, rank, 2, (0, 0))
        worker.took(1.0, (0, 0), rank, rank + 2)
    first.took(1.0, (0, 4), 4, steps=False)
    first.began(2.0, 0, 1, (0, 4))
    return first, second


def _logs(directory: Path) -> Logs:
    logs = Logs(directory)
    logs.read()
    return logs


def test_what_a_restore_takes_back_is_counted_once_more(tmp_path: Path, workers: tuple[Worker, Worker]) -> None:
    workers[0].took(2.0, (0, 4), 4)
    found = account(_logs(tmp_path), 5)
    assert (found.epochs, found.processed, found.undone, found.dealt_twice) == (1, 6, {1.0: 1, 2.0: 0}, 0)


def test_a_sample_that_only_a_lost_step_had_is_missed(tmp_path: Path, workers: tuple[Worker, Worker]) -> None:
    workers[0].took(2.0, (0, 4), 3)
    with pytest.raises(Unaccounted, match="1 of 5 samples were not processed: 4"):
        account(_logs(tmp_path), 5)


def test_samples_that_are_repeated_for_no_reason_are_refused(tmp_path: Path, workers: tuple[Worker, Worker]) -> None:
    workers[0].took(2.0, (0, 4), 4, 0)
    with pytest.raises(Unaccounted, match="7 samples were processed, 6 of the epochs and repeated"):
        account(_logs(tmp_path), 5)


def test_a_batch_that_not_all_ranks_took_is_refused(tmp_path: Path, workers: tuple[Worker, Worker]) -> None:
    workers[0].took(2.0, (0, 4), 4)
    workers[1].took(2.0, (0, 4), 4)
    with pytest.raises(Unaccounted, match="2 of 1 workers"):
        account(_logs(tmp_path), 5)


def test_a_group_that_begins_before_the_last_one_is_refused(tmp_path: Path, workers: tuple[Worker, Worker]) -> None:
    workers[0].began(3.0, 0, 1, (0, 2))
    with pytest.raises(Unaccounted, match="before the one that it follows"):
        account(_logs(tmp_path), 5)


def test_what_an_epochs_last_group_deals_twice_is_expected(tmp_path: Path) -> None:
    for rank in (0, 1):
        worker = Worker(tmp_path, rank + 1)
        worker.began(1.0, rank, 2, (0, 0))
        worker.took(1.0, (0, 0), *((0, 2) if rank == 0 else (1, 0)))
    found = account(_logs(tmp_path), 3)
    assert (found.processed, found.dealt_twice, found.repeated) == (4, 1, 1)


def test_a_line_that_is_not_whole_yet_is_read_later(tmp_path: Path, workers: tuple[Worker, Worker]) -> None:
    log = tmp_path / "1.jsonl"
    whole = log.read_text()
    logs = Logs(tmp_path)
    log.write_text(whole[:-10])
    logs.read()
    assert logs.groups == [1.0]
    log.write_text(whole)
    logs.read()
    assert logs.groups == [1.0, 2.0]
    assert [begin.worker for begin in logs.members(1.0)] == [1, 2]


def test_of_twenty_times_the_nineteenth_is_the_95th_percentile() -> None:
    assert percentile([float(number) for number in range(20, 0, -1)], 0.95) == 19.0
    assert percentile([3.0], 0.95) == 3.0


def test_the_picture_has_the_line_and_a_label_at_each_mark() -> None:
    drawn = chart("loss", "nats", [Line("a", ((0.0, 2.0), (10.0, 1.0)), 1)], marks=[Mark(5.0, "rank 1 <killed>")])
    assert drawn is not None
    root = ET.fromstring(svg(drawn))
    words = {text.text: text.get("x") for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert words["rank 1 <killed>"] == "500.0"  # between 56 and 944
    assert "M0 -2L10 -1" in [path.get("d") for path in root.iter("{http://www.w3.org/2000/svg}path")]


@pytest.mark.slow
def test_a_quick_run_accounts_for_every_sample_and_draws_its_picture(tmp_path: Path) -> None:
    (comparison,) = bench_elastic.run(Options(quick=True, out=tmp_path), lambda text: None)
    assert len(comparison.values[NAME]) == 1
    words = (tmp_path / "elastic.svg").read_text()
    assert ("rank 0 killed" in words, "one joins" in words) == (True, True)
    assert "| rank 0 | 1 | " in report([comparison])
