"""What docs/horovod.md says of variables and options is what there is, and its script is the example's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from phalanx.horovod.runner.options import OPTIONS
from phalanx.horovod.variables import WITHOUT_EFFECT, Variables
from tests.documents import examples

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "horovod.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "horovod" / "train.py"


class Asked(Mapping[str, str]):
    """An empty environment that knows what it was asked for."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def test_every_variable_that_is_read_or_means_nothing_is_listed_and_says_why():
    asked = Asked()
    Variables.from_environment(asked)
    rows = re.findall(r"^\| (`HOROVOD_.*?) \|", PAGE, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert asked.names | WITHOUT_EFFECT.keys() <= listed
    for name, why in WITHOUT_EFFECT.items():
        assert re.search(rf"^\|[^|]*`{name}`[^|]*\| {re.escape(why)} \|$", PAGE, re.MULTILINE), name


def test_the_options_without_effect_are_those_that_are_named():
    (said,) = re.findall(r"say so once if they are given: (.*?)\. ", " ".join(PAGE.split()))
    assert set(re.findall(r"`(\S+)`", said)) == {option.typed[-1] for option in OPTIONS.values() if option.idle}


def test_the_script_shown_is_the_example():
    (shown,) = (block.text for block in examples(PAGE) if block.file == "train.py")
    assert shown == EXAMPLE.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("more", [["--use-adasum"], ["--fp16-allreduce"]], ids=lambda more: more[0])
@pytest.mark.parametrize("ranks", [2, 4])
def test_the_example_learns_in_all_its_ways(ranks, more):
    command = [sys.executable, "-m", "phalanx", "horovodrun", "-np", str(ranks), sys.executable, str(EXAMPLE), *more]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", done.stdout)]
    assert len(losses) == 3
    assert losses[-1] < 0.1 < losses[0]
