"""Builds inside this process, where the test is not about processes."""

from tests.data.build.corpora import in_process

__all__ = ["in_process"]
