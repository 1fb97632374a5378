"""Writing safetensors files without holding a second copy of the tensors.

`safetensors.torch.save_file` turns every tensor into `bytes` first, which doubles a worker's memory at
each checkpoint, and reports a full disk as text. The format is a length, a JSON header and the bytes
(https://huggingface.co/docs/safetensors), so it is written here, hashed in the same pass and fsynced;
reading is left to the `safetensors` library. Knows nothing of manifests or directories.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """The tensor's elements in row-major order; no copy when it is contiguous and on the CPU."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def sha256(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor_bytes(tensor)).hexdigest()


def write(path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Write a new file, durable when this returns, and return each tensor's SHA-256. Raises OSError."""
    order = sorted(tensors, key=lambda key: (-tensors[key].element_size(), key))  # keeps every element aligned
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key in order:
        tensor = tensors[key]
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[key] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digests = {}
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(descriptor, len(text).to_bytes(8, "little") + text)
        for key in order:
            data = tensor_bytes(tensors[key])
            digests[key] = hashlib.sha256(data).hexdigest()
            write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return digests


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """`os.write` until everything is written; one call writes at most 2 GiB (write(2))."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
