"""The judge, judged: a small checkout whose tests pass, fail, disagree, hang and die, really launched on two ranks."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import __main__ as entry
from benchmarks.horovod_upstream import left_out, main
from benchmarks.upstream_runs import FileRun, How, Outcome, ScriptRun, run_file, run_script
from benchmarks.upstream_table import BEGIN, END, Report, between_marks, markdown

LAUNCHER = [str(Path(sys.executable).with_name("phalanx")), "horovodrun"]

TESTS = """
import colorsys
import os
import time
import unittest

RANK = int(os.environ["HOROVOD_RANK"])


class Tests(unittest.TestCase):
    def test_a_passes(self):
        pass

    def test_b_fails_on_one(self):
        assert RANK == 0, "only rank 0 is right"

    def test_c_skips(self):
        self.skipTest("no such device")

    def test_d_skips_on_one(self):
        if RANK:
            self.skipTest("not here")

    def test_e_breaks_a_library(self):
        colorsys.rgb_to_hls(None, 0, 0)

    def test_f_hangs(self):
        if RANK:
            time.sleep(600)  # for ever

    def test_g_comes_after_a_hang(self):
        pass

    def test_h_dies(self):
        if RANK:
            os._exit(3)
        time.sleep(600)

    def test_i_comes_after_a_death(self):
        pass
"""

SCRIPT = """
import os
import sys

print(f"rank {os.environ['HOROVOD_RANK']} of {os.environ['HOROVOD_SIZE']} was told {sys.argv[1:]}")
if sys.argv[1] == "fail":
    raise ValueError("as told")
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """In a folder that has our name, as many a clone has: what fails below it is not ours for that."""
    directory = tmp_path / "phalanx" / "horovod"
    files = {
        "horovod/__init__.py": "__version__ = '0.28.1'\n",
        "test/parallel/test_torch.py": TESTS,
        "test/parallel/test_other.py": "import tensorflow\n",
        "test/parallel/test_broken.py": "import no_such_module\n",
        "examples/one.py": SCRIPT,
    }
    for name, text in files.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return directory


@pytest.fixture
def how(tmp_path: Path) -> How:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return How(LAUNCHER, sys.executable, scratch, limit_s=3.0)


def test_each_test_has_one_outcome_of_all_ranks_and_the_others_go_on(checkout: Path, how: How) -> None:
    run = run_file(how, checkout, "test/parallel/test_torch.py", 2)
    found = {each.test.removeprefix("Tests::test_"): each for each in run.outcomes}
    assert {name: each.outcome for name, each in found.items()} == {
        "a_passes": "passed",
        "b_fails_on_one": "failed",
        "c_skips": "skipped",
        "d_skips_on_one": "failed",
        "e_breaks_a_library": "failed",
        "f_hangs": "failed",
        "g_comes_after_a_hang": "passed",
        "h_dies": "failed",
        "i_comes_after_a_death": "passed",
    }
    lines = {line.strip(): number for number, line in enumerate(TESTS.splitlines(), 1)}
    assert found["c_skips"].reason == "no such device"
    assert found["b_fails_on_one"].reason == "rank 1: AssertionError: only rank 0 is right"
    assert found["b_fails_on_one"].line == lines['assert RANK == 0, "only rank 0 is right"']
    assert found["d_skips_on_one"].reason == "passed on rank 0, skipped on rank 1"
    assert found["e_breaks_a_library"].line == lines["colorsys.rgb_to_hls(None, 0, 0)"]
    assert found["e_breaks_a_library"].cause.startswith("Python itself, ")
    assert "colorsys.py" in found["e_breaks_a_library"].cause
    assert [each.test for each in run.outcomes if each.by_a_library] == ["Tests::test_e_breaks_a_library"]
    assert "hung" in found["f_hangs"].reason
    assert found["f_hangs"].line == lines["time.sleep(600)  # for ever"]
    assert found["h_dies"].reason.startswith("rank 0 and 1 ")
    assert not run.trouble
    assert not list((checkout / "test").rglob("__pycache__"))


def test_a_file_that_cannot_be_loaded_says_why(checkout: Path, how: How) -> None:
    run = run_file(how, checkout, "test/parallel/test_broken.py", 2)
    assert not run.outcomes
    assert "No module named 'no_such_module'" in run.trouble[0]


def test_a_script_is_judged_by_how_it_ends_and_quoted(checkout: Path, how: How) -> None:
    well = run_script(how, checkout, "examples/one.py", 2, ["succeed"], more=["quietly"])
    assert well.passed
    assert well.said == "rank 0 of 2 was told ['succeed', 'quietly']"
    assert well.arguments == ["succeed"]
    badly = run_script(how, checkout, "examples/one.py", 2, ["fail"])
    assert not badly.passed
    assert "ValueError: as told" in badly.said


def report() -> Report:
    passed, skipped = Outcome("T::a", "passed"), Outcome("T::b", "skipped", "no | device")
    failed = Outcome("T::c", "failed", "rank 0: ValueError: no", 7, "torch itself, torch/x.py:3")
    runs = [FileRun("test/parallel/test_x.py", ranks, [passed, skipped, failed], 1.4) for ranks in (2, 4)]
    scripts = [ScriptRun("examples/one.py", ["--fast"], 2, True, 2.0, "done"), missing("lightning")]
    return Report(runs, [], scripts, [])


def missing(module: str) -> ScriptRun:
    return ScriptRun(
        "examples/two.py", [], 2, False, 1.0, f"ended with 1\nModuleNotFoundError: No module named '{module}'\n"
    )


def test_the_tables_say_what_passed_and_why_not() -> None:
    tables = markdown(report())
    assert "| `test/parallel/test_x.py` | 4 | 1 | 1 | 1 | 1 |" in tables
    assert "| `c` | 2, 4 | `test_x.py:7` | torch itself, torch/x.py:3: rank 0: ValueError: no |" in tables
    assert "| no \\| device | `b` |" in tables
    assert "| `one.py` | `--fast` | 2 | ran, 2 s | done |" in tables
    assert "| not run | needs lightning |" in tables


def test_what_a_library_breaks_or_is_known_is_no_failure_of_ours() -> None:
    assert not report().failed_by_us
    ours = FileRun("test_x.py", 2, [Outcome("T::d", "failed", "no", 9, "ours, phalanx/x.py:1")], 1.0)
    assert replace(report(), files=[ours]).failed_by_us
    assert not replace(report(), files=[ours], known={"d": "by upstream's own doing"}).failed_by_us
    assert replace(report(), files=[FileRun("test_x.py", 2, [], 1.0, ["no test began"])]).failed_by_us
    assert replace(report(), scripts=[replace(missing("x"), said="ended with 1")]).failed_by_us


def test_a_page_keeps_what_is_around_its_tables() -> None:
    assert between_marks(f"before\n{BEGIN}\nold\n{END}\nafter", "new") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter"
    with pytest.raises(ValueError, match="has no"):
        between_marks("before", "new")


def test_other_files_are_left_out_with_a_reason(checkout: Path) -> None:
    found = {path: left.why for left in left_out(checkout) for path in left.paths}
    assert found["test/parallel/test_other.py"] == "TensorFlow, Keras: not provided"
    assert "test/parallel/test_torch.py" not in found


def test_a_directory_that_is_no_checkout_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        entry.main(["horovod-upstream", "--checkout", str(tmp_path)])
    assert "is no checkout of Horovod 0.28.1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [(["--write", __file__], f"the page has no {BEGIN}"), (["--ranks", "two"], "argument --ranks: invalid")],
)
def test_what_would_fail_at_the_end_is_refused_before_anything_runs(
    checkout: Path, given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--checkout", str(checkout), *given])
    assert said in capsys.readouterr().err


def test_the_command_prints_the_tables_and_keeps_all_outcomes(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        "--checkout",
        str(checkout),
        "--ranks",
        "1",
        "--only",
        "test_torch.py",
        "--limit",
        "3",
        "--out",
        str(tmp_path),
    ]
    assert main(given) == 1
    assert "| `test/parallel/test_torch.py` | 1 |" in capsys.readouterr().out
    (kept,) = tmp_path.glob("horovod-upstream-*.json")
    assert '"sha256"' in kept.read_text()
