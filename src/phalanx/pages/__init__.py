"""What does a person see? All HTML. Loads no torch, knows no terminal."""

from phalanx.pages.report import write_report
from phalanx.pages.rows import Rows

__all__ = ["Rows", "write_report"]
