"""A worker that is killed by SIGKILL at the n-th write, fsync or rename of its second checkpoint.

python killed_writer.py CALL N <the worker's options>
"""

from __future__ import annotations

import os
import signal
import sys

from phalanx.training import checkpoint, worker


def main() -> None:
    name, number = sys.argv[1], int(sys.argv[2])
    real_write = checkpoint.write
    done = 0

    def write(*arguments, **options):
        nonlocal done
        done += 1
        if done == 2:
            left = [number]
            real = getattr(os, name)

            def call(*call_arguments):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*call_arguments)

            setattr(os, name, call)
        return real_write(*arguments, **options)

    checkpoint.write = write
    worker.main(sys.argv[3:])


main()
