"""What the kernel counts, compared with memory that a test takes and gives back."""

from __future__ import annotations

import mmap

import pytest

from phalanx.training.memory import ResidentSet, peak_bytes, reset_peak

SIZE = 64 << 20


def take_and_give_back() -> None:
    with mmap.mmap(-1, SIZE) as taken:
        for page in range(0, SIZE, mmap.PAGESIZE):
            taken[page] = 1


def test_what_is_held_is_resident_and_what_was_given_back_is_not() -> None:
    resident = ResidentSet()
    before = resident.read()
    with mmap.mmap(-1, SIZE) as taken:
        for page in range(0, SIZE, mmap.PAGESIZE):
            taken[page] = 1
        assert SIZE * 0.9 < resident.read() - before < SIZE * 1.1
    assert abs(resident.read() - before) < SIZE * 0.1
    resident.close()


def test_the_peak_is_remembered_until_it_is_reset() -> None:
    resident = ResidentSet()
    if not reset_peak():
        pytest.skip("this kernel does not let a process reset its peak")
    before = resident.read()
    take_and_give_back()
    assert peak_bytes() - before > SIZE * 0.9
    assert reset_peak()
    assert abs(peak_bytes() - resident.read()) < SIZE * 0.1
    resident.close()
