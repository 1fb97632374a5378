"""What can be wrong with what a metric is fed.

MetricError         exit 2   of `foundation.UsageError`; a ValueError too, as numerical Python expects
├── BadInput                 labels, scores or weights that cannot be meant
└── DifferentDefinition      states of two metrics that do not merge
"""

from __future__ import annotations

from phalanx.foundation import UsageError


class MetricError(UsageError, ValueError):
    """A metric cannot be computed of this."""


class BadInput(MetricError):
    """What was given is not what the metric is defined on."""


class DifferentDefinition(MetricError):
    """Two states of other metrics, or of the same with other settings."""
