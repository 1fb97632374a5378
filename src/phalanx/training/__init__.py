"""Do it: the step, the loop, checkpoints and the worker process. Names are loaded on first use, as torch is slow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phalanx.foundation import lazy_names

if TYPE_CHECKING:
    from phalanx.training.checkpoint import Checkpoint, newest_good
    from phalanx.training.errors import CheckpointDamaged, CheckpointMismatch, Diverged, TrainingError
    from phalanx.training.loading import LoadedModel, OpenedModel, export_model, load_model, open_model
    from phalanx.training.manifest import Manifest
    from phalanx.training.stepper import Stepper, build_stepper

_HOMES = {
    "Checkpoint": "checkpoint",
    "CheckpointDamaged": "errors",
    "CheckpointMismatch": "errors",
    "Diverged": "errors",
    "LoadedModel": "loading",
    "Manifest": "manifest",
    "OpenedModel": "loading",
    "Stepper": "stepper",
    "TrainingError": "errors",
    "build_stepper": "stepper",
    "export_model": "loading",
    "load_model": "loading",
    "newest_good": "checkpoint",
    "open_model": "loading",
}
__all__ = [
    "Checkpoint",
    "CheckpointDamaged",
    "CheckpointMismatch",
    "Diverged",
    "LoadedModel",
    "Manifest",
    "OpenedModel",
    "Stepper",
    "TrainingError",
    "build_stepper",
    "export_model",
    "load_model",
    "newest_good",
    "open_model",
]
__getattr__ = lazy_names(__name__, _HOMES)
