import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import __main__ as entry
from benchmarks.harness import (
    Comparison,
    MissingData,
    NotEqual,
    Options,
    Side,
    compare,
    machine,
    save,
    stopwatch,
    table,
)

positive = st.floats(min_value=1e-3, max_value=1e6)


def scripted(order: list[str], name: str, values: list[float]) -> Side:
    remaining = iter(values)

    def measure() -> float:
        order.append(name)
        return next(remaining)

    return Side(name, measure)


def test_sides_take_turns_and_the_warm_up_does_not_count() -> None:
    order: list[str] = []
    result = compare(
        "speed",
        "tokens/s",
        [scripted(order, "ours", [999, 10, 20, 30]), scripted(order, "peer", [999, 5, 5, 5])],
        rounds=3,
    )
    assert order == ["ours", "peer"] * 4
    assert result.values == {"ours": [10, 20, 30], "peer": [5, 5, 5]}


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=9))
def test_medians_and_ratios_are_those_of_numpy(pairs: list[tuple[float, float]]) -> None:
    ours, peer = zip(*pairs, strict=True)
    result = compare(
        "x", "s", [scripted([], "a", list(ours)), scripted([], "b", list(peer))], rounds=len(pairs), warmup=0
    )
    assert result.median("a") == pytest.approx(np.median(ours))
    assert result.ratio("a", "b") == pytest.approx(np.median(np.array(ours) / np.array(peer)))


def test_a_minute_in_which_the_machine_is_slow_does_not_move_the_ratio() -> None:
    slow = [1.0, 1.0, 0.1, 0.2, 1.0]
    result = compare(
        "x",
        "tokens/s",
        [scripted([], "a", [200 * s for s in slow]), scripted([], "b", [100 * s for s in slow])],
        rounds=5,
        warmup=0,
    )
    assert result.ratio("a", "b") == pytest.approx(2.0)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_number_that_gives_no_ratio_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="broken measured"):
        compare("x", "s", [Side("broken", lambda: value)], rounds=1)


def test_no_round_or_two_sides_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one round"):
        compare("x", "s", [Side("a", lambda: 1.0)], rounds=0)
    with pytest.raises(ValueError, match="different names"):
        compare("x", "s", [Side("a", lambda: 1.0), Side("a", lambda: 1.0)], rounds=1)


def test_progress_is_told_after_every_measurement() -> None:
    told: list[str] = []
    compare("x", "s", [Side("a", lambda: 1.0), Side("b", lambda: 2.0)], rounds=2, progress=told.append)
    assert len(told) == 6
    assert "warm-up" in told[0]
    assert "round 2 of 2: b 2 s" in told[-1]


@pytest.fixture
def result() -> Comparison:
    return Comparison(
        "bert",
        "tokens/s",
        {"phalanx": [2000.0, 2100.0, 1900.0], "trainer": [1000.0, 1000.0, 1000.0]},
        {"phalanx": {}, "trainer": {"group_by_length": True}},
        {"padding": "12 %"},
    )


def test_the_table_shows_medians_ratio_spread_settings_and_notes(result: Comparison) -> None:
    shown = table([result])
    assert "2.00 x  (1.90 to 2.10)" in shown
    assert "2,000 tokens/s" in shown
    assert "bert, trainer: group_by_length True" in shown
    assert "bert: padding 12 %" in shown


def test_the_json_has_every_measurement_the_machine_and_the_command(result: Comparison, tmp_path: Path) -> None:
    record = json.loads(save([result], tmp_path / "new", "make bench").read_text())
    [kept] = record["comparisons"]
    assert kept["sides"]["phalanx"]["values"] == [2000.0, 2100.0, 1900.0]
    assert kept["ratios"]["phalanx / trainer"]["median"] == 2.0
    assert record["command"] == "make bench"
    assert record["machine"]["cores"] >= 1
    assert record["machine"]["versions"]["torch"]


def test_two_runs_keep_two_files(result: Comparison, tmp_path: Path) -> None:
    assert save([result], tmp_path, "a") != save([result], tmp_path, "a")


def test_the_machine_is_this_one() -> None:
    assert machine()["cores"] == len(os.sched_getaffinity(0))


def test_a_stopwatch_counts_the_processor_time_of_children() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    with stopwatch() as elapsed:
        subprocess.run([sys.executable, "-c", burn], check=True)
    assert elapsed.cpu >= 0.3
    assert elapsed.wall > 0


def test_outside_data_is_found_under_its_directory_or_missed_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "text.gz").write_bytes(b"")
    assert Options(data=tmp_path).outside("text.gz") == tmp_path / "text.gz"
    with pytest.raises(MissingData, match=r"absent\.gz"):
        Options(data=tmp_path).outside("absent.gz")
    with pytest.raises(MissingData, match="PHALANX_DATA"):
        Options().outside("text.gz")


class TestTheCommand:
    @pytest.fixture
    def benchmark_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
        """Adds a benchmark to an otherwise empty directory."""
        folder = tmp_path / "benchmarks"
        folder.mkdir()
        monkeypatch.setattr(entry, "HERE", folder)
        monkeypatch.setattr(entry, "APART", {})
        monkeypatch.setattr("benchmarks.__path__", [str(folder)])

        def add(name: str, body: str) -> None:
            (folder / f"bench_{name}.py").write_text(f'"""About {name}."""\n{body}\n')
            monkeypatch.delitem(sys.modules, f"benchmarks.bench_{name}", raising=False)

        return add

    def test_runs_all_prints_a_table_and_keeps_the_numbers(
        self, benchmark_files: Callable[[str, str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        benchmark_files(
            "first",
            "from benchmarks.harness import Side, compare\n"
            "def run(options, progress):\n"
            "    sides = [Side('a', lambda: 4.0), Side('b', lambda: 2.0)]\n"
            "    return [compare('first', 's', sides, rounds=options.rounds, progress=progress)]\n",
        )
        assert entry.main(["--rounds", "2", "--out", str(tmp_path / "out")]) == 0
        shown = capsys.readouterr()
        assert "2.00 x" in shown.out
        assert "round 2 of 2" in shown.err
        [kept] = (tmp_path / "out").iterdir()
        assert statistics.mean(json.loads(kept.read_text())["comparisons"][0]["sides"]["a"]["values"]) == 4.0

    def test_leaves_out_what_misses_its_data_and_fails_on_unequal_sides(
        self, benchmark_files: Callable[[str, str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        benchmark_files("missing", "def run(options, progress):\n    return [options.outside('text')]")
        assert entry.main(["--out", str(tmp_path)]) == 0
        assert "left out: needs text" in capsys.readouterr().err
        benchmark_files(
            "unequal",
            f"from {NotEqual.__module__} import NotEqual\n"
            "def run(options, progress):\n    raise NotEqual('losses differ by 0.1')",
        )
        assert entry.main(["--out", str(tmp_path)]) == 1
        assert "losses differ" in capsys.readouterr().err

    def test_lists_what_there_is_and_refuses_what_there_is_not(
        self, benchmark_files: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
    ) -> None:
        benchmark_files("first", "")
        assert entry.main(["--list"]) == 0
        assert "About first." in capsys.readouterr().out
        with pytest.raises(SystemExit) as ended:
            entry.main(["second"])
        assert ended.value.code == 2
        assert "there are: first" in capsys.readouterr().err
