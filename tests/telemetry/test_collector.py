"""The collector: each row once, each missing row told, spool files gone when they are whole in the store."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from phalanx.events import SpoolRow
from phalanx.telemetry import Round, SpoolUnreadable, Store, StoreFenced, collector
from phalanx.telemetry.manifest import Position
from phalanx.telemetry.reading import Reading
from tests.telemetry.spools import (
    SOURCE,
    ask,
    assert_tidy,
    collect,
    emit_steps,
    emitter,
    files,
    line,
    losses,
    spool,
    steps,
)


def test_nothing_in_the_spool_is_a_claim_and_no_more(tmp_path: Path) -> None:
    assert collect(tmp_path) == Round()
    assert collect(tmp_path) == Round()
    assert files(tmp_path / "store") == ["manifest-000000000001.json"]


def test_rounds_go_on_where_the_last_one_ended(tmp_path: Path) -> None:
    sink = emitter(tmp_path)
    for first in range(0, 30, 10):
        emit_steps(sink, range(first, first + 10))
        assert collect(tmp_path).rows == 10 + (first == 0)
        assert collect(tmp_path) == Round()
    assert steps(tmp_path) == list(range(30))
    sink.close()
    assert_tidy(tmp_path)


def test_a_living_emitters_file_is_kept_and_a_closed_ones_goes(tmp_path: Path) -> None:
    sink = emitter(tmp_path)
    collect(tmp_path)
    assert len(files(tmp_path / "spool")) == 1
    sink.close()
    collect(tmp_path, keep_spool_s=60)
    assert len(files(tmp_path / "spool")) == 1, "whoever reads the spool for its progress bar has time to"
    collect(tmp_path)
    assert files(tmp_path / "spool") == []
    assert ask(tmp_path, "SELECT event FROM sources ORDER BY seq") == [("opened",), ("closed",)]


def test_older_files_of_a_living_emitter_go_as_they_are_collected(tmp_path: Path) -> None:
    sink = emitter(tmp_path, file_bytes=2000, max_bytes=8000)
    for first in range(0, 100, 10):
        emit_steps(sink, range(first, first + 10))
        collect(tmp_path)
        assert len(files(tmp_path / "spool")) <= 2
    sink.close()
    collect(tmp_path)
    assert sink.dropped == 0
    assert steps(tmp_path) == list(range(100))
    assert losses(tmp_path) == []


def test_a_torn_line_at_the_end_of_a_dead_emitters_file_is_one_lost_row(tmp_path: Path) -> None:
    spool(tmp_path, line(1), line(2), line(3)[:-20])
    collect(tmp_path)
    assert steps(tmp_path) == [1, 2]
    assert losses(tmp_path) == [(3, None, 1, "corrupt")]
    assert files(tmp_path / "spool") == []


def test_a_torn_line_of_a_living_emitter_is_waited_for(tmp_path: Path) -> None:
    path = spool(tmp_path, line(1), line(2)[:30])
    with path.open("ab") as writer:
        collector.fcntl.flock(writer, collector.fcntl.LOCK_SH)
        collect(tmp_path)
        collect(tmp_path)
        assert (steps(tmp_path), losses(tmp_path)) == ([1], [])
        writer.write(line(2)[30:])
    collect(tmp_path)
    assert (steps(tmp_path), losses(tmp_path)) == ([1, 2], [])


def test_gaps_and_lines_that_are_no_rows_are_told_once_with_their_numbers(tmp_path: Path) -> None:
    spool(
        tmp_path,
        *(line(1), line(4), b"torn\n", line(6), line(7, table="unheard_of"), line(8, step="a word"), line(9)),
        b"noise\n",
        line(10),
    )
    collect(tmp_path)
    assert steps(tmp_path) == [1, 4, 6, 9, 10]
    assert losses(tmp_path) == [(2, 3, 2, "gap"), (5, 5, 1, "corrupt"), (7, 8, 2, "corrupt")]
    about = "SELECT DISTINCT source, lost_source, job_uid, attempt, rank FROM losses"
    assert ask(tmp_path, about) == [("collector", SOURCE, "uid", 1, 0)]
    assert ask(tmp_path, "SELECT seq FROM losses ORDER BY seq") == [(1,), (2,), (3,)]
    assert_tidy(tmp_path)


def test_a_gap_over_two_rounds_is_told_when_the_next_row_comes(tmp_path: Path) -> None:
    path = spool(tmp_path, line(1), b"torn\n")
    with path.open("ab") as writer:
        collector.fcntl.flock(writer, collector.fcntl.LOCK_SH)
        collect(tmp_path)
        assert losses(tmp_path) == []
        writer.write(line(3))
    collect(tmp_path)
    assert losses(tmp_path) == [(2, 2, 1, "corrupt")]


def test_columns_of_a_newer_version_are_left_out_and_older_rows_have_nulls(tmp_path: Path) -> None:
    spool(tmp_path, line(1, step=1, invented_later=3), line(2, loss=0.5))
    collect(tmp_path)
    assert ask(tmp_path, "SELECT step, loss FROM steps ORDER BY seq") == [(1, None), (None, 0.5)]
    assert losses(tmp_path) == []


def test_a_loss_shown_by_a_damaged_row_is_told_all_the_same(tmp_path: Path) -> None:
    spool(tmp_path, line(1), line(5).replace(b'"rank":0', b'"rank":"?"'), line(6))
    collect(tmp_path)
    assert (steps(tmp_path), losses(tmp_path)) == ([1, 6], [(2, 4, 3, "gap"), (5, 5, 1, "corrupt")])


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_copied_spool_file_doubles_no_row(tmp_path: Path, number: int, when: str) -> None:
    path = spool(tmp_path, line(1), line(2), line(3))
    copy = tmp_path / "copy"
    shutil.copy(path, copy)
    if when == "after":
        collect(tmp_path)
    shutil.copy(copy, path.with_name(f"{SOURCE}.{number:06d}.jsonl"))
    for _ in range(2):
        collect(tmp_path)
    assert (steps(tmp_path), losses(tmp_path)) == ([1, 2, 3], [])
    assert files(tmp_path / "spool") == []


def test_a_copy_made_while_the_emitter_writes_hides_nothing_of_it(tmp_path: Path) -> None:
    sink = emitter(tmp_path)
    emit_steps(sink, range(3))
    (file,) = (tmp_path / "spool").iterdir()
    shutil.copy(file, file.with_name(file.name.replace("000001", "000002")))
    collect(tmp_path)
    emit_steps(sink, range(3, 6))
    collect(tmp_path)
    sink.close()
    collect(tmp_path)
    assert (steps(tmp_path), losses(tmp_path)) == ([0, 1, 2, 3, 4, 5], [])
    assert files(tmp_path / "spool") == []


def test_rows_under_another_sources_name_are_not_taken_for_its_own(tmp_path: Path) -> None:
    spool(tmp_path, line(1), line(2))
    spool(tmp_path, line(1), line(2), source="another")
    collect(tmp_path)
    assert steps(tmp_path) == [1, 2]
    assert ask(tmp_path, "SELECT lost_source, rows, reason FROM losses") == [("another", 2, "corrupt")]


def test_a_file_that_was_cut_behind_the_position_is_read_again_without_doubling(tmp_path: Path) -> None:
    path = spool(tmp_path, line(1), line(2), line(3))
    collect(tmp_path, keep_spool_s=60)
    path.write_bytes(line(1) + line(2))
    collect(tmp_path, keep_spool_s=60)
    with path.open("ab") as writer:
        writer.write(line(4) + line(5))
    collect(tmp_path)
    assert (steps(tmp_path), losses(tmp_path)) == ([1, 2, 3, 4, 5], [])


def test_more_than_a_batch_is_collected_in_one_round_and_several_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "BATCH_BYTES", 3000)
    monkeypatch.setattr(collector, "CHUNK_BYTES", 700)
    for source in ("a", "b", "c"):
        for number in (1, 2):
            rows = [line(seq, source) for seq in range(number * 20 - 19, number * 20 + 1)]
            spool(tmp_path, *rows, source=source, number=number)
    done = collect(tmp_path)
    assert done.rows == 120
    assert done.commits > 5
    assert steps(tmp_path) == list(range(1, 41)) * 3
    assert losses(tmp_path) == []
    assert_tidy(tmp_path)


def test_a_long_run_has_few_files_and_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = emitter(tmp_path)
    for number in range(75):
        emit_steps(sink, [number])
        collect(tmp_path)
    manifest = Store(tmp_path / "store").read()
    assert len(manifest.tables["steps"]) <= 14
    assert steps(tmp_path) == list(range(75))
    assert_tidy(tmp_path)
    assert len(manifest.retired) > 64, "readers of older manifests still find their parts"
    monkeypatch.setattr(collector, "KEEP_PARTS_S", 0)
    emit_steps(sink, [75])
    collect(tmp_path)
    sink.close()
    assert len(files(tmp_path / "store")) < 20
    assert steps(tmp_path) == list(range(76))
    assert_tidy(tmp_path)


def test_a_damaged_part_is_not_merged_and_the_others_are(tmp_path: Path) -> None:
    sink = emitter(tmp_path)
    for number in range(4):
        emit_steps(sink, [number])
        collect(tmp_path)
    store = Store(tmp_path / "store")
    damaged = store.path(store.read().tables["steps"][2].file)
    damaged.write_bytes(damaged.read_bytes()[:-5])
    for number in range(4, 12):
        emit_steps(sink, [number])
        collect(tmp_path)
    sink.close()
    parts = store.read().tables["steps"]
    assert [part.damaged for part in parts].count(True) == 1
    assert len(parts) < 8
    found = ask(tmp_path, "SELECT step FROM steps ORDER BY seq")
    assert found == [(number,) for number in range(12) if number != 2]


def test_parts_of_tables_that_this_version_does_not_know_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    manifest = store.claim(1)
    part = store.write_part("invented_later", collector.parts.build("steps", []), 2)
    store.commit(collector.replace(manifest, version=2, tables={"invented_later": (part,)}))
    spool(tmp_path, line(1))
    collect(tmp_path, epoch=2)
    assert store.read().tables["invented_later"] == (part,)
    assert store.path(part.file).exists()
    assert steps(tmp_path) == [1]


def test_an_unreadable_spool_file_is_named_and_the_others_are_collected(tmp_path: Path) -> None:
    directory = tmp_path / "spool" / "a.000001.jsonl"
    directory.mkdir(parents=True)
    spool(tmp_path, line(1), source=SOURCE)
    with pytest.raises(SpoolUnreadable, match=r"a\.000001\.jsonl"):
        collect(tmp_path)
    assert steps(tmp_path) == [1]


def test_an_empty_file_is_left_to_its_writer_until_it_is_old(tmp_path: Path) -> None:
    path = spool(tmp_path)
    collect(tmp_path)
    assert path.exists()
    old = collector.time.time() - 2 * collector.EMPTY_S
    os.utime(path, (old, old))
    collect(tmp_path)
    assert not path.exists()


def test_a_paused_collector_is_refused_when_it_wakes_and_nothing_is_lost_or_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first stops just before its commit, the second takes over and commits the same rows."""
    sink = emitter(tmp_path)
    emit_steps(sink, range(5))
    real = Store.commit

    def paused(self: Store, manifest: object) -> None:
        monkeypatch.setattr(Store, "commit", real)
        emit_steps(sink, range(5, 8))
        collect(tmp_path, epoch=2)
        real(self, manifest)

    collect(tmp_path, epoch=1)
    emit_steps(sink, range(8, 10))
    monkeypatch.setattr(Store, "commit", paused)
    with pytest.raises(StoreFenced):
        collect(tmp_path, epoch=1)
    with pytest.raises(StoreFenced):
        collect(tmp_path, epoch=1)
    collect(tmp_path, epoch=2)
    sink.close()
    assert sorted(steps(tmp_path)) == list(range(10))
    assert_tidy(tmp_path)


def test_positions_of_sources_that_are_gone_are_kept_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "KEEP_SOURCES", 3)
    for number in range(6):
        spool(tmp_path, line(1, source=f"{number}"), source=f"{number}")
        collect(tmp_path)
    assert set(Store(tmp_path / "store").read().sources) == {"2", "3", "4", "5"}
    assert ask(tmp_path, "SELECT count(*) FROM steps") == [(6,)]


def test_a_number_that_is_none_is_no_row() -> None:
    reading = Reading({"a": Position(seq=3)}, told=0)
    rows = [SpoolRow("steps", {}, {"source": "a", "seq": seq}) for seq in (0, -1, 1 << 63, 4)]
    reading.take("a", rows)
    assert reading.position("a") == Position(seq=4)
    assert len(reading.rows["steps"]) == 1
