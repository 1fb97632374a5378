"""Our writer against the reader of the safetensors library."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from phalanx.training import tensorfile

shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.tuples(shapes, st.sampled_from(list(tensorfile.DTYPES)))))
def test_the_library_reads_what_is_written(tmp_path_factory, layout):
    if "__metadata__" in layout:
        return
    generator = torch.Generator().manual_seed(0)
    tensors = {
        key: torch.randint(-1 if dtype.is_signed else 0, 2, shape, generator=generator).to(dtype)
        for key, (shape, dtype) in layout.items()
    }
    path = tmp_path_factory.mktemp("t") / "x.safetensors"
    digests = tensorfile.write(path, tensors)
    read = load_file(path)
    assert read.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert read[key].dtype == tensor.dtype
        assert torch.equal(read[key], tensor)
        assert digests[key] == hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def test_a_view_that_is_not_contiguous_is_written_in_row_major_order(tmp_path):
    tensor = torch.arange(12.0).reshape(3, 4).t()[1:]
    tensorfile.write(tmp_path / "x", {"t": tensor})
    assert torch.equal(load_file(tmp_path / "x")["t"], tensor)


def test_an_existing_file_is_not_overwritten(tmp_path):
    (tmp_path / "x").write_text("mine")
    with pytest.raises(FileExistsError):
        tensorfile.write(tmp_path / "x", {})
    assert (tmp_path / "x").read_text() == "mine"
