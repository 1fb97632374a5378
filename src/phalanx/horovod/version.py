"""Which Horovod's behaviour this is."""

__version__ = "0.28.1"
