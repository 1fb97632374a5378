"""A mesh is only made of a group of its own size, along axes that are carried out."""

from __future__ import annotations

from pathlib import Path

import pytest

from phalanx.collectives import Group, Membership
from phalanx.job import MeshSpec
from phalanx.parallel import Mesh, MeshMismatch


def group(size: int, rank: int = 0) -> Group:
    return Group(Membership(rank=rank, size=size, local_size=size, rendezvous=Path("unused")), None)


def test_the_data_axis_is_the_whole_group():
    mesh = Mesh.of(MeshSpec(data=3), group(3, rank=2))
    assert (mesh.data_rank, mesh.data_size) == (2, 3)


def test_a_group_of_another_size_is_refused():
    with pytest.raises(MeshMismatch, match="4 workers, the group 3"):
        Mesh.of(MeshSpec(data=4), group(3))


@pytest.mark.parametrize("axis", ["shard", "tensor", "pipeline"])
def test_an_axis_that_is_not_carried_out_is_refused(axis):
    with pytest.raises(MeshMismatch, match="only the data axis"):
        Mesh.of(MeshSpec(data=2, **{axis: 2}), group(4))


def test_an_imagined_mesh_needs_nobody():
    mesh = Mesh.imagined(MeshSpec(data=64))
    assert (mesh.data_rank, mesh.data_size, mesh.shape.data) == (0, 1, 64)
