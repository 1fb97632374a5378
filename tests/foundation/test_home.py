import stat
from pathlib import Path

import pytest

from phalanx.foundation import Home, ReadOnly, StorageError


def test_the_option_wins_over_the_environment_and_that_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    monkeypatch.delenv("PHALANX_HOME")
    assert Home.find().root == tmp_path / "person" / ".phalanx"
    monkeypatch.setenv("PHALANX_HOME", str(tmp_path / "environment"))
    assert Home.find().root == tmp_path / "environment"
    assert Home.find(tmp_path / "option").root == tmp_path / "option"


def test_a_home_is_private(tmp_path: Path) -> None:
    home = Home.find(tmp_path / "a" / "b")
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700


def test_a_relative_home_stays_the_same_after_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = Home.find("here")
    monkeypatch.chdir("/")
    assert home.root == tmp_path / "here"


def test_a_run_directory_is_named_by_team_job_and_attempt(home: Home) -> None:
    assert home.run_dir("research", "bert", 2) == home.runs_dir / "research" / "bert" / "attempt-2"


@pytest.mark.parametrize(("namespace", "name"), [("..", "a"), ("a", "../../etc"), ("a", "b/c"), ("", "a")])
def test_a_name_cannot_leave_the_home(home: Home, namespace: str, name: str) -> None:
    with pytest.raises(ValueError, match="not a usable name"):
        home.run_dir(namespace, name, 1)


def test_a_home_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught:
        Home.find(tmp_path / "file")
    assert caught.value.where == str(tmp_path / "file")


def test_a_home_where_nothing_may_be_made_is_refused() -> None:
    with pytest.raises((ReadOnly, StorageError)) as caught:
        Home.find("/proc/phalanx")
    assert caught.value.where == "/proc/phalanx"
    assert caught.value.remedy
