"""`import horovod` as unmodified scripts do it, in fresh interpreters that have the launcher's folder on their path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import phalanx.horovod

FOLDER = Path(phalanx.horovod.__file__).parent / "path"


def python(*arguments: str, path: list[Path] | None = None, cwd: Path | None = None, good: bool = True) -> str:
    """What `python ARGUMENTS` writes, errors included; `path` comes after the launcher's folder."""
    entries = [str(FOLDER), *map(str, path or [])]
    done = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(entries), "OMP_NUM_THREADS": "1"},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode == 0) == good, done.stdout
    return done.stdout


SAME = """
import sys
import horovod
import horovod.common.exceptions
from horovod.common.exceptions import HorovodInternalError
import phalanx.horovod.common.exceptions as ours

assert horovod is sys.modules["phalanx.horovod"] is sys.modules["horovod"]
assert horovod.common.exceptions is ours is sys.modules["horovod.common.exceptions"]
assert HorovodInternalError is ours.HorovodInternalError
assert ours.__name__ == ours.__spec__.name == "phalanx.horovod.common.exceptions", ours.__spec__
assert ours.__spec__.loader is ours.__loader__
assert horovod.__spec__.name == "phalanx.horovod"
assert horovod.common.__spec__.submodule_search_locations
assert horovod.__version__ == "0.28.1"
from horovod.version import __version__
assert __version__ == "0.28.1"
assert "torch" not in sys.modules
print("the same")
"""


def test_a_module_is_one_object_under_both_names():
    assert python("-c", SAME) == "the same\n"


@pytest.mark.parametrize("first", ["horovod.common.exceptions", "phalanx.horovod.common.exceptions"])
def test_it_does_not_matter_which_name_comes_first(first):
    assert python("-c", f"import {first}\n{SAME}") == "the same\n"


def test_exceptions_raised_under_one_name_are_caught_and_unpickled_under_the_other():
    code = (
        "import pickle\n"
        "from horovod.common.exceptions import HostsUpdatedInterrupt as theirs\n"
        "from phalanx.horovod.common.exceptions import HostsUpdatedInterrupt as ours\n"
        "try: raise ours(True)\n"
        "except theirs as error: print(error.skip_sync)\n"
        "named = b'chorovod.common.exceptions\\nHostsUpdatedInterrupt\\n.'\n"
        "print(pickle.loads(named) is ours, pickle.loads(pickle.dumps(ours)) is theirs)\n"
    )
    assert python("-c", code) == "True\nTrue True\n"


def test_the_torch_of_horovod_is_ours_with_all_its_modules():
    code = (
        "import horovod.torch as hvd, horovod.torch.mpi_ops\n"
        "import phalanx.horovod.torch.mpi_ops as ours\n"
        "print(horovod.torch.mpi_ops is ours, hvd.mpi_ops is ours, hvd.__name__)\n"
    )
    assert python("-c", code) == "True True phalanx.horovod.torch\n"


def test_a_spawned_child_and_a_forked_one_find_it_too(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, sys\n"
        "def child(queue):\n"
        "    import horovod.common.exceptions as module\n"
        "    queue.put(module.__name__)\n"
        "if __name__ == '__main__':\n"
        "    for method in ('spawn', 'fork', 'forkserver'):\n"
        "        context = multiprocessing.get_context(method)\n"
        "        queue = context.Queue()\n"
        "        process = context.Process(target=child, args=(queue,))\n"
        "        process.start()\n"
        "        print(queue.get(timeout=30))\n"
        "        process.join()\n"
    )
    assert python(str(script)).split() == ["phalanx.horovod.common.exceptions"] * 3


def test_it_is_found_under_pytest_and_by_a_package_run_as_a_module(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import horovod\ndef test_it(): assert horovod.__name__ == 'phalanx.horovod'\n"
    )
    assert "1 passed" in python("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py", cwd=tmp_path)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text("import horovod; print(horovod.__name__)")
    assert python("-m", "package", cwd=tmp_path) == "phalanx.horovod\n"


def test_what_the_user_runs_at_the_start_of_python_is_not_shadowed(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('customized')")
    assert python("-c", "import horovod", path=[tmp_path]) == "customized\n"


def horovod_at(folder: Path, *, built: bool) -> Path:
    """A folder with a package that looks as Horovod does."""
    package = folder / "horovod" / "torch"
    package.mkdir(parents=True)
    (folder / "horovod" / "__init__.py").write_text("__version__ = 'real'\n")
    (package / "__init__.py").write_text("name = __name__\n")
    if built:
        (package / "mpi_lib_v2.cpython-311-x86_64-linux-gnu.so").touch()
    return folder


def test_a_real_horovod_on_the_path_wins(tmp_path):
    code = (
        "import horovod, horovod.torch, sys; print(horovod.__version__, horovod.torch.name, 'phalanx' in sys.modules)"
    )
    assert python("-c", code, path=[horovod_at(tmp_path, built=True)]) == "real horovod.torch False\n"


def test_sources_of_horovod_that_were_not_built_do_not(tmp_path):
    code = "import horovod; print(horovod.__version__)"
    assert python("-c", code, path=[horovod_at(tmp_path, built=False)]) == "0.28.1\n"
    (tmp_path / "empty" / "horovod").mkdir(parents=True)
    assert python("-c", code, path=[tmp_path / "empty"]) == "0.28.1\n"


@pytest.mark.parametrize("name", ["tensorflow", "tensorflow.keras", "keras", "mxnet", "spark", "ray"])
def test_other_frameworks_say_what_to_do(name):
    said = python("-c", f"import horovod.{name}", good=False).splitlines()
    assert "is not provided: Phalanx has Horovod's interface for PyTorch, horovod.torch" in said[-2]
    assert said[-1].startswith("  To do: port the script to horovod.torch, or install Horovod itself")


def test_a_script_that_can_do_without_another_framework_goes_on():
    code = "try: import horovod.tensorflow\nexcept ImportError as error: print(type(error).__name__, error.name)"
    assert python("-c", code) == "NotProvided horovod.tensorflow\n"


def test_a_module_that_never_was_is_told_by_its_name():
    assert "ModuleNotFoundError: No module named 'horovod.nonsense'" in python(
        "-c", "import horovod.nonsense", good=False
    )


def test_a_python_without_phalanx_says_so():
    isolated = f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import horovod"
    said = python("-I", "-S", "-c", isolated, good=False)
    assert f"ImportError: this Python, {sys.executable}, has neither Horovod nor Phalanx" in said
