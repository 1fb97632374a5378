"""Plans for jobs whose sizes a benchmark decides itself. Knows nothing of what is measured."""

from __future__ import annotations

from phalanx.job import Job, MemoryPrediction, MeshSpec, Plan, Predicted


def plan_of(job: Job, micro_batch: int) -> Plan:
    """`job` on as many data-parallel workers as it asks for, one thread each; nothing is predicted."""
    training, workers = job.spec.training, job.spec.workers.count
    nothing = MemoryPrediction(parameters=0, gradients=0, optimizer=0, activations=0)
    share = -(-training.global_batch // workers)
    return Plan(
        mesh=MeshSpec(data=workers),
        global_batch=training.global_batch,
        micro_batch=min(micro_batch, share),
        accumulation=-(-share // min(micro_batch, share)),
        precision="bf16" if training.precision == "bf16" else "fp32",
        predicted=Predicted(memory=nothing, step_seconds=0, flops=0, checkpoint_bytes=0, parameters=0),
    )
