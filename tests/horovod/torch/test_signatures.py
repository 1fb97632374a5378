"""Everything that a real Horovod 0.28.1 exports to PyTorch scripts is there, with its arguments and defaults."""

from __future__ import annotations

from pathlib import Path

from tests.horovod.torch.signatures import signatures

RECORDED = Path(__file__).with_name("horovod-0.28.1.txt").read_text(encoding="utf-8").splitlines()
# Horovod hands the arguments on to a function that takes none.
NAMED_ONLY_THERE = {"torch.shutdown(*args, **kwargs)", "torch.elastic.shutdown(*args, **kwargs)"}


def test_names_arguments_and_defaults_are_those_of_horovod():
    assert set(RECORDED) - set(signatures("phalanx.horovod")) == NAMED_ONLY_THERE
