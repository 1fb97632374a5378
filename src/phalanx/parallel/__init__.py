"""How the work is split: a mesh of workers and the splits along its axes. Knows no model and no data."""

from phalanx.parallel.data import DataSplit, Gradients
from phalanx.parallel.mesh import Mesh, MeshMismatch, Problem

__all__ = ["DataSplit", "Gradients", "Mesh", "MeshMismatch", "Problem"]
