"""No process holds more than it may, whatever the input: measured by the kernel, over ten times as much text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from phalanx.data.build import TrainTokenizer, build
from phalanx.data.dataset import Dataset
from tests.data.build.corpora import made_up, options_for

LIMIT = 128 << 20  # of which about 85 MiB are Python and its libraries
WORDS = np.array([made_up(number)[:7].encode()[:7].ljust(7, b"x") + b" " for number in range(50_000)], "S8")


def text(size: int, chance: np.random.Generator) -> str:
    """About `size` bytes of words, the frequent ones often."""
    places = np.minimum(chance.zipf(1.2, size // 8), len(WORDS)) - 1
    return WORDS[places].tobytes().decode(errors="ignore").replace("\0", "")


def write_corpus(directory: Path, size: int) -> int:
    """JSON lines with a few of megabytes, one text file of one line, and letters without a space; bytes written."""
    chance = np.random.default_rng(0)
    with (directory / "lines.jsonl").open("w") as file:
        written = 0
        while written < 0.6 * size:
            length = 1_500_000 if chance.random() < 0.0001 else int(chance.lognormal(7, 1)) + 50
            written += file.write(json.dumps({"text": text(length, chance)}, ensure_ascii=False) + "\n")
    with (directory / "long.txt").open("w") as file:
        written = 0
        while written < 0.39 * size:
            written += file.write(text(1 << 20, chance))
    with (directory / "han.txt").open("w") as file:
        file.write("".join(map(chr, chance.integers(0x4E00, 0x9FFF, size // 300).tolist())))
    return sum(path.stat().st_size for path in directory.iterdir())


@pytest.mark.parametrize(
    ("kind", "times"), [("bpe", 0.05), pytest.param("bytes", 10, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_no_process_holds_more_than_it_may(tmp_path: Path, kind: str, times: float) -> None:
    (tmp_path / "corpus").mkdir()
    size = write_corpus(tmp_path / "corpus", int(times * LIMIT))
    assert size > 0.99 * times * LIMIT
    options = options_for(
        tmp_path / "corpus",
        memory=LIMIT,
        train=TrainTokenizer(kind, 2000, "causal-lm", 4 << 20),  # type: ignore[arg-type]
    )
    built = build(options, tmp_path / "out", processes=2)
    assert 64 << 20 < built.peak <= LIMIT
    dataset = Dataset.open(tmp_path / "out")
    manifest = dataset.manifest
    kept = manifest.bytes("train") + manifest.bytes("held_out")
    left_out = sum(lost for _, lost in manifest.excluded.values())
    assert kept + left_out == manifest.made["read"]["bytes"]
    assert manifest.made["read"]["cut"] >= 1
