from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_loader, side_loader
from benchmarks.harness import MissingData, Options


def test_the_generated_dataset_is_as_large_as_asked_and_whole(tmp_path: Path) -> None:
    data = bench_loader.generate(tmp_path, 400_000)
    assert 200_000 <= data.train.tokens < 200_000 + 20 * bench_loader.MEAN_TOKENS
    data.verify()


def test_the_peer_s_windows_are_those_of_the_files(tmp_path: Path) -> None:
    for number in range(2):
        np.arange(100 * number, 100 * number + 50, dtype="<u2").tofile(tmp_path / f"{number}.tokens")
    windows = side_loader.Windows([tmp_path / "0.tokens", tmp_path / "1.tokens"], "<u2", 16)
    assert len(windows) == 6
    assert [int(windows[index][0]) for index in range(6)] == [0, 16, 32, 100, 116, 132]
    assert windows[5].tolist() == list(range(132, 149))


def test_a_disk_without_room_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_loader, "BYTES", 10**18)
    with pytest.raises(MissingData, match="TMPDIR"):
        bench_loader.run(Options(), lambda text: None)


@pytest.mark.slow
def test_a_quick_run_measures_every_side() -> None:
    short, long, wait, memory = bench_loader.run(Options(rounds=1, quick=True), lambda text: None)
    for found in (short, long, wait):
        assert list(found.values) == ["phalanx", "torch", "phalanx, masked"]
    assert list(memory.values) == ["phalanx", "torch"]
    assert short.notes["tokens"] >= bench_loader.QUICK_BYTES // 2
    assert memory.notes["epochs"] >= 1
