"""One module, two names: `import horovod.torch` gives `phalanx.horovod.torch` itself, not a second copy of it.

A path entry would load each file again: exceptions that are raised under one name would not be caught under the other,
and there would be two engines. Whether a real Horovod is installed, which then comes first, is asked by
`path/horovod/__init__.py`, before this is loaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_NAME = "horovod"
_OURS = "phalanx.horovod"
_NOT_OURS = frozenset({"_keras", "keras", "mxnet", "ray", "spark", "tensorflow"})


class NotProvided(ModuleNotFoundError):
    """A part of Horovod that Phalanx does not have."""


def install() -> ModuleType:
    """Make `horovod` and all below it mean ours in this process. Idempotent. Returns the module."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    module = sys.modules[_NAME] = importlib.import_module(_OURS)
    return module


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        above, _, rest = fullname.partition(".")
        if above != _NAME or not rest:
            return None
        if rest.partition(".")[0] in _NOT_OURS:
            raise NotProvided(
                f"{fullname} is not provided: Phalanx has Horovod's interface for PyTorch, horovod.torch\n"
                "  To do: port the script to horovod.torch, or install Horovod itself where this script runs; "
                "`phalanx horovodrun` then uses it",
                name=fullname,
            )
        ours = importlib.util.find_spec(f"{_OURS}.{rest}")
        if ours is None:
            return None
        package = ours.submodule_search_locations is not None
        return ModuleSpec(fullname, _SameModule(ours.name), origin=ours.origin, is_package=package)


class _SameModule(Loader):
    """Loads a module by its own name, and leaves it as that made it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._name)
        self._spec = module.__spec__  # which the import system replaces before it calls `exec_module`
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec
