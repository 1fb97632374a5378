"""How good, exactly: mergeable states. Knows neither ranks nor SQL."""

from phalanx.metrics.states import BitsPerByte, MeanLoss, TopK
from phalanx.metrics.sums import ExactSum

__all__ = ["BitsPerByte", "ExactSum", "MeanLoss", "TopK"]
