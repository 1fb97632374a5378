"""Phalanx trains models across many machines, and guards the machines they train on."""

__version__ = "0.1.0"
