"""What a Horovod exports, a line each: names, arguments, defaults.

`python tests/horovod/torch/signatures.py horovod`, where a real one is installed, wrote horovod-0.28.1.txt.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from typing import Any

MODULES = ("torch", "torch.elastic", "common.exceptions")


def signatures(package: str) -> Iterator[str]:
    """Of all public functions, classes with their methods, and numbers that are `package`'s own."""
    for module in MODULES:
        for name, value in sorted(vars(importlib.import_module(f"{package}.{module}")).items()):
            if isinstance(value, int) and not name.startswith("_"):
                yield f"{module}.{name} = {value}"
            elif _is_own(name, value, package):
                yield f"{module}.{name}{_arguments(value)}"
                for method in sorted(dir(value)) if inspect.isclass(value) else ():
                    if _is_own(method, getattr(value, method), package):
                        yield f"{module}.{name}.{method}{_arguments(getattr(value, method))}"


def _is_own(name: str, value: Any, package: str) -> bool:
    home = str(getattr(value, "__module__", "") or "")
    return not name.startswith("_") and callable(value) and home.startswith(f"{package}.")


def _arguments(value: Any) -> str:
    if inspect.isclass(value) and value.__init__ is RuntimeError.__init__:  # of which Python knows no signature
        return "(*args)"
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    shown = []
    for argument in inspect.signature(value).parameters.values():
        default = argument.default
        if isinstance(default, type):
            default = default.__name__
        elif type(default).__name__ == "ProcessSet":
            default = "global_process_set"
        given = "" if argument.default is argument.empty else f"={default}"
        shown.append(stars.get(argument.kind, "") + argument.name + given)
    return f"({', '.join(shown)})"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in signatures(sys.argv[1]))
