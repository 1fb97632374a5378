"""The first job file that `phalanx job init` writes: complete, runnable here, every line explained."""

from __future__ import annotations

from phalanx.foundation import check_name

_TEXT = """\
# A training job: `phalanx job validate FILE` checks it, `phalanx run FILE` runs it to its report.
# Every key, its type and its limits: `phalanx job schema`.
apiVersion: phalanx.dev/v1alpha1
kind: TrainingJob

metadata:
  # Letters a-z, digits and '-'; unique in its namespace, which is the team that the job belongs to.
  name: {name}
  namespace: default

spec:
  model:
    name: decoder          # or bert-tiny, with masked-lm
    objective: causal-lm   # predict the next token; masked-lm: predict hidden ones
    # dropout: 0.1         # left out: the model's own

  data:
    source: stdlib-source  # Python's own library as text; or stdlib-docs, or the path of a file or directory
    sequenceLength: 256    # tokens
    vocabulary:
      kind: bytes          # no training needed; bpe or wordpiece learn `size` pieces from the training files
      # size: 4096
    heldOut: 0.05          # share of the files kept for validation, never trained on

  training:
    steps: 300
    globalBatch: 32        # sequences a step, over all workers together
    microBatch: auto       # sequences a worker holds at once; auto: the planner finds it
    precision: auto        # fp32, bf16, or what is faster on this machine
    optimizer:
      name: adamw          # or muon, sgd
      lr: 1.0e-3
      weightDecay: 0.01    # decoupled from the gradient; l2 and l1 are penalties, which are a part of it
    schedule:
      name: cosine         # constant, linear, cosine, trapezoid
      warmup: 20           # steps
      floor: 0.1           # the last learning rate, as a share of lr
    clip: 1.0              # largest gradient norm; null: no clipping
    seed: 0                # the same seed gives the same run
    checkpointEvery: 100   # steps
    keepCheckpoints: 2
    evaluateEvery: 50      # steps between losses on held-out data

  workers:
    count: 2               # processes; more than the machine has cores is slower, not wrong
    strategy: auto         # how they share the work; or give it by axis: mesh: {{data: 2}}
    maxRestarts: 3         # relaunches from the last checkpoint before the job fails

  security:                # auto: the strongest there is, and the report says which
    isolation: auto
    network: auto
    integrity: auto
"""


def template(name: str = "my-first-job") -> str:
    """A job file with comments, for a job called `name`. Raises ValueError when that is not a label."""
    return _TEXT.format(name=check_name(name))
