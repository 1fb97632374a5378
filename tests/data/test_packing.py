import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.data.corpus import Split
from phalanx.data.packing import PackedRows, Windows

CLS, SEP, UNK = 2, 3, 1


def split_of(sizes: list[int]) -> Split:
    """Documents of these sizes, every token of the corpus another number (from 10)."""
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Split(np.arange(10, 10 + offsets[-1]).astype(np.uint32), offsets)


@given(st.integers(1, 300), st.integers(1, 20), st.integers(0, 100))
def test_windows_predict_every_token_at_most_once_and_miss_less_than_a_window(
    total: int, length: int, shift: int
) -> None:
    windows = Windows(split_of([total]), length)
    targets = [token for index in range(len(windows)) for token in windows.row(index, shift)[1:].tolist()]
    assert len(set(targets)) == len(targets) > total - length
    assert all(len(windows.row(index, shift)) == length + 1 for index in range(len(windows)))


def test_a_window_goes_on_where_the_one_before_ended() -> None:
    windows = Windows(split_of([10, 11]), 5)
    assert windows.row(0).tolist() == [10, 11, 12, 13, 14, 15]
    assert windows.row(1).tolist() == [15, 16, 17, 18, 19, 20]
    assert windows.row(3, shift=4).tolist() == [29, 30, 10, 11, 12, 13]
    assert windows.row(0).dtype == np.int64


sizes = st.lists(st.integers(1, 60), min_size=1, max_size=80)


@given(sizes, st.integers(8, 40))
def test_rows_hold_every_document_whole_or_in_pieces(sizes: list[int], length: int) -> None:
    split = split_of(sizes)
    rows = PackedRows(split, length, CLS, SEP)
    pieces: list[list[int]] = []
    for index in range(len(rows)):
        tokens, document = rows.row(index)
        assert len(tokens) == len(document) <= length
        assert document.tolist() == sorted(document.tolist())
        assert sorted(set(document.tolist())) == list(range(1, document.max() + 1))
        for number in range(1, document.max() + 1):
            piece = tokens[document == number].tolist()
            assert piece[0] == CLS
            assert piece[-1] == SEP
            pieces.append(piece[1:-1])
    expected = []
    for start, end in zip(split.offsets[:-1], split.offsets[1:], strict=True):
        whole = split.tokens[start:end].tolist()
        parts = [whole[place : place + length - 2] for place in range(0, len(whole), length - 2)]
        expected += [part for part in parts if len(part) >= 3 or part is parts[0]]
    assert sorted(pieces) == sorted(expected)


@given(sizes, st.integers(8, 40))
def test_rows_are_no_more_than_best_fit_promises(sizes: list[int], length: int) -> None:
    """Johnson et al. 1974: at most 11/9 of the fewest rows, plus 4; the fewest is at least what the volume needs."""
    rows = PackedRows(split_of(sizes), length, CLS, SEP)
    lengths = [len(rows.row(index)[0]) for index in range(len(rows))]
    # Two rows that are both at most half full would have been one.
    assert sum(size <= length // 2 for size in lengths) <= 1
    assert len(rows) <= -(-sum(lengths) * 2 // length) + 1


def test_rows_of_mixed_documents_are_nearly_full() -> None:
    rng = np.random.default_rng(0)
    rows = PackedRows(split_of(rng.geometric(0.02, 3000).tolist()), 128, CLS, SEP)
    share = sum(len(rows.row(index)[0]) for index in range(len(rows))) / (128 * len(rows))
    assert share > 0.99


def test_unknown_words_are_not_counted_as_ordinary() -> None:
    split = Split(np.array([UNK, 10, 11, 12, UNK, 13], np.uint16), np.array([0, 3, 6], np.int64))
    rows = PackedRows(split, 12, CLS, SEP, UNK)
    assert len(rows) == 1
    assert rows.ordinary(np.array([0])).tolist() == [4]
    assert PackedRows(split, 12, CLS, SEP).ordinary(np.array([0])).tolist() == [6]


@given(sizes, st.integers(8, 40))
def test_the_number_of_ordinary_tokens_is_what_the_row_holds(sizes: list[int], length: int) -> None:
    rows = PackedRows(split_of(sizes), length, CLS, SEP)
    expected = [int((rows.row(index)[0] >= 10).sum()) for index in range(len(rows))]
    assert rows.ordinary(np.arange(len(rows))).tolist() == expected


@pytest.mark.parametrize("count", [0, 1])
def test_a_split_without_text_has_no_rows(count: int) -> None:
    assert len(PackedRows(split_of([0] * count), 16, CLS, SEP)) == 0
    assert len(Windows(split_of([0] * count), 16)) == 0
