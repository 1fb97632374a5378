"""What Horovod's scripts and tests import from `horovod.runner.util`."""
