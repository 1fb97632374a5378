"""What ranks write, on one terminal: whole lines with their rank, in any pieces, of any bytes."""

from __future__ import annotations

import io
import os
import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.foundation import StorageError
from phalanx.horovod.runner.output import Lines, Terminal, rank_directory


class Streams:
    def __init__(self) -> None:
        self.out, self.err = io.BytesIO(), io.BytesIO()
        self.terminal = Terminal(io.TextIOWrapper(self.out), io.TextIOWrapper(self.err))


def test_each_line_begins_with_rank_and_stream():
    streams = Streams()
    lines = Lines(3, streams.terminal)
    lines("stdout", b"one\ntwo\n")
    lines("stderr", b"three\n")
    assert streams.out.getvalue() == b"[3]<stdout>:one\n[3]<stdout>:two\n"
    assert streams.err.getvalue() == b"[3]<stderr>:three\n"


def test_a_line_waits_for_its_end():
    streams = Streams()
    lines = Lines(0, streams.terminal)
    lines("stdout", b"half")
    assert streams.out.getvalue() == b""
    lines("stdout", b" whole\n")
    assert streams.out.getvalue() == b"[0]<stdout>:half whole\n"


def test_the_last_line_comes_without_an_end_of_its_own():
    streams = Streams()
    lines = Lines(0, streams.terminal)
    lines("stdout", b"last words")
    lines("stdout", b"")
    assert streams.out.getvalue() == b"[0]<stdout>:last words\n"


def test_a_progress_bar_is_shown_at_each_return():
    streams = Streams()
    lines = Lines(0, streams.terminal)
    lines("stderr", b"10%\r20%\r")
    assert streams.err.getvalue() == b"[0]<stderr>:10%\r[0]<stderr>:20%\r"


def test_a_line_that_never_ends_does_not_fill_the_memory():
    streams = Streams()
    lines = Lines(0, streams.terminal)
    for _ in range(5):
        lines("stdout", b"x" * 100_000)
    assert streams.out.getvalue() == b"[0]<stdout>:" + b"x" * 300_000 + b"\n"


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_no_byte_is_lost_or_changed_in_any_pieces(pieces):
    streams = Streams()
    lines = Lines(0, streams.terminal)
    for piece in filter(None, pieces):
        lines("stdout", piece)
    lines("stdout", b"")
    whole = b"".join(pieces)
    shown = re.sub(rb"\[0\]<stdout>:", b"", streams.out.getvalue())
    assert shown == whole + (b"" if not whole or whole.endswith((b"\n", b"\r")) else b"\n")


def test_lines_of_several_ranks_do_not_mix():
    reading, writing = os.pipe()
    with open(writing, "w") as stream:
        terminal = Terminal(stream, stream)
        text = b"abcdefghij" * 400 + b"\n"

        def write(rank):
            lines = Lines(rank, terminal)
            for _ in range(20):
                lines("stdout", text)
                lines("stderr", text)

        threads = [threading.Thread(target=write, args=(rank,)) for rank in range(4)]
        collected = []
        reader = threading.Thread(target=lambda: collected.append(os.fdopen(reading, "rb").read()))
        for thread in (reader, *threads):
            thread.start()
        for thread in threads:
            thread.join()
    reader.join()
    found = collected[0].splitlines(keepends=True)
    assert len(found) == 4 * 20 * 2
    assert all(re.fullmatch(rb"\[\d\]<std(out|err)>:" + re.escape(text), line) for line in found)


def test_a_line_may_begin_with_the_time():
    streams = Streams()
    Lines(0, streams.terminal, timestamps=True)("stdout", b"text\n")
    assert re.fullmatch(rb"\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\[0\]<stdout>:text\n", streams.out.getvalue())


def test_a_directory_gets_the_lines_as_well(tmp_path):
    streams = Streams()
    lines = Lines(2, streams.terminal, directory=tmp_path / "out" / "rank.2")
    lines("stdout", b"text\n")
    lines("stdout", b"")
    lines("stderr", b"")
    assert (tmp_path / "out" / "rank.2" / "stdout").read_bytes() == streams.out.getvalue() == b"[2]<stdout>:text\n"
    assert (tmp_path / "out" / "rank.2" / "stderr").read_bytes() == b""


def test_a_directory_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        Lines(0, Streams().terminal, directory=tmp_path / "file" / "rank.0")


def test_directories_of_ranks_sort_as_ranks_do(tmp_path):
    assert [rank_directory(tmp_path, rank, 11).name for rank in (0, 10)] == ["rank.00", "rank.10"]
    assert rank_directory(tmp_path, 0, 10).name == "rank.0"
    assert rank_directory(tmp_path, 0, 1).name == "rank.0"


def test_a_reader_that_left_is_noticed():
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    terminal = Terminal(stream, stream)
    Lines(0, terminal)("stdout", b"text\n")
    assert isinstance(terminal.lost, BrokenPipeError)
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_a_stream_of_a_notebook_takes_text():
    class Notebook:
        def __init__(self):
            self.text = ""

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    notebook = Notebook()
    Lines(0, Terminal(notebook, notebook))("stdout", b"caf\xc3\xa9 \xff\n")
    assert notebook.text == "[0]<stdout>:café �\n"


def test_a_file_that_cannot_be_written_any_more_is_given_up_and_said(tmp_path):
    (tmp_path / "rank.0").mkdir()
    (tmp_path / "rank.0" / "stdout").symlink_to("/dev/full")
    streams = Streams()
    lines = Lines(0, streams.terminal, directory=tmp_path / "rank.0")
    for piece in (b"one\n", b"two\n", b""):
        lines("stdout", piece)
    assert streams.out.getvalue() == b"[0]<stdout>:one\n[0]<stdout>:two\n"
    assert streams.err.getvalue().decode() == f"phalanx: {tmp_path}/rank.0/stdout: the disk is full; given up\n"


def test_a_stream_that_was_closed_takes_everything():
    terminal = Terminal(None, None)
    Lines(0, terminal)("stdout", b"text\n")
    assert terminal.lost is None
