"""Checkpoints: what is written comes back, what is damaged is named, and no crash loses the previous one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from phalanx.foundation import DiskFull, ReadOnly
from phalanx.training import checkpoint
from phalanx.training.checkpoint import Checkpoint, Piece, newest_good, set_aside
from phalanx.training.errors import CheckpointDamaged, CheckpointMismatch
from phalanx.training.manifest import PieceEntry, TensorEntry
from tests.training.values import make_manifest


def tensors(step: int, size: int = 50) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {
        "model.a.weight": torch.randn(size, 4, generator=generator),
        "model.b": torch.randn(7, generator=generator).to(torch.bfloat16),
        "optimizer.a.weight.exp_avg": torch.randn(size, 4, generator=generator),
        "optimizer.a.weight.step": torch.tensor(float(step)),
    }


def write(root: Path, step: int, *, keep: int = 2, size: int = 50) -> Checkpoint:
    root.parent.mkdir(parents=True, exist_ok=True)
    companion = root.parent / "tokenizer.json"
    companion.write_text('{"a": 1}')
    pieces = [Piece.whole(name, tensor) for name, tensor in tensors(step, size).items()]
    return checkpoint.write(root, make_manifest(step), pieces, {"tokenizer.json": companion}, keep)


def assert_sound(found: Checkpoint, size: int = 50) -> None:
    for name, expected in tensors(found.manifest.step, size).items():
        got = found.read_slice(name, (0,) * expected.dim(), tuple(expected.shape))
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected), name


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def test_what_is_written_comes_back(root):
    write(root, 100)
    found = newest_good(root)
    assert found.checkpoint is not None
    assert not found.damaged
    assert found.checkpoint.manifest.step == found.checkpoint.manifest.data_cursor == 100
    assert_sound(found.checkpoint)
    assert (found.checkpoint.path / "tokenizer.json").read_text() == '{"a": 1}'


def test_the_weights_are_one_file_that_others_can_read(root):
    path = write(root, 1).path
    assert torch.equal(load_file(path / "model.safetensors")["a.weight"], tensors(1)["model.a.weight"])


def test_nothing_there_is_nothing_found(root):
    assert newest_good(root).checkpoint is None
    root.mkdir()
    assert newest_good(root).checkpoint is None


def test_the_newest_are_kept_and_older_ones_deleted(root):
    for step in (1, 2, 3, 4):
        write(root, step, keep=2)
    assert sorted(path.name for path in root.iterdir()) == ["step-00000003", "step-00000004"]


def damage(path: Path, how: str) -> None:
    file = path / {"manifest": "manifest.json", "companion": "tokenizer.json"}.get(how.split()[0], "model.safetensors")
    data = bytearray(file.read_bytes())
    if "missing" in how:
        file.unlink()
    elif "cut" in how:
        file.write_bytes(data[: len(data) // 2])
    elif "empty" in how:
        file.write_bytes(b"")
    else:
        data[-3] ^= 1
        file.write_bytes(data)


@pytest.mark.parametrize(
    "how",
    [
        *("tensor bit", "tensor cut", "tensor missing", "tensor empty"),
        *("manifest bit", "manifest cut", "manifest missing"),
        *("companion bit", "companion missing"),
    ],
)
def test_a_damaged_newest_is_named_and_the_previous_used(root, how, caplog):
    write(root, 1)
    newest = write(root, 2)
    damage(newest.path, how)
    found = newest_good(root)
    assert found.checkpoint is not None
    assert found.checkpoint.manifest.step == 1
    assert_sound(found.checkpoint)
    assert [error.where for error in found.damaged] == [str(newest.path)]
    assert str(newest.path) in caplog.text


def test_a_tensor_that_was_added_is_named(root):
    path = write(root, 1).path
    file = path / "model.safetensors"
    save_file(load_file(file) | {"c.more": torch.zeros(3)}, file)
    with pytest.raises(CheckpointDamaged, match=r"model\.safetensors holds c\.more"):
        Checkpoint.open(path)


def test_every_single_altered_byte_is_noticed(root):
    path = write(root, 1, size=2).path
    for file in sorted(path.iterdir()):
        data = file.read_bytes()
        for place in range(len(data)):
            altered = bytearray(data)
            altered[place] ^= 0x20
            file.write_bytes(altered)
            try:
                opened = Checkpoint.open(path)
            except CheckpointDamaged:
                continue
            finally:
                file.write_bytes(data)
            assert file.suffix == ".safetensors", f"{file.name}, byte {place}"  # a name in the header's metadata
            assert_sound(opened, size=2)


def test_damaged_ones_are_set_aside_and_do_not_push_out_good_ones(root):
    write(root, 1)
    newest = write(root, 2)
    damage(newest.path, "tensor bit")
    set_aside(newest_good(root))
    assert (root / "step-00000002.damaged").is_dir()
    write(root, 3, keep=2)
    assert sorted(path.name for path in root.iterdir()) == ["step-00000001", "step-00000002.damaged", "step-00000003"]
    write(root, 4, keep=2)
    assert sorted(path.name for path in root.iterdir()) == ["step-00000003", "step-00000004"]


def test_a_damaged_one_is_replaced_when_its_step_comes_again(root):
    damage(write(root, 2).path, "tensor bit")
    assert_sound(write(root, 2))
    assert [path.name for path in root.iterdir()] == ["step-00000002"]


def test_a_box_of_a_tensor_in_several_pieces_is_put_together(root):
    whole = torch.arange(24.0).reshape(4, 6)
    made = checkpoint.write(root, make_manifest(1), [Piece.whole("model.x", whole)], {}, 1)
    parts = {"p0": whole[:3, :4], "p1": whole[:3, 4:], "p2": whole[3:, :]}
    digests = checkpoint.tensorfile.write(made.path / "parts.safetensors", parts)
    offsets = {"p0": (0, 0), "p1": (0, 4), "p2": (3, 0)}
    pieces = tuple(
        PieceEntry(file="parts.safetensors", key=key, offset=offsets[key], shape=tuple(part.shape), sha256=digests[key])
        for key, part in parts.items()
    )
    entry = TensorEntry(dtype="F32", global_shape=(4, 6), pieces=pieces)
    opened = Checkpoint(made.path, made.manifest.model_copy(update={"tensors": {"model.x": entry}}))
    for top in range(4):
        for left in range(6):
            for height in range(1, 5 - top):
                for width in range(1, 7 - left):
                    got = opened.read_slice("model.x", (top, left), (height, width))
                    assert torch.equal(got, whole[top : top + height, left : left + width])


def test_a_tensor_of_another_shape_or_name_is_a_mismatch(root):
    made = write(root, 1)
    with pytest.raises(CheckpointMismatch, match=r"model\.a\.weight has shape \[50, 4\], not \[50, 5\]"):
        made.read_slice("model.a.weight", (0, 0), (50, 5))
    with pytest.raises(CheckpointMismatch, match="not"):
        made.read_slice("model.a.weight", (0,), (50,))
    with pytest.raises(CheckpointMismatch, match=r"no tensor model\.zzz"):
        made.shape("model.zzz")


# ---- crashes and faults

CALLS = ("open", "write", "fsync", "mkdir", "rename", "unlink", "rmdir")


def kill_at(call_number: int) -> None:
    """Let this process be killed just before its n-th call of those that change files; a write gets half done."""
    left = [call_number]

    def trap(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: object, **options: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                if name == "write":
                    descriptor, data = arguments
                    real(descriptor, bytes(data)[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        setattr(os, name, call)

    for name in CALLS:
        trap(name)


def test_kill_9_before_every_call_leaves_a_good_checkpoint(tmp_path):
    """The writer is killed at its 1st, 2nd, ... change to the disk, while it replaces and deletes older ones."""
    template = tmp_path / "template" / "checkpoints"
    write(template, 1, keep=2)
    write(template, 2, keep=2)
    damage(write(template, 3, keep=3).path, "tensor bit")  # will be replaced
    outcomes = []
    for number in range(1, 1000):
        root = tmp_path / str(number) / "checkpoints"
        shutil.copytree(template, root)
        child = os.fork()
        if child == 0:
            kill_at(number)
            write(root, 3, keep=1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        found = newest_good(root)
        assert found.checkpoint is not None, number
        assert_sound(found.checkpoint)
        outcomes.append(found.checkpoint.manifest.step)
        write(root, 4, keep=1)
        assert [path.name for path in root.iterdir()] == ["step-00000004"], "the next writer cleans up"
        shutil.rmtree(root.parent)
        if not os.WIFSIGNALED(status):
            break
    assert outcomes == sorted(outcomes), "once the new one is there, it stays"
    assert outcomes[0] == 2
    assert outcomes[-1] == 3
    assert len(outcomes) > 30, "the faults were injected"


def test_a_disk_that_fails_at_any_call_gives_one_error_and_keeps_what_was_good(tmp_path, monkeypatch):
    for number in range(1, 1000):
        root = tmp_path / str(number) / "checkpoints"
        write(root, 1)
        left = [number]

        def failing(name, left=left):
            real = getattr(os, name)

            def call(*arguments, **options):
                left[0] -= 1
                if left[0] == 0:
                    raise OSError(28, "No space left on device")
                return real(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for name in ("open", "write", "fsync", "mkdir", "rename"):
                patch.setattr(os, name, failing(name))
            try:
                write(root, 2)
            except DiskFull:
                failed = True
            else:
                failed = False
        found = newest_good(root)
        assert found.checkpoint is not None
        assert not found.damaged
        assert_sound(found.checkpoint)
        if not failed:
            assert found.checkpoint.manifest.step == 2
        if left[0] > 0:  # every call has had its turn
            break
    assert number > 10


@pytest.fixture
def small_disk(mount_disk: Callable[[str], Path]) -> Path:
    return mount_disk("256k")


@pytest.mark.root
def test_a_really_full_disk(small_disk):
    root = small_disk / "checkpoints"
    write(root, 1, size=1000)
    with pytest.raises(DiskFull, match="the disk is full") as caught:
        write(root, 2, size=20_000)
    assert "step-00000002" in str(caught.value)
    assert [path.name for path in root.iterdir()] == ["step-00000001"]
    assert_sound(Checkpoint.open(root / "step-00000001"), size=1000)


@pytest.mark.root
def test_a_really_read_only_disk(small_disk):
    root = small_disk / "checkpoints"
    write(root, 1, size=1000)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    (small_disk.parent / "tokenizer.json").write_text("{}")
    pieces = [Piece.whole(name, tensor) for name, tensor in tensors(2).items()]
    with pytest.raises(ReadOnly, match="cannot be written"):
        checkpoint.write(root, make_manifest(2), pieces, {}, 2)
    assert_sound(Checkpoint.open(root / "step-00000001"), size=1000)
