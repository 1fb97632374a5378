import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from phalanx.data import DataError, NotText, SourceEmpty, SourceMissing, check_source, open_source
from phalanx.job import DataSpec


def texts(source: str | Path) -> dict[str, str]:
    return {document.name: document.text for document in open_source(DataSpec(source=str(source))).documents()}


def fill(root: Path, count: int = 25) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (root / f"{number:02}.txt").write_text(f"text number {number}\n" * 5)
    return root


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's right to read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_directory_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    root = fill(tmp_path / "d")
    (root / "sub").mkdir()
    (root / "sub" / "a.txt").write_text("below")
    names = list(texts(root))
    assert names == sorted(names)
    assert "sub/a.txt" in names
    assert len(names) == 26


def test_a_single_file_is_cut_into_sections_that_together_are_the_file(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("".join(f"line {number} of the only file\n" for number in range(20_000)))
    found = texts(path)
    assert "".join(found.values()) == path.read_text()
    assert 50 <= len(found) <= 110
    assert all(text.endswith("\n") for text in found.values())


def test_a_file_without_line_ends_is_cut_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("é" * 100_000)
    found = texts(path)
    assert "".join(found.values()) == path.read_text()
    assert len(found) > 10


def test_line_ends_and_marks_are_kept_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "dos.txt"
    path.write_bytes("\ufeffone\r\ntwo\rthree\n".encode())
    assert "".join(texts(path).values()).encode() == path.read_bytes()


def test_exact_duplicates_are_read_once_and_counted(tmp_path: Path) -> None:
    root = fill(tmp_path / "d")
    (root / "copy.txt").write_text((root / "03.txt").read_text())
    source = open_source(DataSpec(source=str(root)))
    assert len(list(source.documents())) == 25
    assert source.tally.excluded["duplicate"] == (1, (root / "copy.txt").stat().st_size)


def test_what_is_not_text_in_a_directory_is_left_out_and_counted(tmp_path: Path) -> None:
    root = fill(tmp_path / "d")
    (root / "image.png").write_bytes(b"\x89PNG\0\0\0")
    (root / "latin.txt").write_bytes("café".encode("latin-1"))
    (root / "nothing.txt").write_bytes(b"")
    (root / "blank.txt").write_text("   \n\n ")
    (root / ".hidden").write_text("secret")
    os.mkfifo(root / "pipe")
    source = open_source(DataSpec(source=str(root)))
    assert len(list(source.documents())) == 25
    assert {reason: files for reason, (files, _) in source.tally.excluded.items()} == {
        "binary": 1,
        "not UTF-8 text": 1,
        "empty": 2,
        "hidden": 1,
        "not a file": 1,
    }


def test_loops_of_links_end_and_each_directory_is_read_once(tmp_path: Path) -> None:
    root = fill(tmp_path / "d")
    (root / "again").symlink_to(root)
    (root / "self.txt").symlink_to(root / "self.txt")
    (root / "broken.txt").symlink_to(root / "nowhere")
    (root / "deep").mkdir()
    (root / "deep" / "up").symlink_to("..")
    assert len(texts(root)) == 25


def test_a_linked_directory_outside_is_read(tmp_path: Path) -> None:
    other = fill(tmp_path / "other", 3)
    root = fill(tmp_path / "d")
    (root / "00.txt").unlink()
    (root / "link").symlink_to(other)
    assert "link/00.txt" in texts(root)


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"", SourceEmpty, "empty"),
        (b"  \n\t\n", SourceEmpty, "no text"),
        (b"\x7fELF\0\0\0\1", NotText, "binary"),
        (b"good text, then " + b"\xff\xfe", NotText, "offset 16"),
    ],
)
def test_a_file_that_is_no_text_is_refused_by_name(
    tmp_path: Path, content: bytes, error: type[DataError], words: str
) -> None:
    path = tmp_path / "given.txt"
    path.write_bytes(content)
    with pytest.raises(error, match=words) as caught:
        texts(path)
    assert "given.txt" in caught.value.where
    assert caught.value.remedy


def test_binary_after_the_first_look_is_still_found(tmp_path: Path) -> None:
    path = tmp_path / "late.txt"
    path.write_bytes(b"text\n" * 5000 + b"\xc3\x28")
    with pytest.raises(NotText, match="offset 25,000"):
        texts(path)


def test_an_empty_directory_and_one_without_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceEmpty, match="empty"):
        texts(tmp_path / "empty")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"\0\1\2")
    with pytest.raises(SourceEmpty, match="1 binary"):
        texts(tmp_path / "pictures")
    (tmp_path / "latin").mkdir()
    (tmp_path / "latin" / "a.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(SourceEmpty, match="1 not UTF-8 text"):
        texts(tmp_path / "latin")


def test_a_missing_source_is_named_with_the_nearest_built_in_one(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="No such file") as caught:
        texts(tmp_path / "nowhere")
    assert "nowhere" in caught.value.where
    with pytest.raises(SourceMissing) as caught:
        texts("stdlib-sources")
    assert "did you mean stdlib-source?" in caught.value.remedy
    with pytest.raises(SourceMissing) as caught:
        texts(tmp_path / "stdlib-sources")  # `phalanx run` makes paths absolute
    assert "did you mean stdlib-source?" in caught.value.remedy


def test_a_path_with_a_nul_is_refused() -> None:
    with pytest.raises(SourceMissing, match="not a path"):
        texts("a\0b")


def test_a_device_or_pipe_is_refused_without_reading_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(SourceMissing, match="neither a file nor a directory"):
            texts(path)


def test_unreadable_files_and_directories_are_named() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        fill(root / "d")
        locked = root / "d" / "07.txt"
        locked.chmod(0)
        (root / "closed").mkdir(mode=0)
        with as_nobody():
            for path in (locked, root / "d", root / "closed"):
                with pytest.raises(SourceMissing, match="Permission denied") as caught:
                    texts(path)
                assert str(locked) in caught.value.where or "closed" in caught.value.where
            assert check_source(DataSpec(source=str(locked))).problems[0].rule == "data.missing"
        (root / "closed").chmod(0o700)


def test_checking_a_good_source_counts_files_and_bytes(tmp_path: Path) -> None:
    root = fill(tmp_path / "d")
    (root / "a.bin").write_bytes(b"\0")
    report = check_source(DataSpec(source=str(root)))
    assert report.files == 25
    assert report.bytes == sum(path.stat().st_size for path in root.glob("*.txt"))
    assert [(finding.rule, finding.severity) for finding in report.problems] == [("data.left-out.binary", "info")]


@pytest.mark.parametrize(("content", "rule"), [(None, "data.missing"), (b"", "data.empty"), (b"\0\0", "data.not-text")])
def test_checking_a_bad_source_is_a_finding_with_a_remedy(tmp_path: Path, content: bytes | None, rule: str) -> None:
    path = tmp_path / "given"
    if content is not None:
        path.write_bytes(content)
    report = check_source(DataSpec(source=str(path)))
    (finding,) = report.problems
    assert (finding.rule, finding.severity, finding.source) == (rule, "high", "data")
    assert finding.remedy
    assert finding.evidence


def test_the_fingerprint_follows_names_and_contents(tmp_path: Path) -> None:
    root = fill(tmp_path / "d")
    first = open_source(DataSpec(source=str(root))).fingerprint()
    assert open_source(DataSpec(source=str(root))).fingerprint() == first
    (root / "00.txt").rename(root / "renamed.txt")
    second = open_source(DataSpec(source=str(root))).fingerprint()
    (root / "renamed.txt").write_text("other")
    third = open_source(DataSpec(source=str(root))).fingerprint()
    assert len({first, second, third}) == 3
