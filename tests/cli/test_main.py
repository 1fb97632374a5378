import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import click
import pytest

import phalanx
from phalanx.cli import table
from phalanx.cli._options import home_option, json_option, name_argument, namespace_option
from phalanx.cli.main import main
from phalanx.foundation import Home, PhalanxError, UsageError

HEAVY = {"torch", "numpy", "duckdb", "pydantic", "rich", "pyarrow", "tokenizers", "plotly"}


def phalanx_process(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "phalanx", *arguments], capture_output=True, text=True, check=False)


def loaded_by(arguments: list[str]) -> set[str]:
    """Top-level modules in a fresh interpreter after `phalanx ARGUMENTS`."""
    script = (
        "import contextlib, io, sys\n"
        "from phalanx.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        f"    code = main({arguments!r})\n"
        "print(code, *sorted({name.partition('.')[0] for name in sys.modules} "
        "| {name for name in sys.modules if name.startswith('phalanx.cli.')}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    code, *names = done.stdout.split()
    assert code == "0"
    return set(names)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["version"], []])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    if not arguments:
        script = "import sys, phalanx.cli.main; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        names = set(done.stdout.split())
    else:
        names = loaded_by(arguments)
    assert not names & HEAVY
    if arguments == ["--help"]:
        assert {name for name in names if name.startswith("phalanx.cli.")} == {"phalanx.cli.main", "phalanx.cli.table"}


def test_help_lists_every_verb_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for verb, (_, summary) in table.VERBS.items():
        assert f"{verb} " in shown
        assert summary in shown


def test_help_has_a_short_form_at_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["-h"], ["version", "-h"], ["events", "sql", "-h"]):
        assert main(arguments) == 0
        assert "Usage: phalanx" in capsys.readouterr().out


def test_a_misspelt_verb_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verison"]) == 2
    assert "Did you mean 'version'?" in capsys.readouterr().err


def test_a_verb_like_no_other_is_answered_with_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["xyzzy"]) == 2
    assert "phalanx --help" in capsys.readouterr().err


def test_an_unknown_option_exits_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "--jsno"]) == 2
    assert "--json" in capsys.readouterr().err


@click.command()
@click.option("--how", default="phalanx")
@home_option
@namespace_option
@json_option
@name_argument
def trial(how: str, home: Home, namespace: str, as_json: bool, name: str) -> None:
    """Fail as asked."""
    match how:
        case "phalanx":
            raise PhalanxError("the wall fell", where="the gate", remedy="build it again")
        case "usage":
            raise UsageError("no such wall")
        case "interrupt":
            raise KeyboardInterrupt
        case "print":
            click.echo(json.dumps([str(home.root), namespace, as_json, name]))


@pytest.fixture
def trial_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("trial_verb")
    module.command = trial  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trial_verb", module)
    monkeypatch.setattr("phalanx.cli.main.VERBS", {"trial": ("trial_verb:command", "Fail as asked")})


@pytest.mark.usefixtures("trial_verb")
class TestAVerbThatFails:
    def test_says_what_where_and_what_to_do_without_a_traceback(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["trial", "a"]) == 1
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err == "phalanx: the gate: the wall fell\n  To do: build it again\n"

    @pytest.mark.parametrize("arguments", [["--debug", "trial", "a"], ["trial", "a", "--debug"]])
    def test_shows_the_traceback_with_debug_on_either_side(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(arguments) == 1
        assert "Traceback" in capsys.readouterr().err

    def test_exits_with_two_for_bad_input(self) -> None:
        assert main(["trial", "a", "--how", "usage"]) == 2

    def test_exits_with_130_when_interrupted(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["trial", "a", "--how", "interrupt"]) == 130
        assert "interrupted" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["..", "a/b", "A", "x" * 64])
    def test_refuses_a_name_that_is_no_label(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["trial", name]) == 2
        assert "not a usable name" in capsys.readouterr().err

    def test_takes_the_home_before_or_after_itself(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        first, second = str(tmp_path / "first"), str(tmp_path / "second")
        for arguments, expected in (
            (["--home", first, "trial", "a", "--how", "print"], first),
            (["trial", "a", "--how", "print", "--home", second], second),
            (["--home", first, "trial", "a", "--how", "print", "--home", second], second),
            (["trial", "a", "--how", "print"], os.environ["PHALANX_HOME"]),
        ):
            assert main(arguments) == 0
            assert json.loads(capsys.readouterr().out) == [expected, "default", False, "a"]


UNFORESEEN = """
import sys, types, click
from phalanx.cli import main as entry

@click.command()
@click.option("--how")
def command(how):
    if how == "bug":
        raise ZeroDivisionError("a bug")
    if how == "file":
        open("/absent/file")
    if how == "once":
        click.echo("line")
        return
    while True:
        click.echo("line")

module = types.ModuleType("trial_verb")
module.command = command
sys.modules["trial_verb"] = module
entry.VERBS = {"trial": ("trial_verb:command", "Fail")}
sys.exit(entry.main())
"""


def unforeseen(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", UNFORESEEN, "trial", *arguments], capture_output=True, text=True, check=False
    )


def test_an_unforeseen_error_is_one_message_and_with_debug_a_traceback() -> None:
    done = unforeseen("--how", "bug")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "ZeroDivisionError: a bug" in done.stderr
    assert "--debug" in done.stderr
    debugged = unforeseen("--how", "bug", "--debug")
    assert debugged.returncode == 1
    assert "Traceback" in debugged.stderr


def test_an_unforeseen_error_of_a_file_names_it() -> None:
    done = unforeseen("--how", "file")
    assert done.stderr.startswith("phalanx: /absent/file: No such file or directory\n")


def test_an_output_on_a_full_disk_is_said_so() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", UNFORESEEN, "trial"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith("phalanx: cannot write: No space left on device\n")


def test_an_output_that_the_caller_has_closed_is_no_failure() -> None:
    script = [sys.executable, "-c", UNFORESEEN, "trial", "--how", "once"]
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_goes_away_is_no_failure_to_talk_about() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", UNFORESEEN, "trial"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def test_ctrl_c_ends_a_verb_with_130_and_no_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", UNFORESEEN, "trial"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "line\n"
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in complaint


def test_version_in_json_names_what_it_stands_on_without_importing_it() -> None:
    done = phalanx_process("version", "--json")
    found = json.loads(done.stdout)
    assert found["phalanx"] == phalanx.__version__
    assert found["torch"]
    assert found["duckdb"]


def test_the_version_in_the_package_is_the_version_installed() -> None:
    from importlib import metadata

    assert metadata.version("phalanx-ml") == phalanx.__version__
