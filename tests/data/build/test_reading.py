"""Texts out of files: every packing and format gives the same, in pieces or whole, and damage is named."""

from __future__ import annotations

import gzip
import json
import os
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.data.build.listing import Part, list_sources, pieces
from phalanx.data.build.options import BuildOptions
from phalanx.data.build.reading import cut_point, read_part
from phalanx.data.errors import SourceEmpty, SourceMissing, UnreadableText
from tests.data.build.corpora import document, options_for

TEXTS = [document(random.Random(seed)) for seed in range(40)]


def read(path: Path, options: BuildOptions | None = None, skipped: list[tuple[str, int]] | None = None) -> list[str]:
    return [text for _, text in placed(path, options, skipped)]


def placed(
    path: Path, options: BuildOptions | None = None, skipped: list[tuple[str, int]] | None = None, size: int = 1 << 20
) -> list[tuple[int, str]]:
    chosen = options or options_for(path)
    skip = None if skipped is None else lambda reason, lost: skipped.append((reason, lost))
    files, _ = list_sources(chosen)
    return [
        (place, data.decode())
        for piece in pieces(files, chosen, size)
        for part in piece
        for place, data, _ in read_part(part, chosen, skip)
    ]


class TestFormats:
    @pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
    def test_json_lines_in_any_packing(self, tmp_path: Path, packing: str) -> None:
        lines = "".join(json.dumps({"id": 1, "text": text}) + "\n" for text in TEXTS).encode()
        path = tmp_path / f"corpus.jsonl{packing}"
        path.write_bytes(pack(lines, packing))
        assert read(path) == TEXTS

    @pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
    @pytest.mark.parametrize("cut", ["file", "lines", "blank-lines"])
    def test_text_in_any_packing(self, tmp_path: Path, packing: str, cut: str) -> None:
        path = tmp_path / f"corpus.txt{packing}"
        path.write_bytes(pack("\n".join(TEXTS).encode(), packing))
        expected = {
            "file": ["\n".join(TEXTS)],
            "lines": "\n".join(TEXTS).removesuffix("\n").split("\n"),
            "blank-lines": [text.rstrip() for text in TEXTS],
        }[cut]
        assert read(path, options_for(path, cut=cut)) == expected

    def test_streams_of_several_members_are_read_to_the_end(self, tmp_path: Path) -> None:
        for packing in (".gz", ".zst"):
            path = tmp_path / f"corpus.txt{packing}"
            path.write_bytes(b"".join(pack(text.encode(), packing) for text in TEXTS))
            assert read(path) == ["".join(TEXTS)]

    @pytest.mark.parametrize(
        "kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]
    )
    @pytest.mark.parametrize("codec", ["none", "zstd"])
    def test_parquet(self, tmp_path: Path, kind: pa.DataType, codec: str) -> None:
        path = tmp_path / "corpus.parquet"
        column = pa.array(TEXTS, pa.string()).cast(kind)
        pq.write_table(pa.table({"text": column, "n": list(range(40))}), path, row_group_size=7, compression=codec)
        assert placed(path, size=1) == list(enumerate(TEXTS))  # a row group a piece

    def test_a_mark_of_byte_order_is_no_text_and_lines_may_end_as_on_windows(self, tmp_path: Path) -> None:
        path = tmp_path / "corpus.txt"
        path.write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo\r\nthree")
        assert read(path, options_for(path, cut="lines")) == ["one", "", "two", "three"]
        assert read(path, options_for(path, cut="blank-lines")) == ["one", "two\r\nthree"]


def pack(data: bytes, packing: str) -> bytes:
    if packing == ".gz":
        return gzip.compress(data)
    if packing == ".zst":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(data)
        return sink.getvalue().to_pybytes()
    return data


class TestPieces:
    @settings(max_examples=80, deadline=None)
    @given(
        st.lists(
            st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=12), max_size=20
        ),
        st.integers(1, 40),
        st.booleans(),
    )
    def test_ranges_of_a_file_give_each_line_once(
        self, tmp_path_factory: pytest.TempPathFactory, lines: list[str], size: int, ended: bool
    ) -> None:
        path = tmp_path_factory.mktemp("lines") / "corpus.txt"
        data = "\n".join(["begin", *lines]).encode() + b"\n" * ended
        path.write_bytes(data)
        options = options_for(path, cut="lines")
        whole = placed(path, options)
        assert placed(path, options, size=size) == whole
        starts = [place for place, _ in whole]
        assert [data[start:].split(b"\n")[0].decode() for start in starts] == [text for _, text in whole]

    def test_ranges_of_json_lines_give_each_document_once(self, tmp_path: Path) -> None:
        path = tmp_path / "corpus.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
        for size in (50, 333, 1000, 10**6):
            assert [text for _, text in placed(path, size=size)] == TEXTS

    def test_small_files_are_read_together_and_large_ones_in_ranges(self, tmp_path: Path) -> None:
        for number in range(6):
            (tmp_path / f"{number}.jsonl").write_bytes(b'{"text": "x"}\n' * (1 if number else 100))
        options = options_for(tmp_path)
        files, _ = list_sources(options)
        found = [[(part.source.number, part.start) for part in piece] for piece in pieces(files, options, 700)]
        assert found == [[(0, 0)], [(0, 700)], [(number, 0) for number in range(1, 6)]]


class TestLongTexts:
    @pytest.mark.parametrize("cut", ["file", "lines", "blank-lines"])
    def test_are_cut_and_nothing_is_lost(self, tmp_path: Path, cut: str) -> None:
        options = options_for(tmp_path / "long.txt", memory=128 << 20, cut=cut)
        text = "ж€𝄞x" * (options.longest_document // 5)  # two lines' worth of longest_line would take long
        (tmp_path / "long.txt").write_text(text, encoding="utf-8")
        parts = read(tmp_path / "long.txt", options)
        assert len(parts) > 1
        assert "".join(parts) == text
        assert all(len(part.encode()) <= options.longest_document for part in parts)

    def test_a_line_longer_than_memory_allows_is_cut_in_text_and_refused_in_json(self, tmp_path: Path) -> None:
        options = options_for(tmp_path / "long.txt", memory=128 << 20, cut="lines")
        long = "é" * options.longest_line
        (tmp_path / "long.txt").write_text(f"one\n{long}\nthree\n", encoding="utf-8")
        parts = read(tmp_path / "long.txt", options)
        assert (parts[0], "".join(parts[1:-1]), parts[-1]) == ("one", long, "three")
        path = tmp_path / "long.jsonl"
        path.write_text(f'{{"text": "one"}}\n{{"text": "{long}"}}\n{{"text": "three"}}\n', encoding="utf-8")
        options = options_for(path, memory=128 << 20)
        with pytest.raises(UnreadableText, match=r"long\.jsonl, line 2 \(byte 16\): is a line longer than 2\.00 MiB"):
            read(path, options)
        skipped: list[tuple[str, int]] = []
        assert read(path, options, skipped) == ["one", "three"]
        assert skipped == [("line too long", len(long.encode()) + 13)]

    @given(st.text(min_size=1), st.integers(4, 50))
    def test_a_cut_is_between_characters_and_after_at_most_the_longest(self, text: str, longest: int) -> None:
        try:
            data = text.encode()
        except UnicodeEncodeError:
            return
        if len(data) > longest:
            end = cut_point(data, longest)
            assert 0 < end <= longest
            assert data[:end].decode() + data[end:].decode() == text

    def test_a_cut_is_after_a_line_rather_than_a_word(self) -> None:
        assert cut_point(b"one two\nthree four five", 19) == 19
        assert cut_point(b"one two\nthree four five", 14) == 8
        assert cut_point(b"onetwothreefour", 14) == 14


class TestDamage:
    @pytest.mark.parametrize(
        ("name", "data", "says"),
        [
            ("a.txt", b"good\nba\xffd\n", r"a\.txt, line 2 \(byte 7\): is not UTF-8: byte 0xff"),
            (
                "a.jsonl",
                b'{"text": "x"}\n{"text": "\xff"}\n',
                r"line 2 \(byte 14\): is not UTF-8: byte 0xff at place 10",
            ),
            ("a.jsonl", b'{"text": "x"}\n\n{"text"\n', r"line 3 \(byte 15\): is not JSON \(Expecting ':'"),
            ("a.jsonl", b'["text"]\n', r"line 1 \(byte 0\): is JSON, but no object: list"),
            ("a.jsonl", b'{"Text": "x", "id": 1}\n', r"has no field 'text'; 'Text'\?"),
            ("a.jsonl", b'{"body": "x", "id": 1}\n', r"has no field 'text', but body, id"),
            ("a.jsonl", b'{"text": 3}\n', r"has no text in the field 'text': int"),
            ("a.jsonl", b'{"text": "\\ud800"}\n', r"holds half of a surrogate pair"),
            ("a.jsonl", b'{"text": ' + b"[" * 100_000 + b"\n", r"is JSON nested too deep|is not JSON"),
        ],
    )
    def test_of_a_line_is_named_with_its_place_or_left_out(
        self, tmp_path: Path, name: str, data: bytes, says: str
    ) -> None:
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(UnreadableText, match=says):
            read(path)
        skipped: list[tuple[str, int]] = []
        kept = read(path, skipped=skipped)
        assert len(skipped) == 1
        assert skipped[0][1] > 0
        assert kept == ["x"] * data.count(b'"x"}\n')

    @pytest.mark.parametrize("packing", [".gz", ".zst"])
    @pytest.mark.parametrize("damage", ["cut", "altered", "not packed"])
    def test_of_a_packed_file(self, tmp_path: Path, packing: str, damage: str) -> None:
        texts = [document(random.Random(seed)) for seed in range(600)]
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
        whole = pack(lines, packing)
        middle = len(whole) // 2
        path = tmp_path / f"a.jsonl{packing}"
        path.write_bytes(
            {
                "cut": whole[:middle],
                "altered": whole[:middle]
                + bytes(byte ^ 0x55 for byte in whole[middle : middle + 64])
                + whole[middle + 64 :],
                "not packed": lines,
            }[damage]
        )
        with pytest.raises(UnreadableText, match=rf"a\.jsonl{packing}.*(is cut or damaged|is not JSON|is not UTF-8)"):
            read(path)
        skipped: list[tuple[str, int]] = []
        kept = read(path, skipped=skipped)
        assert skipped
        assert len(kept) < 600
        if damage == "cut":  # what came before is kept, but for the line that was cut
            assert skipped == [("file cut or damaged", middle)]
            assert kept == texts[: len(kept)]

    @pytest.mark.parametrize(
        ("header", "window"),
        [
            (b"\x04\x89", "144 MiB"),  # RFC 8878: exponent 17 and mantissa 1 of a window of 2^27 * 9 / 8
            (b"\xa0\x00\x00\x00\x20", "512 MiB"),  # a single segment of 2^29 bytes
        ],
    )
    def test_a_window_that_memory_does_not_allow(self, tmp_path: Path, header: bytes, window: str) -> None:
        path = tmp_path / "a.txt.zst"
        path.write_bytes(b"\x28\xb5\x2f\xfd" + header + bytes(20))
        with pytest.raises(UnreadableText, match=f"is packed with a window of {window}"):
            read(path)
        path.write_bytes(pack(b"text" * 100_000, ".zst"))
        assert read(path, options_for(path, memory=128 << 20))

    def test_of_parquet(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"text": ["x", None, "y"], "n": [1, 2, 3]}), path)
        with pytest.raises(UnreadableText, match=r"a\.parquet, row 1: has no value in the column 'text'"):
            read(path)
        skipped: list[tuple[str, int]] = []
        assert read(path, skipped=skipped) == ["x", "y"]
        with pytest.raises(UnreadableText, match=r"has no column 'body', but text, n"):
            read(path, options_for(path, text_field="body"))
        with pytest.raises(UnreadableText, match=r"the column 'n' holds int64, not text"):
            read(path, options_for(path, text_field="n"), skipped)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(UnreadableText, match=r"a\.parquet: is cut or damaged: not a whole parquet file"):
            read(path)
        pq.write_table(pa.table({"text": [b"ok", b"\xff"]}), path)
        with pytest.raises(UnreadableText, match=r"row 1: is not UTF-8: byte 0xff"):
            read(path)

    def test_a_file_that_may_not_be_read(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_text("x")
        options = options_for(path)
        files, _ = list_sources(options)
        path.unlink()
        with pytest.raises(SourceMissing, match=r"a\.txt: cannot be read \(No such file"):
            list(read_part(Part(files[0]), options, lambda reason, lost: None))


class TestListing:
    def test_directories_globs_and_files_in_order_each_once(self, tmp_path: Path) -> None:
        for name in ("b/2.txt", "b/1.txt", "a/x.jsonl.gz", "b/deep/0.md", "b/.hidden", "b/picture.png"):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"\x89PNG\0\0" if name.endswith("png") else b"text")
        (tmp_path / "b" / "loop").symlink_to(tmp_path / "b")
        files, left_out = list_sources(options_for(tmp_path / "b", tmp_path / "*/x*", tmp_path / "b" / "1.txt"))
        assert [Path(file.name).relative_to(tmp_path).as_posix() for file in files] == [
            "b/1.txt",
            "b/2.txt",
            "b/deep/0.md",
            "a/x.jsonl.gz",
        ]
        assert [(file.kind, file.codec) for file in files] == [("text", "")] * 3 + [("jsonl", "gz")]
        assert left_out == {"hidden files": (1, 4), "binary files": (1, 6)}

    def test_include_names_files_of_a_directory(self, tmp_path: Path) -> None:
        for name in ("1.txt", "2.md", "deep/3.txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("text")
        files, left_out = list_sources(options_for(tmp_path, include=("*.txt",)))
        assert [Path(file.name).name for file in files] == ["1.txt", "3.txt"]
        assert left_out == {"files that --include does not name": (1, 4)}

    def test_nothing_there_and_nothing_in_it(self, tmp_path: Path) -> None:
        with pytest.raises(SourceMissing, match="there is no such file, and nothing that fits"):
            list_sources(options_for(tmp_path / "nowhere-*.txt"))
        (tmp_path / "empty.txt").touch()
        with pytest.raises(SourceEmpty, match="no text in 1 files"):
            list_sources(options_for(tmp_path))

    def test_a_name_that_is_not_utf8_is_refused(self, tmp_path: Path) -> None:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("text")
        with pytest.raises(SourceMissing, match="has a name that is not UTF-8"):
            list_sources(options_for(tmp_path))
