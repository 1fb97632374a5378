"""From a part of a source to its texts, one after the other, in bounded memory: plain, gzip and zstd; JSON; Parquet.

A text comes with its place: the byte of the (unpacked) file where it begins, or its row. What cannot be read is an
UnreadableText that names file and line; with a `skip` to call, it is told instead, and reading goes on behind it.
Knows nothing of filters and tokens.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from phalanx.data.build.listing import Part, SourceFile
from phalanx.data.build.options import BuildOptions
from phalanx.data.errors import SourceMissing, UnreadableText
from phalanx.foundation import nearest, size_in_words

Skip = Callable[[str, int], None]
"""Called with a short reason, such as "not UTF-8", and the bytes lost."""

Text = tuple[int, bytes, bool]
"""Place, UTF-8, and whether it goes on in the next text, because the whole was too long."""

_CHUNK = 1 << 20
_LEAVE_OUT = "mend it, or leave such documents out with --skip-bad"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile, pa.ArrowException)


def read_part(part: Part, options: BuildOptions, skip: Skip | None = None) -> Iterator[Text]:
    """Texts of `part` in order, none longer than `options.longest_document` bytes, all valid UTF-8.

    Raises UnreadableText for the first that is broken when `skip` is None, SourceMissing when the file cannot be read.
    """
    if part.source.kind == "parquet":
        raw = _rows(part, options, skip)
    else:
        raw = _from_stream(part, options, skip)
    for place, data, goes_on in raw:
        while len(data) > options.longest_document:
            end = cut_point(data, options.longest_document)
            yield place, data[:end], True
            place, data = place + (end if part.source.kind == "text" else 0), data[end:]
        yield place, data, goes_on


def cut_point(data: bytes, longest: int) -> int:
    """Where to cut UTF-8 text longer than `longest` bytes: after a line of the second half, else after a space, else
    between two characters."""
    for mark in (b"\n", b" "):
        found = data.rfind(mark, longest // 2, longest)
        if found >= 0:
            return found + 1
    return character_end(data, longest)


def character_end(data: bytes, end: int) -> int:
    """The last place not behind `end` that is not inside a character (of text that is UTF-8)."""
    for place in range(end, max(end - 4, 0), -1):
        if place == len(data) or data[place] & 0xC0 != 0x80:
            return place
    return end


class _Stream:
    """The bytes of a file, unpacked; damage becomes an UnreadableText."""

    def __init__(self, source: SourceFile, start: int = 0) -> None:
        self._source = source
        self._file: IO[bytes]
        try:
            if source.codec == "gz":
                self._file = cast("IO[bytes]", gzip.GzipFile(source.name, "rb"))
            elif source.codec == "zst":
                unpacked = pa.CompressedInputStream(pa.OSFile(source.name), "zstd")
                self._file = io.BufferedReader(unpacked, _CHUNK)
            else:
                self._file = open(source.name, "rb", buffering=_CHUNK)  # noqa: SIM115 - closed by `close`
                self._file.seek(start)
        except OSError as error:
            raise _unreadable(source, error) from error

    def read(self, size: int) -> bytes:
        return self._guarded(self._file.read, size)

    def line(self, longest: int) -> bytes:
        return self._guarded(self._file.readline, longest)

    def close(self) -> None:
        self._file.close()

    def _guarded(self, get: Callable[[int], bytes], size: int) -> bytes:
        try:
            return get(size)
        except _DAMAGE as error:
            raise _damaged(self._source, error) from error
        except OSError as error:
            if self._source.codec:
                raise _damaged(self._source, error) from error
            raise _unreadable(self._source, error) from error


def _damaged(source: SourceFile, error: Exception) -> UnreadableText:
    packed = {"gz": "gzip ", "zst": "zstd ", "": ""}[source.codec] or f"{source.kind} "
    reason = str(error).split("\n")[0].rstrip(".")
    return UnreadableText(
        f"is cut or damaged: not a whole {packed}file ({reason})", where=source.name, remedy=_LEAVE_OUT
    )


def _unreadable(source: SourceFile, error: OSError) -> SourceMissing:
    return SourceMissing(
        f"cannot be read ({error.strerror or error})", where=source.name, remedy="make it readable, or leave it out"
    )


def _from_stream(part: Part, options: BuildOptions, skip: Skip | None) -> Iterator[Text]:
    if part.source.codec == "zst":
        _check_window(part.source, options)
    stream = _Stream(part.source, max(part.start - 1, 0))  # from the byte before: a line may begin at `start` itself
    read = {"jsonl": _json_lines, "text": _texts}[part.source.kind]
    try:
        yield from read(stream, part, options, skip)
    except UnreadableText as error:
        if skip is None or not isinstance(error.__cause__, (*_DAMAGE, OSError)):
            raise
        skip("file cut or damaged", part.source.bytes)  # what came before the damage stands
    finally:
        stream.close()


def _check_window(source: SourceFile, options: BuildOptions) -> None:
    """Refuse a zstd file whose unpacking alone would take too much memory: it holds its window (RFC 8878, 3.1.1.1)."""
    with open(source.name, "rb") as file:
        header = file.read(18)
    if len(header) < 6 or header[:4] != _ZSTD_MAGIC:
        return  # which the library will say
    descriptor = header[4]
    if descriptor & 0x20:  # one segment: as large as its content
        begin = 5 + (0, 1, 2, 4)[descriptor & 3]
        window = int.from_bytes(header[begin : begin + (1, 2, 4, 8)[descriptor >> 6]], "little")
    else:
        base = 1 << (10 + (header[5] >> 3))
        window = base + base // 8 * (header[5] & 7)
    if window > options.working_memory // 3:
        raise UnreadableText(
            f"is packed with a window of {size_in_words(window)}, which unpacking must hold",
            where=source.name,
            remedy="allow more --memory (four times that), or pack it with less: zstd without --long and --ultra",
        )


def _texts(stream: _Stream, part: Part, options: BuildOptions, skip: Skip | None) -> Iterator[Text]:
    longest = options.longest_document
    if options.cut == "file":
        raw = _whole(stream, longest)
    elif options.cut == "lines":
        raw = _lines(stream, part, options.longest_line)
    else:
        raw = _blocks(stream, options.longest_line)
    for place, data, goes_on in raw:
        if place == 0:
            data = data.removeprefix(_BYTE_ORDER_MARK)
        try:
            data.decode()
        except UnicodeDecodeError as error:
            if skip is None:
                raise _broken(
                    part.source, place + error.start, f"is not UTF-8: byte {data[error.start]:#04x}"
                ) from None
            skip("not UTF-8", len(data))
            continue
        yield place, data, goes_on


def _whole(stream: _Stream, longest: int) -> Iterator[Text]:
    place, rest = 0, b""
    while True:
        data = rest + stream.read(longest + 1 - len(rest))
        if len(data) <= longest:
            if data or not place:
                yield place, data, False
            return
        end = cut_point(data, longest)
        yield place, data[:end], True
        place, rest = place + end, data[end:]


def _lines(stream: _Stream, part: Part, longest: int) -> Iterator[Text]:
    """Lines that begin in the part, without their ends; one longer than `longest` comes in several texts."""
    place = _first_line(stream, part, longest)
    rest, ended = b"", True
    while part.stop is None or place < part.stop or not ended:
        data = rest + stream.line(longest - len(rest))
        if not data:
            return
        ended = data.endswith(b"\n") or len(data) < longest
        end = len(data) if ended else character_end(data, len(data) - 1)
        yield place, data[:end].rstrip(b"\r\n"), not ended
        place, rest = place + end, data[end:]


def _first_line(stream: _Stream, part: Part, longest: int) -> int:
    """Skip to the first line that begins at `part.start` or behind it: where that is."""
    if part.start == 0:
        return 0
    place = part.start - 1
    while line := stream.line(longest):
        place += len(line)
        if line.endswith(b"\n"):
            break
    return place


def _blocks(stream: _Stream, longest: int) -> Iterator[Text]:
    """Runs of lines that are not blank; one longer than `longest` comes in several texts."""
    place, begun, block = 0, 0, b""
    while data := stream.line(longest):
        if data.strip():
            if len(block) + len(data) > longest and block:
                yield begun, block, True
                block = b""
            if not block:
                begun = place
            block += data
        elif block:
            yield begun, block.rstrip(b"\r\n"), False
            block = b""
        place += len(data)
    if block:
        yield begun, block.rstrip(b"\r\n"), False


def _json_lines(stream: _Stream, part: Part, options: BuildOptions, skip: Skip | None) -> Iterator[Text]:
    longest = options.longest_line
    place = _first_line(stream, part, longest)
    while part.stop is None or place < part.stop:
        line = stream.line(longest)
        if not line:
            return
        begun = place
        place += len(line)
        problem: tuple[str, str] | None = None
        data = b""
        if len(line) == longest and not line.endswith(b"\n"):
            problem = (
                "line too long",
                f"is a line longer than {size_in_words(longest)}, the most that --memory allows",
            )
            while more := stream.line(longest):
                place += len(more)
                if more.endswith(b"\n"):
                    break
        elif line.strip():
            data, problem = _field_of(line, options.text_field)
        else:
            continue
        if problem is None:
            yield begun, data, False
        elif skip is None:
            raise _broken(part.source, begun, problem[1])
        else:
            skip(problem[0], place - begun)


def _field_of(line: bytes, name: str) -> tuple[bytes, tuple[str, str] | None]:
    """The text of a line of JSON, or (short reason, message)."""
    try:
        value: Any = json.loads(line)
    except UnicodeDecodeError as error:
        return b"", ("not UTF-8", f"is not UTF-8: byte {line[error.start]:#04x} at place {error.start} of the line")
    except json.JSONDecodeError as error:
        return b"", ("not JSON", f"is not JSON ({error.msg} at place {error.pos} of the line)")
    except RecursionError:
        return b"", ("not JSON", "is JSON nested too deep")
    if not isinstance(value, dict):
        return b"", ("not JSON", f"is JSON, but no object: {type(value).__name__}")
    if name not in value:
        near = nearest(name, value)
        held = ", ".join(sorted(value)[:8]) or "nothing"
        return b"", ("no such field", f"has no field {name!r}" + (f"; {near!r}?" if near else f", but {held}"))
    if not isinstance(value[name], str):
        return b"", ("field is no text", f"has no text in the field {name!r}: {type(value[name]).__name__}")
    try:
        return value[name].encode(), None
    except UnicodeEncodeError as error:
        return b"", ("not Unicode", f"holds half of a surrogate pair at character {error.start} of {name!r}")


def _rows(part: Part, options: BuildOptions, skip: Skip | None) -> Iterator[Text]:
    source = part.source
    try:
        with pq.ParquetFile(source.name, pre_buffer=False, buffer_size=_CHUNK) as file:
            yield from _rows_of(file, part, options, skip)
    except (pa.ArrowException, EOFError) as error:
        if skip is None:
            raise _damaged(source, error) from error
        skip("file cut or damaged", source.bytes)
    except OSError as error:
        if error.errno is not None:
            raise _unreadable(source, error) from error
        if skip is None:
            raise _damaged(source, error) from error
        skip("file cut or damaged", source.bytes)


def _rows_of(file: Any, part: Part, options: BuildOptions, skip: Skip | None) -> Iterator[Text]:
    name, source = options.text_field, part.source
    column = _column(file, name, source)
    groups = range(part.start, file.num_row_groups if part.stop is None else part.stop)
    place = sum(file.metadata.row_group(group).num_rows for group in range(part.start))
    for group in groups:
        facts = file.metadata.row_group(group)
        average = max(facts.column(column).total_uncompressed_size // max(facts.num_rows, 1), 1)
        at_once = min(max(options.longest_line // 2 // average, 1), 4096)
        for batch in file.iter_batches(at_once, row_groups=[group], columns=[name], use_threads=False):
            for value in batch.column(0):
                data = value.as_py()
                text = data.encode() if isinstance(data, str) else data
                problem = None
                if text is None:
                    problem = ("field is no text", f"has no value in the column {name!r}")
                else:
                    try:
                        text.decode()
                    except UnicodeDecodeError as error:
                        problem = ("not UTF-8", f"is not UTF-8: byte {text[error.start]:#04x} at place {error.start}")
                if problem is None:
                    yield place, text, False
                elif skip is None:
                    raise UnreadableText(problem[1], where=f"{source.name}, row {place:,}", remedy=_LEAVE_OUT)
                else:
                    skip(problem[0], len(text or b""))
                place += 1


def _column(file: Any, name: str, source: SourceFile) -> int:
    """The number of the column, which must hold text. Raises UnreadableText, also with --skip-bad."""
    schema = file.schema_arrow
    if name not in schema.names:
        held = ", ".join(schema.names[:8])
        raise UnreadableText(
            f"has no column {name!r}, but {held}", where=source.name, remedy="name the column of the text with --field"
        )
    kind = schema.field(name).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not any(check(kind) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary)):
        raise UnreadableText(
            f"the column {name!r} holds {kind}, not text", where=source.name, remedy="name another column with --field"
        )
    for number in range(file.metadata.num_columns):
        if file.metadata.schema.column(number).path == name:
            return number
    raise UnreadableText(f"the column {name!r} is nested", where=source.name, remedy="write it as plain text")


def _broken(source: SourceFile, place: int, what: str) -> UnreadableText:
    return UnreadableText(
        what, where=f"{source.name}, line {_line_number(source, place):,} (byte {place:,})", remedy=_LEAVE_OUT
    )


def _line_number(source: SourceFile, place: int) -> int:
    """Of the byte `place`, from 1: counted only when somebody must be told."""
    stream = _Stream(source)
    number, left = 1, place
    try:
        while left and (data := stream.read(min(left, _CHUNK))):
            number += data.count(b"\n")
            left -= len(data)
    finally:
        stream.close()
    return number
