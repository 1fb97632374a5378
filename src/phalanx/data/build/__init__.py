"""From text of any size to a dataset on disk: filtered, without duplicates, tokenized, in bounded memory, resumable.

`build(BuildOptions(...), out)` is what `phalanx data build` does.
"""

from phalanx.data.build.building import Built, build
from phalanx.data.build.options import BuildOptions, Filters, TrainTokenizer
from phalanx.data.build.pool import WorkerLost

__all__ = ["BuildOptions", "Built", "Filters", "TrainTokenizer", "WorkerLost", "build"]
