"""The store: one commit follows another, whoever comes too late is refused, garbage goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from phalanx.foundation import StorageError
from phalanx.telemetry import Store, StoreDamaged, StoreFenced
from phalanx.telemetry.manifest import Manifest
from tests.telemetry.spools import files

ROWS = pa.table({"a": [1, 2, 3]})


def test_a_store_that_is_not_there_is_empty_and_stays_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert store.read() == Manifest()
    assert store.epoch == 0
    assert not store.directory.exists()


def test_a_commit_is_read_back_and_only_the_newest_two_manifests_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for version in range(1, 5):
        store.commit(Manifest(version=version, epoch=1, told=version))
        assert store.read().told == version
    assert files(tmp_path) == ["manifest-000000000003.json", "manifest-000000000004.json"]


def test_of_two_commits_on_the_same_manifest_only_one_counts(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    first.commit(Manifest(version=1, told=7))
    with pytest.raises(StoreFenced, match="another collector"):
        second.commit(Manifest(version=1, told=8))
    assert first.read().told == 7
    assert files(tmp_path) == ["manifest-000000000001.json"]


def test_one_that_slept_through_several_commits_is_refused_although_the_name_is_free_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for version in range(1, 6):
        store.commit(Manifest(version=version, told=version))
    with pytest.raises(StoreFenced):
        Store(tmp_path).commit(Manifest(version=2, told=99))
    assert store.read().told == 5
    assert files(tmp_path) == ["manifest-000000000004.json", "manifest-000000000005.json"]


def test_a_lower_epoch_is_refused_and_a_higher_one_takes_over(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.claim(3).version == 1
    assert store.claim(3).version == 1, "its own store needs no new claim"
    with pytest.raises(StoreFenced):
        store.claim(2)
    assert store.claim(4) == Manifest(version=2, epoch=4)
    assert store.epoch == 4


def test_a_new_owner_removes_what_no_manifest_names(tmp_path: Path) -> None:
    store = Store(tmp_path)
    manifest = store.claim(1)
    kept = store.write_part("steps", ROWS, 2)
    garbage = store.write_part("steps", ROWS, 2)
    later = store.write_part("steps", ROWS, 9)
    store.commit(replace(manifest, version=2, tables={"steps": (kept,)}))
    (tmp_path / ".manifest-000000000003.json.ab.tmp").write_text("half")
    (tmp_path / "parts" / "steps" / ".half.tmp").write_text("half")
    store.claim(1)
    assert store.path(garbage.file).exists(), "the owner itself may still be writing"
    store.claim(2)
    assert [name for name in files(tmp_path) if "manifest" not in name] == sorted([kept.file, later.file])


def test_parts_that_the_newest_manifest_needs_are_not_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    kept, other = (store.write_part("steps", ROWS, 1) for _ in range(2))
    store.commit(Manifest(version=1, tables={"steps": (kept,)}))
    store.remove([kept.file, other.file, "parts/steps/nothing"])
    assert store.path(kept.file).exists()
    assert not store.path(other.file).exists()


def test_everything_is_private_to_its_owner(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    part = store.write_part("steps", ROWS, 1)
    store.commit(Manifest(version=1, tables={"steps": (part,)}))
    for path in [store.directory, *store.directory.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_damaged_manifest_is_named_and_the_one_before_it_can_be_used(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(Manifest(version=1, epoch=1, told=1))
    store.commit(Manifest(version=2, epoch=1, told=2))
    newest = tmp_path / "manifest-000000000002.json"
    newest.write_bytes(newest.read_bytes()[:-9])
    with pytest.raises(StoreDamaged) as caught:
        store.read()
    assert caught.value.where == str(newest)
    assert "move that file away" in caught.value.remedy
    with pytest.raises(StoreDamaged):
        store.claim(9)
    newest.unlink()
    assert store.read().told == 1


def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest-000000000002.json").mkdir()
    with pytest.raises(StoreDamaged, match="cannot be read"):
        Store(tmp_path).read()


def test_other_files_in_the_store_are_no_manifests(tmp_path: Path) -> None:
    for name in ("manifest-notes.json", "manifest-.json", "other"):
        (tmp_path / name).write_text("")
    assert Store(tmp_path).read() == Manifest()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        Store(tmp_path / "file" / "store").claim(1)
    with pytest.raises(StorageError, match="file"):
        Store(tmp_path / "file" / "store").write_part("steps", ROWS, 1)
