"""May it run? Gate 1 asks before planning, gate 2 after it. No torch."""

from phalanx.admission.gate1 import gate_1, unlearnable
from phalanx.admission.gate2 import gate_2

__all__ = ["gate_1", "gate_2", "unlearnable"]
