"""Every way in which training can fail, other than a lost peer (`collectives`) or a full disk (`foundation`).

TrainingError
├── CheckpointDamaged       a checkpoint is torn, altered or of another schema
├── CheckpointMismatch      a sound checkpoint of another model
└── Diverged                the loss or the gradient is no longer a number
"""

from __future__ import annotations

from phalanx.foundation import PhalanxError


class TrainingError(PhalanxError):
    """Training cannot go on."""


class CheckpointDamaged(TrainingError):
    """What was found differs from what was written; `where` names the checkpoint."""


class CheckpointMismatch(TrainingError):
    """The checkpoint's tensors are not those of the model that is to be loaded."""


class Diverged(TrainingError):
    """The loss or the gradient norm became infinite or not a number."""
