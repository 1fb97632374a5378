"""The judge, judged: a small test file that passes, fails and skips, with ours in place of what it imports; the rules."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest

import phalanx
from benchmarks import __main__ as entry
from benchmarks import sklearn_upstream
from benchmarks.sklearn_upstream import FILES, NotRun, main, run_file, unmodified
from benchmarks.upstream_sklearn_plugin import shared
from benchmarks.upstream_sklearn_table import UNEXPLAINED, Case, FileRun, Report, markdown
from benchmarks.upstream_table import BEGIN, END

RANKING = "sklearn/metrics/tests/test_ranking.py"

SMALL = """
import pickle
from functools import partial

import pytest
import sklearn.metrics
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import accuracy_score, coverage_error, make_scorer
from sklearn.metrics._classification import precision_score

AT_IMPORT = {"half": partial(accuracy_score, normalize=True)}


def test_has_ours():
    assert accuracy_score([0, 1], [0, 0]) == AT_IMPORT["half"]([0, 1], [1, 1]) == 0.5
    assert accuracy_score.__module__.startswith("phalanx.metrics")
    assert pickle.loads(pickle.dumps(accuracy_score))([1], [0]) == 0


def test_knows_one_warning():
    with pytest.warns(UndefinedMetricWarning):
        assert precision_score([0, 1], [0, 0]) == 0


def test_finds_the_rest_as_it_was():
    assert sklearn.metrics.accuracy_score.__module__ == "sklearn.metrics._classification"
    assert make_scorer and coverage_error


@pytest.mark.parametrize("wanted", [0, 2])
def test_fails(wanted):
    assert accuracy_score([1], [1]) == wanted, "not so"


def test_skips():
    pytest.skip("no such device")
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> FileRun:
    place = tmp_path_factory.mktemp("upstream") / "test_small.py"
    place.write_text(SMALL)
    return run_file("test_small.py", place)


def test_a_file_is_run_with_ours_in_place_of_what_it_imports(small: FileRun) -> None:
    assert {each.name: each.outcome for each in small.tests} == {
        "test_has_ours": "passed",
        "test_knows_one_warning": "passed",
        "test_finds_the_rest_as_it_was": "passed",
        "test_fails[0]": "failed",
        "test_fails[2]": "failed",
        "test_skips": "skipped",
    }


def test_calls_are_counted_in_all_and_by_test(small: FileRun) -> None:
    assert {name: count for name, count in small.calls.items() if count} == {"accuracy_score": 4, "precision_score": 1}
    called = {each.name: list(each.calls) for each in small.tests}
    assert called["test_has_ours"] == ["accuracy_score"]
    assert called["test_knows_one_warning"] == ["precision_score"]
    assert called["test_finds_the_rest_as_it_was"] == []
    assert "recall_score" in Report("1", [small]).never_called()
    assert "accuracy_score" not in Report("1", [small]).never_called()


def test_a_failure_says_where_and_in_which_words(small: FileRun) -> None:
    failed = small.of("failed")[0]
    lines = [line.strip() for line in SMALL.splitlines()]
    assert failed.line == lines.index('assert accuracy_score([1], [1]) == wanted, "not so"') + 1
    assert failed.words.startswith("AssertionError: not so")
    assert failed.statement.strip() == lines[failed.line - 1]
    assert failed.why.startswith(UNEXPLAINED)
    assert small.of("skipped")[0].reason == "no such device"


def test_what_was_not_replaced_is_named(small: FileRun) -> None:
    assert set(small.not_ours) == {"accuracy_score", "coverage_error", "precision_score"} - set(shared())


@pytest.mark.slow  # loads all of scikit-learn, as the next two do
def test_a_module_of_theirs_that_keeps_ours_ends_the_run(tmp_path: Path) -> None:
    place = tmp_path / "test_keeps.py"
    place.write_text(
        "import sklearn.base\nfrom sklearn.metrics import f1_score\nsklearn.base.kept = f1_score\ndef test(): pass\n"
    )
    with pytest.raises(NotRun, match=r"sklearn\.base itself has ours: kept"):
        run_file("test_keeps.py", place)


@pytest.mark.slow
def test_a_file_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    place = tmp_path / "test_broken.py"
    place.write_text("import no_such_module\n")
    with pytest.raises(NotRun, match="no_such_module"):
        run_file("test_broken.py", place)


def report(*failed: str) -> Report:
    tests = [
        Case("test_a[1]", "passed", calls=["auc"]),
        Case("test_b", "passed"),
        *(Case(f"test_c[{number}]", "failed", line=7, words=words) for number, words in enumerate(failed)),
        *(Case(f"test_d[{metric}]", "skipped", f"{metric} can not deal with 1d inputs") for metric in "uvwxyz"),
        Case("test_e", "skipped", "no | device"),
    ]
    return Report("1.9", [FileRun("x/test_x.py", tests, {"auc": 3, "f1_score": 0}, ["hinge_loss"], 1.4)])


def test_the_tables_say_what_passed_and_why_not() -> None:
    weights = "BadInput: the sum of the weights is beyond 64 bits\nTo do: give them as floats"
    tables = markdown(report(weights, weights, "AssertionError: no\n  Actual message: 'x'"))
    assert "| `x/test_x.py` | 1 | 3 | 7 | 1 | 1 |" in tables
    assert "| `test_c` | 2 | `test_x.py:7` | whole weights are summed exactly here" in tables
    assert f"| `test_c` | 1 | `test_x.py:7` | {UNEXPLAINED}AssertionError: no Actual message: 'x' |" in tables
    assert "| `auc` | 3 | 1 |" in tables
    assert "| `f1_score` | 0 | 0 |" in tables
    assert "none of that name here: `hinge_loss`." in tables
    assert "| each of 6 metrics: can not deal with 1d inputs | 6 |" in tables
    assert "| no \\| device | 1 |" in tables


def test_only_what_no_rule_explains_is_unexplained() -> None:
    numpys = "AssertionError: assert <module 'sklearn.externals.array_api_compat.numpy' from 'x'> == <module 'y'>"
    assert report(numpys).unexplained() == []
    found = report(numpys, "ValueError: what?").unexplained()
    assert found == [f"x/test_x.py::test_c[1], line 7: {UNEXPLAINED}ValueError: what?"]


def test_a_file_that_is_not_as_it_was_shipped_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [unmodified(file).name for file in FILES] == [Path(file).name for file in FILES]
    with pytest.raises(NotRun, match="not a file of the scikit-learn"):
        unmodified("sklearn/metrics/tests/test_nothing.py")

    class Listed(PurePosixPath):
        hash = SimpleNamespace(mode="sha256", value="of another text")

        def locate(self) -> str:
            return __file__

    monkeypatch.setattr(metadata, "files", lambda name: [Listed(RANKING)])
    with pytest.raises(NotRun, match="changed since it was installed"):
        unmodified(RANKING)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--only", "nothing"], "--only nothing: there are sklearn/metrics"),
        (["--only", "ranking", "--write", __file__], "--write is for the tables of all tests"),
        (["--write", "no/such/page"], "No such file"),
    ],
)
def test_what_would_fail_at_the_end_is_refused_before_anything_runs(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        entry.main(["sklearn-upstream", *given])
    assert said in capsys.readouterr().err


def run_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: Report) -> int:
    """The command, where all files went as the one of `found` did."""
    monkeypatch.setattr(sklearn_upstream, "run_file", lambda *given: found.files[0])
    monkeypatch.setattr(sklearn_upstream, "unmodified", lambda file: Path(__file__))
    (tmp_path / "page.md").write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    return main(["--write", str(tmp_path / "page.md"), "--out", str(tmp_path)])


def test_one_of_ours_that_is_never_called_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_of(monkeypatch, tmp_path, report()) == 1
    assert "f1_score: called by no test" in capsys.readouterr().err
    (called,) = report().files
    called.calls["f1_score"] = 1
    assert run_of(monkeypatch, tmp_path, Report("1.9", [called])) == 0
    page = (tmp_path / "page.md").read_text()
    assert page.startswith("before")
    assert "| `f1_score` | 6 |" in page  # by six files
    assert '"sha256"' in next(tmp_path.glob("sklearn-upstream-*.json")).read_text()


def test_a_failure_without_a_reason_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = report("ValueError: what?")
    found.files[0].calls["f1_score"] = 1
    assert run_of(monkeypatch, tmp_path, found) == 1
    assert "x/test_x.py::test_c[0], line 7" in capsys.readouterr().err


def test_nothing_of_phalanx_knows_one_of_their_tests() -> None:
    names = {
        name for file in FILES for name in re.findall(r"^def (test_\w+)", unmodified(file).read_text(), re.MULTILINE)
    }
    assert len(names) > 300
    words = {
        word for path in Path(phalanx.__file__).parent.rglob("*.py") for word in re.findall(r"\w+", path.read_text())
    }
    assert not names & words


@pytest.mark.slow
def test_the_command_runs_their_tests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "test_ranking", "--tests", "top_k", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    passed = re.search(rf"\| `{RANKING}` \| (\d+) \| 0 \| 0 \|", out)
    assert passed
    assert int(passed[1]) > 20
    assert re.search(r"\| `top_k_accuracy_score` \| [1-9]", out)
