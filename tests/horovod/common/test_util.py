"""What scripts import from `horovod.common.util`."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.horovod.common import util

OPS = SimpleNamespace(Average=0, Sum=1)


@given(st.lists(st.integers()), st.integers(1, 20))
def test_pieces_of_a_list_are_consecutive_and_of_nearly_one_size(values, pieces):
    split = util.split_list(values, pieces)
    assert [value for piece in split for value in piece] == values
    sizes = [len(piece) for piece in split]
    assert len(sizes) == pieces
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) - min(sizes) <= 1


def test_variables_are_set_for_a_block_and_then_what_they_were(monkeypatch):
    monkeypatch.setenv("PHALANX_TEST_A", "before")
    monkeypatch.delenv("PHALANX_TEST_B", raising=False)
    with util.env(PHALANX_TEST_A="within", PHALANX_TEST_B="new", PHALANX_TEST_C=None):
        assert (os.environ["PHALANX_TEST_A"], os.environ["PHALANX_TEST_B"]) == ("within", "new")
        assert "PHALANX_TEST_C" not in os.environ
        del os.environ["PHALANX_TEST_B"]  # by the block itself
    assert os.environ["PHALANX_TEST_A"] == "before"
    assert "PHALANX_TEST_B" not in os.environ


def test_average_is_said_in_the_old_way_or_the_new_but_not_both():
    chosen = util.get_average_backwards_compatibility_fun(OPS)
    assert chosen(None, None) == OPS.Average
    assert chosen(4, None) == 4
    with pytest.warns(DeprecationWarning, match="average"):
        assert chosen(None, False) == OPS.Sum
    with pytest.warns(DeprecationWarning, match="average"):
        assert chosen(None, True) == OPS.Average
    with pytest.raises(ValueError, match="supersedes"):
        chosen(OPS.Sum, True)


def test_powers_of_two():
    assert [ranks for ranks in range(-2, 20) if util.num_rank_is_power_2(ranks)] == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    ("version", "target", "expected"),
    [
        ("2.13.0+cpu", "2.11.0", True),
        ("2.9.1", "2.11.0", False),
        ("2.11.0", "2.11.0", True),
        ("2.11.0a0+git1", "2.11.0", False),
    ],
)
def test_versions_compare_by_number(version, target, expected):
    assert util.is_version_greater_equal_than(version, target) is expected


@pytest.mark.parametrize(("version", "target"), [(2.13, "2.11.0"), ("2.13.0", 2), ("2.13.0", "2.11")])
def test_what_is_no_version_is_refused(version, target):
    with pytest.raises(ValueError, match=r"string|major\.minor\.patch"):
        util.is_version_greater_equal_than(version, target)


def test_only_pytorch_is_there():
    assert util.extension_available("torch")
    assert not util.extension_available("tensorflow", verbose=True)
    util.check_extension("horovod.torch", "HOROVOD_WITH_PYTORCH", __file__, "mpi_lib_v2")
    with pytest.raises(ImportError, match="PyTorch only"):
        util.check_extension("horovod.tensorflow", "HOROVOD_WITH_TENSORFLOW", __file__, "mpi_lib")
    assert util.get_extension_full_path("/there/__init__.py", "lib", "it").startswith("/there/lib/it.")


def test_what_this_build_can_do():
    import torch

    assert util.gloo_built()
    assert not util.mpi_built(verbose=True)
    assert not util.ddl_built()
    assert not util.ccl_built()
    assert bool(util.nccl_built()) is torch.distributed.is_nccl_available()
    assert util.gpu_available("torch") is torch.cuda.is_available()
    assert not util.gpu_available("mxnet")


def test_a_cached_function_is_called_once():
    calls = []
    cached = util._cache(lambda: calls.append(1) or len(calls))
    assert (cached(), cached(), calls) == (1, 1, [1])


def test_what_can_be_iterated():
    assert util.is_iterable([])
    assert util.is_iterable("")
    assert not util.is_iterable(1)


def test_torch_is_not_loaded_by_it():
    code = "import sys, phalanx.horovod.common.util as util; util.extension_available('torch'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_scripts_find_the_check_of_extensions_where_horovod_has_it():
    import phalanx.horovod.torch as hvd

    assert hvd.check_extension is util.check_extension
