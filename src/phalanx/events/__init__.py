"""What is said: declared tables, the emitter that writes their rows, and the spool they lie in."""

from phalanx.events.emitter import Context, Emitter, NullEmitter, Sink
from phalanx.events.spool import SpoolFile, SpoolRow, list_files, read_chunk, read_rows
from phalanx.events.tables import COMMON, TABLES, Column, Table

__all__ = [
    "COMMON",
    "TABLES",
    "Column",
    "Context",
    "Emitter",
    "NullEmitter",
    "Sink",
    "SpoolFile",
    "SpoolRow",
    "Table",
    "list_files",
    "read_chunk",
    "read_rows",
]
