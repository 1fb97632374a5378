"""The mesh: the workers of a group, arranged along named axes.

Order of axes, slowest first: pipeline, data, shard, tensor. Only `data` is carried out so far, so
the group of the data axis is the whole group. Knows nothing of models.
"""

from __future__ import annotations

from dataclasses import dataclass

from phalanx.collectives import Group, Membership
from phalanx.foundation import PhalanxError
from phalanx.job import MeshSpec


class MeshMismatch(PhalanxError):
    """The plan's mesh and the group that was formed have different sizes, or an axis cannot be carried out."""


@dataclass(frozen=True)
class Problem:
    """Why a split cannot be applied, and what to change."""

    message: str
    remedy: str


@dataclass(frozen=True)
class Mesh:
    """Workers by axis. `group` has all of them."""

    shape: MeshSpec
    group: Group

    @classmethod
    def of(cls, shape: MeshSpec, group: Group) -> Mesh:
        """Raises MeshMismatch when `group` and `shape` differ in size, or an axis is not carried out."""
        if shape.size != shape.data:
            raise MeshMismatch(f"only the data axis is carried out so far, not {shape}", remedy="use mesh: {data: N}")
        if shape.size != group.size:
            raise MeshMismatch(
                f"the plan's mesh has {shape.size} workers, the group {group.size}",
                remedy="start as many workers as the plan says",
            )
        return cls(shape, group)

    @classmethod
    def imagined(cls, shape: MeshSpec) -> Mesh:
        """One worker's view of `shape` with nobody else there: for the planner, which traces a step without a group."""
        return cls(shape, Group(Membership(), None))

    @property
    def data_rank(self) -> int:
        return self.group.rank

    @property
    def data_size(self) -> int:
        return self.group.size
