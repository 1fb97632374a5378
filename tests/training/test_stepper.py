"""A step against a plain PyTorch loop, on one rank and on several; state out and in; the meta device and fake tensors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from phalanx.collectives import Membership, join
from phalanx.parallel import Mesh
from phalanx.training.checkpoint import newest_good, write
from phalanx.training.errors import CheckpointMismatch
from phalanx.training.randomness import seed_of, seeded
from phalanx.training.stepper import PHASES, Stepper, build_stepper
from tests.training import small_model
from tests.training.small_model import CLIP, RATE, STEPS, count, global_batch, make_model, make_optimizer, share
from tests.training.values import make_manifest, make_plan
from tests.training.workers import run_script

REPOSITORY = Path(__file__).parents[2]


def plain_loop(rows: int) -> tuple[list[float], list[float], dict[str, torch.Tensor]]:
    """What a person would write for one process: mean loss of the whole batch, torch's clipping, torch's AdamW."""
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    losses, norms = [], []
    for step in range(STEPS):
        batch = global_batch(step, rows)
        optimizer.zero_grad()
        logits = model(batch["tokens"])
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), batch["targets"].reshape(-1), ignore_index=-100)
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)))
        optimizer.param_groups[0]["lr"] = RATE * (1.0 - step / STEPS)
        optimizer.step()
        losses.append(loss.item())
    return losses, norms, dict(model.state_dict())


@pytest.mark.parametrize(("size", "rows"), [(1, 7), (2, 7), (3, 7), (3, 2)])
def test_any_number_of_ranks_does_what_one_plain_loop_does(size, rows, tmp_path, monkeypatch):
    """7 rows on 2 or 3 ranks: unequal rows and very unequal predicted tokens; 2 rows on 3 ranks: one has none."""
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}")
    outputs = [
        json.loads(output) for output in run_script(Path(small_model.__file__), size, tmp_path, str(rows), "0.0")
    ]
    losses, norms, parameters = plain_loop(rows)
    for output in outputs:
        assert output["losses"] == pytest.approx(losses, rel=1e-5)
        assert output["norms"] == pytest.approx(norms, rel=1e-4)
        assert output["parameters"] == outputs[0]["parameters"], "all ranks hold the same bits"
    for name in ("embedding.weight", "mix.weight", "mix.bias"):
        torch.testing.assert_close(
            torch.tensor(outputs[0]["parameters"][f"model.{name}"]), parameters[name], rtol=1e-4, atol=1e-5
        )


def alone(dropout: float = 0.0, **plan: object) -> Stepper:
    mesh = Mesh.of(make_plan().mesh, join(Membership()))
    return build_stepper(lambda: make_model(dropout), make_optimizer, make_plan(**plan), mesh)


def step(stepper: Stepper, number: int, micro_batch: int = 2, rows: int = 6) -> float:
    batch = global_batch(number, rows)
    totals = stepper.forward_backward(seeded(share(batch, 0, 1, micro_batch), 9, number, 0), count(batch))
    stepper.clip(CLIP)
    stepper.update()
    return float(totals.loss_sum)


@pytest.mark.parametrize("micro_batch", [1, 2, 4, 6, 100])
def test_the_size_of_the_micro_batch_does_not_matter(micro_batch):
    one, other = alone(), alone()
    for number in range(3):
        assert step(other, number, micro_batch) == pytest.approx(step(one, number, 6), rel=1e-5)


def test_gradients_stay_views_of_the_flat_buffer():
    stepper = alone()
    step(stepper, 0)
    (flat,) = stepper.gradients.buffers
    begin, end = flat.data_ptr(), flat.data_ptr() + flat.numel() * 4
    for parameter in stepper.module.parameters():
        assert parameter.grad is not None
        assert begin <= parameter.grad.data_ptr() < end
        assert parameter.grad.data_ptr() % 64 == 0


def test_every_phase_is_timed_anew_each_step():
    stepper = alone()
    step(stepper, 0)
    first = dict(stepper.times)
    assert set(first) == set(PHASES)
    assert all(first[phase] > 0 for phase in ("forward", "backward", "optimizer"))


def test_state_goes_through_a_checkpoint_and_training_goes_on_bit_for_bit(tmp_path):
    """Dropout on: the draws of a step depend on the step, not on what was drawn before."""
    straight = alone(dropout=0.3)
    expected = [step(straight, number) for number in range(6)]
    first = alone(dropout=0.3)
    assert [step(first, number) for number in range(3)] == expected[:3]
    write(tmp_path / "c", make_manifest(3), first.state(), {}, 1)
    torch.rand(17)  # whatever else drew random numbers in the meantime
    resumed = alone(dropout=0.3)
    step(resumed, 5)  # a state that must be replaced entirely
    found = newest_good(tmp_path / "c").checkpoint
    assert found is not None
    resumed.load(found)
    assert [step(resumed, number) for number in range(3, 6)] == expected[3:]
    for one, other in zip(straight.state(), resumed.state(), strict=True):
        assert one.name == other.name
        assert torch.equal(one.tensor, other.tensor)


def test_a_shared_parameter_is_kept_once():
    stepper = alone()
    step(stepper, 0)
    names = [piece.name for piece in stepper.state()]
    assert "model.embedding.weight" in names
    assert not any("head" in name for name in names)
    assert "optimizer.embedding.weight.exp_avg" in names
    assert "model.scale" in names


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    stepper = alone()
    pieces = [piece for piece in stepper.state() if piece.name != "model.mix.bias"]
    made = write(tmp_path / "c", make_manifest(1), pieces, {}, 1)
    with pytest.raises(CheckpointMismatch, match=r"only one of the two has mix\.bias"):
        alone().load(made)


def test_dropout_differs_between_steps_ranks_and_micro_batches():
    places = [(step, rank, i) for step in range(3) for rank in range(3) for i in range(3)]
    assert len({seed_of(1, *place) for place in places} | {seed_of(2, *place) for place in places}) == 2 * len(places)


@pytest.mark.parametrize("kind", ["meta", "fake"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_planner_can_run_a_whole_step_without_numbers(kind, precision):
    class Abstract(small_model.SmallModel):
        def loss(self, batch):
            logits, targets = self(batch["tokens"]).flatten(0, 1), batch["targets"].flatten()
            return F.cross_entropy(logits, targets, reduction="sum"), targets.numel()

    plan = make_plan(precision=precision)
    device = "meta" if kind == "meta" else "cpu"

    def trace() -> Stepper:
        stepper = build_stepper(Abstract, make_optimizer, plan, Mesh.imagined(plan.mesh), device)
        batch = {name: torch.zeros(4, 12, dtype=torch.int64, device=device) for name in ("tokens", "targets")}
        stepper.forward_backward([batch, batch], 96)
        stepper.clip(1.0)
        stepper.update()
        return stepper

    if kind == "meta":
        assert all(piece.tensor.is_meta for piece in trace().state() if piece.tensor.dim())
    else:
        with FakeTensorMode():
            assert all(isinstance(piece.tensor, FakeTensor) for piece in trace().state())


def test_bf16_computes_in_bf16_and_keeps_parameters_and_gradients_in_fp32():
    seen: list[torch.dtype] = []
    stepper = alone(precision="bf16")
    assert isinstance(stepper.module, small_model.SmallModel)
    stepper.module.mix.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    full = alone()
    assert step(stepper, 0) == pytest.approx(step(full, 0), rel=2e-2)
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in stepper.module.parameters()} == {torch.float32}
    assert {flat.dtype for flat in stepper.gradients.buffers} == {torch.float32}


def test_evaluation_leaves_out_dropout_and_leaves_the_model_in_training():
    stepper = alone(dropout=0.5)
    batches = share(global_batch(0, 6), 0, 1, 2)
    first, again, undropped = (
        [torch.cat(kind) for kind in zip(*each.evaluate(batches), strict=True)] for each in (stepper, stepper, alone())
    )
    assert len(first[0]) == count(global_batch(0, 6))
    for one, other, third in zip(first, again, undropped, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, third)
    assert not first[0].requires_grad
    assert stepper.module.training
