"""What `import horovod` finds in a script under `phalanx horovodrun`, whose PYTHONPATH has the folder above.

A real Horovod wins: one that was built, anywhere else on the path. Else the name becomes `phalanx.horovod`. Either way
this module is gone from `sys.modules` when the import returns.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path


def _real() -> ModuleSpec | None:
    """Of a Horovod that is installed; a checkout of its sources, without the library, is not."""
    ours = Path(__file__).resolve().parent.parent
    path = [entry for entry in sys.path if Path(entry or os.curdir).resolve() != ours]
    for finder in sys.meta_path:
        spec = finder.find_spec(__name__, path if finder is PathFinder else None)
        if spec is None or spec.origin is None or spec.origin == __file__:
            continue
        if any(Path(spec.origin).parent.glob("*/mpi_lib*.so")):
            return spec
    return None


def _become() -> None:
    real = _real()
    if real is not None and real.loader is not None:
        module = sys.modules[__name__] = importlib.util.module_from_spec(real)
        real.loader.exec_module(module)
        return
    try:
        from phalanx.horovod import alias
    except ImportError as error:
        raise ImportError(
            f"this Python, {sys.executable}, has neither Horovod nor Phalanx\n"
            "  To do: run the script with the Python of `phalanx horovodrun`, or install Phalanx into this one"
        ) from error
    alias.install()


_become()
