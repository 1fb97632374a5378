"""What the ranks write, line by line on one terminal: each line whole and with its rank, whatever bytes are in it.

A line ends with a line feed or, for progress bars, a carriage return. The form is that of Horovod's launcher:
`[3]<stdout>:text`.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

from phalanx.foundation import storage_error, writing

_LONGEST = 1 << 18  # bytes of a line without an end; the terminal of a job is no place for more


class Terminal:
    """The launcher's own two streams; may be used by several threads. `lost`: why they cannot be written any more.

    A BrokenPipeError when whoever read them has left.
    """

    def __init__(self, stdout: Any, stderr: Any) -> None:
        self._streams = {"stdout": stdout, "stderr": stderr}
        self._one_at_a_time = threading.Lock()  # both may be the same terminal
        self.lost: OSError | None = None

    def write(self, stream: str, data: bytes) -> None:
        target = self._streams[stream]
        if target is None:  # it was closed by whoever started us
            return
        with self._one_at_a_time:
            try:
                if binary := getattr(target, "buffer", None):
                    target.flush()
                    binary.write(data)
                    binary.flush()
                else:  # a notebook's has only text
                    target.write(data.decode(errors="replace"))
                    target.flush()
            except ValueError:  # it has been closed
                self.lost = BrokenPipeError()
            except OSError as error:
                self.lost = error


class Lines:
    """The `Output` of one rank: to the terminal and, where there is a `directory`, to its stdout and stderr there.

    Raises StorageError when the directory cannot be written.
    """

    def __init__(self, rank: int, terminal: Terminal, *, timestamps: bool = False, directory: Path | None = None):
        self._rank = rank
        self._terminal = terminal
        self._timestamps = timestamps
        self._rest = {"stdout": b"", "stderr": b""}
        self._files: dict[str, BinaryIO] = {}
        if directory is not None:
            with writing(directory):
                directory.mkdir(parents=True, exist_ok=True)
                self._files = {stream: (directory / stream).open("wb", buffering=0) for stream in self._rest}

    def __call__(self, stream: str, data: bytes) -> None:
        lines = (self._rest[stream] + data).splitlines(keepends=True)
        rest = lines.pop() if lines and not lines[-1].endswith((b"\n", b"\r")) else b""
        if rest and (not data or len(rest) > _LONGEST):
            lines.append(rest + b"\n")
            rest = b""
        self._rest[stream] = rest
        if lines:
            begin = self._begin(stream)
            self._write(stream, b"".join(begin + line for line in lines))
        if not data and stream in self._files:
            self._files.pop(stream).close()

    def _begin(self, stream: str) -> bytes:
        now = time.asctime() if self._timestamps else ""
        return f"{now}[{self._rank}]<{stream}>:".encode()

    def _write(self, stream: str, data: bytes) -> None:
        self._terminal.write(stream, data)
        if stream in self._files:
            try:
                self._files[stream].write(data)
            except OSError as error:  # the job goes on, and its terminal still has all
                file = self._files.pop(stream)
                file.close()
                problem = storage_error(error, file.name)
                self._terminal.write("stderr", f"phalanx: {problem.where}: {problem.message}; given up\n".encode())


def rank_directory(directory: Path, rank: int, size: int) -> Path:
    """Where Horovod writes what a rank writes: numbers have the same number of digits, so that they sort."""
    return directory / f"rank.{rank:0{len(str(size - 1))}}"
