import errno
import hashlib
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.foundation import (
    DiskFull,
    ReadOnly,
    StorageError,
    ensure_private_directory,
    sha256_file,
    storage_error,
    write_atomic,
    writing,
)


def test_bytes_and_text_come_back(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"\x00\xff")
    write_atomic(tmp_path / "b", "grüße\n")
    assert (tmp_path / "a").read_bytes() == b"\x00\xff"
    assert (tmp_path / "b").read_text(encoding="utf-8") == "grüße\n"


def test_a_new_file_is_private_unless_asked_otherwise(tmp_path: Path) -> None:
    write_atomic(tmp_path / "private", "x")
    write_atomic(tmp_path / "shared", "x", mode=0o644)
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o644


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "value"
    contents = [bytes([n]) * 300_000 for n in range(8)]
    write_atomic(path, contents[0])
    done = threading.Event()
    seen: list[bytes] = []

    def read() -> None:
        while not done.is_set():
            seen.append(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for content in contents:
        write_atomic(path, content)
    done.set()
    reader.join()
    assert set(seen) <= set(contents)


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from phalanx.foundation import write_atomic

step, path = sys.argv[1], Path(sys.argv[2])
setattr(os, step, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
write_atomic(path, "new")
"""


@pytest.mark.parametrize("step", ["fchmod", "fsync", "replace"])
def test_a_kill_at_any_step_leaves_the_old_content(tmp_path: Path, step: str) -> None:
    path = tmp_path / "value"
    write_atomic(path, "old")
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, step, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


@pytest.fixture
def small_file_limit() -> Iterator[None]:
    """Files of this process end at 64 KiB: the kernel says EFBIG, as a full disk says ENOSPC."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.usefixtures("small_file_limit")
def test_a_write_that_does_not_fit_keeps_the_old_content_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "value"
    write_atomic(path, "old")
    with pytest.raises(DiskFull) as caught:
        write_atomic(path, b"x" * 100_000)
    assert caught.value.where == str(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["value"]


@pytest.mark.root
def test_a_full_disk_is_said_with_path_and_remedy(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    try:
        with pytest.raises(DiskFull) as caught:
            write_atomic(tmp_path / "value", b"x" * 100_000)
        assert "To do:" in str(caught.value)
        assert os.listdir(tmp_path) == []
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with pytest.raises(ReadOnly):
            write_atomic(tmp_path / "value", b"x")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EROFS, ReadOnly),
        (errno.EACCES, ReadOnly),
        (errno.ENOTDIR, StorageError),
    ],
)
def test_each_reason_of_the_kernel_has_its_error(number: int, kind: type[StorageError]) -> None:
    error = storage_error(OSError(number, os.strerror(number)), "/somewhere")
    assert type(error) is kind
    assert error.where == "/somewhere"
    assert error.remedy


def test_only_errors_of_the_system_are_translated(tmp_path: Path) -> None:
    with pytest.raises(KeyError), writing(tmp_path):
        raise KeyError("not about files")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="absent"):
        write_atomic(tmp_path / "absent" / "value", "x")


def test_a_private_directory_may_already_be_there(tmp_path: Path) -> None:
    path = ensure_private_directory(tmp_path / "a")
    assert ensure_private_directory(path) == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_missing_parents_of_a_private_directory_are_private_and_others_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o755)
    (tmp_path / "there").chmod(0o755)
    path = ensure_private_directory(tmp_path / "there" / "a" / "b" / "c")
    modes = [stat.S_IMODE(directory.stat().st_mode) for directory in (path, *path.parents[:3])]
    assert modes == [0o700, 0o700, 0o700, 0o755]


def test_a_private_directory_may_be_named_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ensure_private_directory(Path("a/b"))
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")] == [0o700, 0o700]


@pytest.mark.parametrize("name", ["file", "file/below", "file/below/deeper"])
def test_a_file_where_a_private_directory_should_be_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(StorageError):
        ensure_private_directory(tmp_path / name)
    assert (tmp_path / "file").read_text() == "kept"


@given(st.binary(max_size=4096))
def test_the_checksum_is_that_of_the_bytes(data: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        assert sha256_file(Path(file.name)) == hashlib.sha256(data).hexdigest()
