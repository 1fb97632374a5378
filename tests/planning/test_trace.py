"""The traced memory and arithmetic of a step, beside what is counted by hand and what torch itself says it keeps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from phalanx.planning.trace import Recorder, StepTrace, Subject, trace_step
from tests.training.values import make_plan

WIDTH, DEEP, CLASSES = 128, 512, 32


class Network(nn.Module):
    """Two layers whose memory one can count: 2 x WIDTH x DEEP weights, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, DEEP, bias=False)
        self.second = nn.Linear(DEEP, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, CLASSES, bias=False)

    def loss(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
        hidden = self.second(torch.relu(self.first(batch["inputs"])))
        targets = batch["targets"]
        return F.cross_entropy(self.head(hidden), targets, reduction="sum"), targets.shape[0]


PARAMETERS = 2 * WIDTH * DEEP + WIDTH * CLASSES


def batch(rows: int) -> dict[str, torch.Tensor]:
    return {"inputs": torch.zeros(rows, WIDTH), "targets": torch.zeros(rows, dtype=torch.int64)}


def adamw(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(module.parameters())


def sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters())


def traced(rows: int, optimizer: object = adamw, **changes: object) -> StepTrace:
    plan = make_plan(1, changes.pop("global_batch", rows), rows, **changes)
    return trace_step(Subject(Network, optimizer, batch), plan)  # type: ignore[arg-type]


def test_parameters_and_gradients_are_those_one_counts_by_hand() -> None:
    trace = traced(4)
    assert trace.count == PARAMETERS
    assert trace.parameters == 4 * PARAMETERS
    assert 4 * PARAMETERS <= trace.gradients <= 4 * PARAMETERS + 256  # four scalars ride along
    assert trace.buffers == trace.gradients


def test_adamw_keeps_two_numbers_a_parameter_and_a_count_a_tensor() -> None:
    assert traced(4).optimizer == 2 * 4 * PARAMETERS + 3 * 4
    assert traced(4, sgd).optimizer == 0


def test_a_checkpoint_holds_the_model_and_its_optimizer() -> None:
    assert traced(4).kept == 3 * 4 * PARAMETERS + 3 * 4
    assert traced(4, sgd).kept == 4 * PARAMETERS


def test_arithmetic_is_two_a_weight_forward_and_four_backward() -> None:
    rows = 16
    # The gradient of the inputs is not needed, so the first layer has only one product backward.
    expected = 2 * rows * (3 * PARAMETERS - WIDTH * DEEP)
    assert traced(rows).micro_batch_flops == expected


def test_activations_are_at_least_what_autograd_saves_and_not_much_more() -> None:
    rows = 4096
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    module = Network()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss, _ = module.loss(batch(rows))
    parameters = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept = sum(size for key, size in saved.items() if key not in parameters)
    assert loss.requires_grad
    largest = 4 * rows * DEEP  # of the gradients that backward makes on its way, two at a time
    assert kept <= traced(rows).activations <= kept + 2 * largest + 4 * PARAMETERS


def test_twice_the_rows_take_twice_the_activations() -> None:
    small, large = traced(2048).activations, traced(4096).activations
    assert large / small == pytest.approx(2, rel=0.02)


def test_micro_batches_that_wait_are_counted() -> None:
    one, many = traced(1024), traced(1024, global_batch=10 * 1024)
    waiting = 9 * 1024 * (4 * WIDTH + 8)
    assert many.activations - one.activations == pytest.approx(waiting, rel=0.02)


def test_bf16_halves_what_matrix_products_keep() -> None:
    assert traced(8192, precision="bf16").activations < 0.8 * traced(8192).activations


def test_the_recorder_counts_a_storage_once_from_its_making_to_its_freeing() -> None:
    recorder = Recorder()
    with recorder:
        first = torch.empty(1000, dtype=torch.uint8)
        view = first[10:20]
        second = torch.empty(500, dtype=torch.uint8)
        assert recorder.now == 1500
        del first
        assert recorder.now == 1500  # the view keeps it
        del view
        assert recorder.now == 500
        third = torch.empty(200, dtype=torch.uint8)
    recorder.finish()
    assert recorder.peak == 1500
    assert recorder.bytes_at_peak([second, third]) == 500
