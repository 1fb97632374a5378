"""Starts the processes of a Horovod job: here, and over ssh on other hosts. Loads no torch."""
