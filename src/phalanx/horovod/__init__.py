"""May I keep my script? What Horovod 0.28.1 gives to scripts, on `phalanx.collectives`. Loads no torch by itself.

`import phalanx.horovod.torch as hvd`; under `phalanx horovodrun` also by its old name, `import horovod.torch as hvd`.
"""

from __future__ import annotations

from phalanx.horovod.runner import run
from phalanx.horovod.version import __version__

__all__ = ["__version__", "run"]
