"""Every verb, where its command lives, and the line that `phalanx --help` prints for it.

`--help` reads this table and imports no verb; a test compares each summary with the command's own.
A new verb is one file and one line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

VERBS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "run": ("phalanx.cli.run:command", "Run a job to its report"),
        "resume": ("phalanx.cli.resume:command", "Go on with a job that was stopped or cut off"),
        "stop": ("phalanx.cli.stop:command", "Checkpoint a running job and stop it"),
        "get": ("phalanx.cli.get:command", "List jobs with their phase"),
        "describe": ("phalanx.cli.describe:command", "Show all that is known of a job"),
        "delete": ("phalanx.cli.delete:command", "Stop a job and remove it"),
        "logs": ("phalanx.cli.logs:command", "Show what the workers of a job wrote"),
        "horovodrun": ("phalanx.cli.horovodrun:command", "Run a Horovod script, here or on other hosts"),
        "plan": ("phalanx.cli.plan:command", "Say whether a job fits, and how it would run"),
        "evaluate": (
            "phalanx.cli.evaluate:command",
            "Score a checkpoint beside honest baselines, or judge predictions",
        ),
        "glue": ("phalanx.cli.glue:command", "Fine-tune a model on GLUE's tasks, beside published scores"),
        "compare": ("phalanx.cli.compare:command", "Say whether A is better than B, or it was chance"),
        "generate": ("phalanx.cli.generate:command", "Write text with a trained decoder"),
        "export": ("phalanx.cli.export:command", "Write a trained model as Hugging Face's files"),
        "translate": ("phalanx.cli.translate:command", "Translate sentences with a trained translator"),
        "attention": ("phalanx.cli.attention:command", "Show what a model looks at, head by head"),
        "events": ("phalanx.cli.events:command", "Query what happened, during a run or after it"),
        "timeline": ("phalanx.cli.timeline:command", "Write what each rank did when, for Perfetto"),
        "data": ("phalanx.cli.data:command", "Build datasets from text of any size, and look into them"),
        "job": ("phalanx.cli.job:command", "Write and check job files"),
        "doctor": ("phalanx.cli.doctor:command", "Say what this machine has and lacks"),
        "version": ("phalanx.cli.version:command", "Print the versions of Phalanx and of what it stands on"),
    }
)
