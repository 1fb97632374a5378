"""Many small tensors as few large ones: one operation costs as much as many bytes.

Elements keep their order of sums, so that a fused reduction is bit for bit that of its tensors one by one.
Knows nothing of ranks, except how many pieces a reducescatter has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch

BUCKET_BYTES = 64 << 20  # where a buffer's allocation and copies begin to cost more than another operation
_ALIGNED = 16  # bytes: every dtype may begin there


def is_plain(tensor: torch.Tensor) -> bool:
    """Its memory is its values in order."""
    return tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()


def buckets(tensors: Sequence[torch.Tensor], limit_bytes: int = BUCKET_BYTES) -> Iterator[list[int]]:
    """Indices of tensors to send as one: same dtype and device, at most `limit_bytes` together, in their order."""
    open_: dict[tuple[torch.dtype, torch.device], tuple[list[int], int]] = {}
    for index, tensor in enumerate(tensors):
        kind = tensor.dtype, tensor.device
        indices, size = open_.get(kind, ([], 0))
        if indices and size + tensor.nbytes > limit_bytes:
            yield indices
            indices, size = [], 0
        open_[kind] = [*indices, index], size + tensor.nbytes
    for indices, _ in open_.values():
        yield indices


def pack(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """One flat tensor of all elements. Of the same dtype; not a view, even of a single one."""
    flat = torch.empty(sum(tensor.numel() for tensor in tensors), dtype=tensors[0].dtype, device=tensors[0].device)
    unpack_into(flat, tensors, reverse=True)
    return flat


def unpack_into(flat: torch.Tensor, tensors: Sequence[torch.Tensor], *, reverse: bool = False) -> None:
    """Copy the pieces of `flat` to `tensors`; `reverse`: the other way."""
    start = 0
    for tensor in tensors:
        piece = flat[start : start + tensor.numel()].view(tensor.shape)
        if reverse:
            piece.copy_(tensor)
        else:
            tensor.copy_(piece)
        start += tensor.numel()


def divided(total: int, parts: int) -> list[int]:
    """`total` in `parts` that differ by one at most: earlier ones get one more."""
    each, more = divmod(total, parts)
    return [each + (part < more) for part in range(parts)]


def pack_by_rank(tensors: Sequence[torch.Tensor], size: int) -> tuple[torch.Tensor, list[int]]:
    """For one reducescatter of all: each rank's rows of every tensor beside each other; elements of each rank."""
    rows = [torch.split(tensor, divided(tensor.shape[0], size)) for tensor in tensors]
    pieces = [[split[rank] for split in rows] for rank in range(size)]
    counts = [sum(piece.numel() for piece in mine) for mine in pieces]
    return pack([piece for mine in pieces for piece in mine]), counts


def pack_ragged(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """All tensors of one rank as bytes, preceded by their numbers of rows; see `unpack_ragged`."""
    counts = torch.tensor([tensor.shape[0] for tensor in tensors], dtype=torch.int64)
    flat = torch.zeros(sum(map(_room, [counts, *tensors])), dtype=torch.uint8)
    start = 0
    for tensor in [counts, *tensors]:
        flat[start : start + tensor.nbytes] = tensor.contiguous().view(-1).view(torch.uint8)
        start += _room(tensor)
    return flat


def unpack_ragged(flat: torch.Tensor, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors of `pack_ragged`, with dtypes and all but the first dimension as in `like`; views of `flat`."""
    flat = flat.clone() if flat.storage_offset() % _ALIGNED else flat
    start = 8 * len(like)
    counts: list[int] = flat[:start].view(torch.int64).tolist()
    start += -start % _ALIGNED
    found = []
    for tensor, rows in zip(like, counts, strict=True):
        shape = torch.Size((rows, *tensor.shape[1:]))
        size = shape.numel() * tensor.dtype.itemsize
        found.append(flat[start : start + size].view(tensor.dtype).view(shape))
        start += size + -size % _ALIGNED
    return found


def named_with_shapes(name: str, tensors: Sequence[torch.Tensor]) -> str:
    """`name` with dtypes and dimensions but the first: what must be the same on all ranks for `unpack_ragged`.

    A transport may cut the end of a name off, so a digest of them all comes first.
    """
    words = ";".join(f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape[1:])}" for tensor in tensors)
    digest = hashlib.sha256(words.encode()).hexdigest()[:8]
    return " ".join(part for part in (digest, name, words) if part)


def _room(tensor: torch.Tensor) -> int:
    return tensor.nbytes + -tensor.nbytes % _ALIGNED
