"""The wheel carries our C files built, for those who have no compiler.

Without one here the wheel is pure Python, and `phalanx.foundation.ccode` compiles where it is used.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BuildOurC(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":  # it is compiled when it is used, and again when it was edited
            return
        source = Path(self.root) / "src"
        sys.path.insert(0, str(source))
        from phalanx.foundation.ccode import CompilerMissing, prebuild

        self._built = tempfile.TemporaryDirectory()
        for file in sorted(source.rglob("*.c")):
            try:
                built = prebuild(file, Path(self._built.name))
            except CompilerMissing as missing:
                self.app.display_warning(f"{missing.message}: the wheel carries no compiled files")
                return
            build_data["force_include"][str(built)] = str(file.relative_to(source).with_name(built.name))
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-linux_{os.uname().machine}"
