from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from phalanx.foundation import BuildError, CompilerFailed, CompilerMissing, build
from phalanx.foundation.ccode import prebuild

ROOT = Path(__file__).parents[2]
ANSWER = """
#include "answer.inc"
__attribute__((visibility("default"))) int answer(void) { return ANSWER; }
"""
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: apt install gcc libc6-dev")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "a house"  # the blank: names are not split where a rule for make is read
    folder.mkdir()
    (folder / "answer.inc").write_text("#define ANSWER 42\n")
    (folder / "answer.c").write_text(ANSWER)
    return folder / "answer.c"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHALANX_C_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often the compiler has compiled: $CC is the real one behind a script that counts."""
    count = tmp_path / "count"
    script(tmp_path / "counting-cc", f'case "$*" in *-o*) echo once >> {count} ;; esac\nexec cc "$@"', monkeypatch)
    return lambda: len(count.read_text().splitlines()) if count.exists() else 0


def script(path: Path, lines: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))


def made(source: Path, *flags: str) -> Path:
    return build(source, includes=[source.with_name("answer.inc")], flags=flags)


def answer(path: Path) -> int:
    return int(ctypes.CDLL(str(path)).answer())


def start(source: Path, **environment: str) -> subprocess.Popen[str]:
    """Another process that builds `source` and says where."""
    code = "import sys; from pathlib import Path; from phalanx.foundation import build; a = Path(sys.argv[1])\n"
    code += "print(build(a, includes=[a.with_name('answer.inc')]), flush=True)"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(source)],
        env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_file_is_compiled_once_and_runs(source: Path, cache: Path, compiled: Callable[[], int]) -> None:
    path = made(source)
    assert answer(path) == 42
    assert made(source) == path
    assert compiled() == 1
    assert path.parent == cache
    assert cache.stat().st_mode & 0o777 == 0o700
    assert not list(cache.glob("*.tmp"))


def test_it_is_compiled_again_when_anything_that_decides_it_changes(
    source: Path, compiled: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(source)
    source.with_name("answer.inc").write_text("#define ANSWER 43\n")
    included = made(source)
    source.write_text(ANSWER.replace("ANSWER;", "ANSWER + 1;"))
    changed = made(source)
    flagged = made(source, "-DUNUSED")
    script(tmp_path / "newer-cc", 'case "$*" in --version) echo 99 ;; *) exec cc "$@" ;; esac', monkeypatch)
    with_another_compiler = made(source)
    paths = [first, included, changed, flagged, with_another_compiler]
    assert len(set(paths)) == len(paths)
    assert [answer(path) for path in paths] == [42, 43, 44, 44, 44]
    assert compiled() == 4


def test_a_source_that_goes_back_finds_what_was_made_from_it(source: Path, compiled: Callable[[], int]) -> None:
    first = made(source)
    source.write_text(ANSWER + "\n")
    made(source)
    source.write_text(ANSWER)
    assert made(source) == first
    assert compiled() == 2


def test_a_source_edited_while_it_is_compiled_is_compiled_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag, other = tmp_path / "edited", source.with_name("answer.inc")
    edit = f"[ -e {flag} ] || {{ touch {flag}; echo '#define ANSWER 7' > '{other}'; }}"
    script(tmp_path / "editing-cc", f'case "$*" in *-o*) cc "$@"; {edit}; exit 0 ;; esac\nexec cc "$@"', monkeypatch)
    assert answer(made(source)) == 7
    other.write_text("#define ANSWER 42\n")
    assert answer(made(source)) == 42


def test_an_included_file_that_was_not_named_is_refused(source: Path) -> None:
    with pytest.raises(BuildError, match=r"includes answer\.inc, which build\(\) was not told of"):
        build(source)


def test_an_included_file_may_be_elsewhere_and_libraries_come_last(source: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = source.with_name("answer.inc").rename(tmp_path / "elsewhere" / "answer.inc")
    source.write_text("#include <math.h>\n" + ANSWER.replace("ANSWER;", "(int)pow(ANSWER, SIZE);"))
    assert answer(build(source, includes=[moved], flags=["-lm", "-DSIZE=2", "-fno-builtin"])) == 42 * 42


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "a directory's worth of text"])
def test_a_damaged_file_in_the_cache_is_made_again(source: Path, compiled: Callable[[], int], damage: str) -> None:
    path = made(source)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        path.write_text("" if damage == "emptied" else "\x7fELF" * 1000)
    assert made(source) == path
    assert answer(path) == 42
    assert compiled() == 2


def test_of_many_processes_at_once_one_compiles(
    source: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = tmp_path / "count"
    lines = f'case "$*" in *-o*) echo once >> {count}; sleep 0.5 ;; esac\nexec cc "$@"'
    script(tmp_path / "slow-cc", lines, monkeypatch)
    processes = [start(source) for _ in range(6)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert {output.strip() for output, _ in outputs} == {str(made(source))}, outputs
    assert count.read_text() == "once\n"
    assert sorted(entry.name for entry in cache.iterdir()) == [".lock", made(source).name]


@pytest.mark.parametrize("moment", ["compiling", "fsync", "replace"])
def test_one_killed_half_way_leaves_nothing_that_harms(
    source: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    program = "import os, signal, sys; from pathlib import Path; from phalanx.foundation import build\n"
    if moment == "compiling":
        with monkeypatch.context() as patch:
            script(tmp_path / "killing-cc", 'case "$*" in *-o*) kill -9 $PPID ;; esac\nexec cc "$@"', patch)
            environment = dict(os.environ)
    else:
        program += f"os.{moment} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        environment = dict(os.environ)
    program += "build(Path(sys.argv[1]), includes=[Path(sys.argv[2])])"
    argv = [sys.executable, "-c", program, str(source), str(source.with_name("answer.inc"))]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = subprocess.run(argv, env=environment | {"TMPDIR": str(scratch)}, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert answer(made(source)) == 42
    assert sorted(entry.name for entry in cache.iterdir()) == [".lock", made(source).name]


def test_no_compiler_is_said_with_what_to_install(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CompilerMissing, match=r"no C compiler .* is installed\n  To do: install gcc .* or set CC"):
        made(source)
    monkeypatch.setenv("CC", "icc -fast")
    with pytest.raises(CompilerMissing, match=r"CC=icc -fast: no such C compiler"):
        made(source)


def test_the_compiler_that_cc_names_is_used_with_its_arguments(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source.with_name("answer.inc").write_text("")
    monkeypatch.setenv("CC", "cc -DANSWER=9")
    assert answer(made(source)) == 9


@pytest.mark.parametrize("fault", ["int broken(void) { return 1 }", "int broken(void) { return missing(); }"])
def test_a_file_that_does_not_compile_is_said_with_the_first_errors(source: Path, cache: Path, fault: str) -> None:
    source.write_text(f"{ANSWER}\n{fault}\n")
    with pytest.raises(CompilerFailed) as caught:
        made(source)
    assert caught.value.where == str(source)
    assert "answer.c:5:" in caught.value.message
    assert "error" in caught.value.message
    assert not list(cache.glob("*.so"))


def test_a_symbol_that_nobody_has_fails_here_and_not_at_its_first_call(source: Path) -> None:
    source.write_text(ANSWER + "int missing(void);\nint broken(void) { return missing(); }\n")
    with pytest.raises(CompilerFailed, match="undefined reference"):
        made(source)


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"gone\.c: No such file"):
        build(tmp_path / "gone.c")


def test_a_cache_that_others_can_write_is_not_used(source: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    planted = made(source)
    cache.chmod(0o777)
    path = made(source)
    assert path.parent != planted.parent
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert f"{cache} can be written by others; compiled for this process alone" in caplog.text


@pytest.mark.root
def test_a_cache_of_another_user_is_not_used(source: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    planted = made(source)
    os.chown(cache, 65534, 65534)
    assert made(source).parent != planted.parent
    assert "belongs to another user (65534)" in caplog.text


def test_without_a_home_the_file_lives_as_long_as_its_process(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    process = start(source, PHALANX_C_CACHE=str(tmp_path / "file" / "cache"))
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "compiled for this process alone" in errors
    assert not Path(output.strip()).parent.exists()


@pytest.mark.root
@pytest.mark.parametrize("option", ["ro", "noexec"])
def test_a_cache_that_cannot_be_used_is_gone_around(
    source: Path, mount_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, option: str,
) -> None:  # fmt: skip
    disk = mount_disk("1m")
    subprocess.run(["mount", "-o", f"remount,{option}", str(disk)], check=True)
    monkeypatch.setenv("PHALANX_C_CACHE", str(disk))
    assert answer(made(source)) == 42
    assert "compiled for this process alone" in caplog.text


@pytest.mark.root
def test_a_read_only_cache_serves_what_it_has(
    source: Path, mount_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = mount_disk("1m")
    monkeypatch.setenv("PHALANX_C_CACHE", str(disk))
    disk.chmod(0o755)
    path = made(source)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert made(source) == path
    assert caplog.text == ""


@pytest.mark.root
def test_a_full_disk_is_gone_around_and_two_are_said(
    source: Path, mount_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = mount_disk("4k")
    disk.chmod(0o700)
    monkeypatch.setenv("PHALANX_C_CACHE", str(disk))
    assert answer(made(source)) == 42
    assert "the disk is full; compiled for this process alone" in caplog.text
    assert list(disk.iterdir()) in ([], [disk / ".lock"])
    process = start(source, TMPDIR=str(disk))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "BuildError" in errors
    assert "space" in errors


def test_a_file_built_ahead_stands_beside_its_source_and_needs_no_compiler(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = prebuild(source, source.parent)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert made(source) == path
    assert answer(path) == 42
    source.write_text(ANSWER + "\n")
    with pytest.raises(CompilerMissing):  # it is of another source now
        made(source)


def test_a_wheel_carries_every_c_file_built(tmp_path: Path) -> None:
    house = tmp_path / "house"
    (house / "src").mkdir(parents=True)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, house / name)
    ignore = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "src" / "phalanx" / "foundation", house / "src" / "phalanx" / "foundation", ignore=ignore)
    (house / "src" / "phalanx" / "__init__.py").write_text("")
    (house / "src" / "phalanx" / "answer.c").write_text(ANSWER)
    (house / "src" / "phalanx" / "answer.inc").write_text("#define ANSWER 42\n")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d"]
    for environment, tag in (({}, f"py3-none-linux_{os.uname().machine}"), ({"CC": "missing"}, "py3-none-any")):
        into = tmp_path / tag
        subprocess.run([*command, str(into)], cwd=house, env=os.environ | environment, check=True, capture_output=True)
        (wheel,) = into.iterdir()
        assert wheel.name.endswith(f"{tag}.whl")
    with zipfile.ZipFile(next((tmp_path / f"py3-none-linux_{os.uname().machine}").iterdir())) as archive:
        archive.extractall(tmp_path / "installed")
    installed = tmp_path / "installed" / "phalanx" / "answer.c"
    path = made(installed)
    assert path.parent == installed.parent
    assert answer(path) == 42
