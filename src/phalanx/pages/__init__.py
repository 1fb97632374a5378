"""What does a person see? All HTML. Loads no torch, knows no terminal."""

from phalanx.pages.checkpoint import write_checkpoint_page
from phalanx.pages.dataset import write_dataset_page
from phalanx.pages.predictions import write_predictions_page
from phalanx.pages.report import write_report
from phalanx.pages.rows import Rows

__all__ = ["Rows", "write_checkpoint_page", "write_dataset_page", "write_predictions_page", "write_report"]
