"""Tokens/s of BERT-Tiny against Hugging Face Trainer with length grouping: 2 processes, fp32, real tokens only.

Both train the same model on the same documents, tokens and tokens a step. The peer puts one document in
a row and pads; we pack. Each side first chooses its micro-batch among a few, by a short job. The loss on
the same batch must be the same, else nothing is measured.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.documents import documents_of
from benchmarks.harness import Comparison, MissingData, Options, Side, compare
from benchmarks.jobs import plan_of
from benchmarks.ranks import Window, padding_share, run_ranks, tokens_per_cpu_second, tokens_per_second
from phalanx.data import Corpus, Loader, LoaderSpec, prepare
from phalanx.job import Job, OptimizerSpec, ScheduleSpec, TrainingSpec, VocabularySpec, WorkersSpec, read_job
from phalanx.models import ModelConfig, resolve
from phalanx.models.published import settings_of

EXAMPLE = Path(__file__).parent.parent / "examples" / "jobs" / "bert-tiny.yaml"
PROCESSES = 2
ENTRIES = (4096, 30522)
"""Of the model's vocabulary: one made for the text, and the size of the published BERT."""
WARMUP = 3
TRIAL_STEPS = 5
MICRO_BATCHES = (4, 8, 16, 32)
"""Rows of 128 that a process of ours computes at once."""
ACCUMULATIONS = (1, 2, 4, 8)
"""Parts that a process of the peer computes its share of a step in."""

Progress = Callable[[str], None]


def job_of(entries: int, steps: int, global_batch: int) -> Job:
    """examples/jobs/bert-tiny.yaml with AdamW in fp32, another vocabulary, and these steps only."""
    job = read_job(EXAMPLE)
    training = TrainingSpec(
        steps=steps,
        global_batch=global_batch,
        precision="fp32",
        optimizer=OptimizerSpec(name="adamw", lr=1e-3),
        schedule=ScheduleSpec(name="linear", warmup=0),
        evaluate_every=steps,
        checkpoint_every=steps,
    )
    data = job.spec.data.model_copy(update={"vocabulary": VocabularySpec(kind="wordpiece", size=entries)})
    workers = WorkersSpec(count=PROCESSES)
    return job.model_copy(
        update={"spec": job.spec.model_copy(update={"data": data, "training": training, "workers": workers})}
    )


def peer_arguments(job: Job, documents: int, accumulation: int, scratch: Path) -> dict[str, Any]:
    """TrainingArguments for `documents` a step and process. Nothing is done beside training; what can be faster is."""
    training = job.spec.training
    return {
        "output_dir": str(scratch / "trainer"),
        "use_cpu": True,
        "ddp_backend": "gloo",
        "ddp_find_unused_parameters": False,
        "ddp_broadcast_buffers": False,
        "per_device_train_batch_size": -(-documents // accumulation),
        "gradient_accumulation_steps": accumulation,
        "average_tokens_across_devices": False,
        "train_sampling_strategy": "group_by_length",
        "max_steps": training.steps,
        "optim": "adamw_torch_fused",
        "learning_rate": training.optimizer.lr,
        "weight_decay": training.optimizer.weight_decay,
        "adam_beta1": training.optimizer.betas[0],
        "adam_beta2": training.optimizer.betas[1],
        "max_grad_norm": training.clip,
        "lr_scheduler_type": "linear",
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }


class Contest:
    """Both sides on one corpus and one model."""

    def __init__(self, corpus: Corpus, config: ModelConfig, global_batch: int, scratch: Path) -> None:
        self.corpus, self.config, self.global_batch, self.scratch = corpus, config, global_batch, scratch
        lengths = [len(document) for document in documents_of(corpus, config.sequence_length)]
        self.documents = len(lengths)
        self.documents_per_step = max(1, round(global_batch * config.sequence_length / (sum(lengths) / len(lengths))))
        self.windows: dict[str, list[Window]] = {}  # of each side's last job

    def steps_of_a_round(self) -> int:
        """A whole number of the groups in which the peer sorts by length: a part of one has shorter or longer texts."""
        share = self.documents_per_step // PROCESSES
        return max(1, min(self.documents // (share * 4), 50))  # as transformers' get_length_grouped_indices

    def ours(self, steps: int, micro_batch: int) -> list[Window]:
        job = job_of(self.config.vocabulary_size, WARMUP + steps, self.global_batch)
        orders = {
            "corpus": str(self.corpus.directory),
            "job": job.model_dump(mode="json"),
            "plan": plan_of(job, micro_batch).model_dump(mode="json"),
            "entries": self.config.vocabulary_size,
            "warmup": WARMUP,
            "spool": str(self.scratch / "spool"),
        }
        return self._run("side_phalanx", orders)

    def peer(self, steps: int, accumulation: int) -> list[Window]:
        job = job_of(self.config.vocabulary_size, WARMUP + steps, self.global_batch)
        orders = {
            "corpus": str(self.corpus.directory),
            "model": settings_of(self.config),
            "arguments": peer_arguments(job, self.documents_per_step // PROCESSES, accumulation, self.scratch),
            "sequence_length": self.config.sequence_length,
            "mask_probability": job.spec.data.mask_probability,
            "warmup": WARMUP,
        }
        return self._run("side_trainer", orders)

    def _run(self, side: str, orders: dict[str, object]) -> list[Window]:
        self.windows[side] = run_ranks(side, orders, PROCESSES, self.scratch)
        return self.windows[side]


def fastest(measure: Callable[[int], float], choices: Sequence[int], rounds: int) -> int:
    """The choice with the best of `rounds` measurements, which take turns."""
    best = dict.fromkeys(choices, 0.0)
    for _ in range(rounds):
        for choice in choices:
            best[choice] = max(best[choice], measure(choice))
    return max(best, key=lambda choice: best[choice])


def contest(entries: int, options: Options, progress: Progress, scratch: Path) -> Comparison:
    from benchmarks import same_loss

    global_batch = 16 if options.quick else 64
    job = job_of(entries, 1, global_batch)
    corpus = prepare(job.spec.data, job.spec.model.objective, scratch / "cache")
    config = resolve(job.spec.model.name, entries, job.spec.data.sequence_length)
    loader = Loader(corpus, LoaderSpec.of(job.spec))
    assert corpus.vocabulary.pad_id is not None
    difference = same_loss.check(config, loader.micro_batches(0, 0, 1, 16)[0], corpus.vocabulary.pad_id)
    progress(f"{entries} entries: same weights, same batch: losses differ by {difference:.1e} (relative)")

    both = Contest(corpus, config, global_batch, scratch)
    steps = 4 if options.quick else both.steps_of_a_round()
    if options.quick:
        micro_batch, accumulation = 8, 2
    else:
        # By processor time, which the rest of the machine disturbs least.
        micro_batch = fastest(lambda size: tokens_per_cpu_second(both.ours(TRIAL_STEPS, size)), MICRO_BATCHES, 1)
        accumulation = fastest(lambda parts: tokens_per_cpu_second(both.peer(TRIAL_STEPS, parts)), ACCUMULATIONS, 1)
        progress(f"{entries} entries: our micro-batch {micro_batch} rows, the peer's accumulation {accumulation}")
    used = job_of(entries, WARMUP + steps, global_batch)
    arguments = peer_arguments(used, both.documents_per_step // PROCESSES, accumulation, scratch)
    del arguments["output_dir"]
    ours = Side(
        "phalanx",
        lambda: tokens_per_second(both.ours(steps, micro_batch)),
        {"global_batch": global_batch, "micro_batch": micro_batch, "optimizer": "adamw", "events": "on"},
    )
    peer = Side("transformers Trainer", lambda: tokens_per_second(both.peer(steps, accumulation)), arguments)
    result = compare(
        f"bert-tiny, {entries} entries",
        "tokens/s",
        [ours, peer],
        rounds=options.rounds,
        warmup=0 if options.quick else 1,
        progress=progress,
    )
    packed, padded = both.windows["side_phalanx"], both.windows["side_trainer"]
    notes = {
        "processes": PROCESSES,
        "threads a process": 1,
        "steps that count": steps,
        "entries that the text fills": corpus.vocabulary.size,
        "relative difference of the losses": f"{difference:.1e}",
        "padding": f"{padding_share(packed):.2%} and {padding_share(padded):.2%}",
        "tokens a step": " and ".join(f"{sum(w.tokens for w in windows) // steps:,}" for windows in (packed, padded)),
        "tokens a CPU second (last round)": f"{tokens_per_cpu_second(packed):,.0f} and "
        f"{tokens_per_cpu_second(padded):,.0f}",
    }
    return replace(result, notes=notes)


def run(options: Options, progress: Progress) -> list[Comparison]:
    """One comparison a vocabulary. Raises MissingData without transformers, NotEqual when the losses differ."""
    if importlib.util.find_spec("transformers") is None:
        raise MissingData("needs transformers: `make bench` installs it (requirements/bench.txt)")
    with tempfile.TemporaryDirectory(prefix="phalanx-bench-") as scratch:
        entries = ENTRIES[:1] if options.quick else ENTRIES
        return [contest(size, options, progress, Path(scratch)) for size in entries]
