from collections import Counter, defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from phalanx.data import Split
from phalanx.evaluation.neighbours import NeighbourTables

PAD, UNK, CLS, SEP, MASK = range(5)
SIZE = 12
SPECIAL = np.arange(5)


def split_of(documents: list[list[int]]) -> Split:
    offsets = np.concatenate([[0], np.cumsum([len(document) for document in documents])]).astype(np.int64)
    return Split(np.array([token for document in documents for token in document], np.uint16), offsets)


def tables(documents: list[list[int]]) -> NeighbourTables:
    return NeighbourTables(split_of(documents), SIZE, CLS, SEP, SPECIAL)


class SlowTables:
    """The same with dictionaries."""

    def __init__(self, documents: list[list[int]]) -> None:
        self.all: Counter[int] = Counter()
        self.tables: dict[object, Counter[int]] = defaultdict(Counter)
        for document in documents:
            padded = [CLS, *document, SEP]
            for left, token, right in zip(padded, padded[1:], padded[2:], strict=False):
                if token >= 5:
                    self.all[token] += 1
                    for context in (("left", left), ("right", right), ("both", left, right)):
                        self.tables[context][token] += 1

    def best(self, *contexts: object) -> int:
        for context in contexts:
            if context in self.tables:
                counts = self.tables[context]
                return min(counts, key=lambda token: (-counts[token], -self.all[token], token))
        return min(self.all, key=lambda token: (-self.all[token], token))


documents = st.lists(
    st.lists(st.integers(5, SIZE - 1) | st.just(UNK), min_size=1, max_size=12), min_size=1, max_size=10
).filter(lambda documents: any(token >= 5 for document in documents for token in document))


@given(documents, st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1)), min_size=1, max_size=40))
def test_guesses_are_those_of_dictionaries(documents: list[list[int]], asked: list[tuple[int, int]]) -> None:
    fast, slow = tables(documents), SlowTables(documents)
    left, right = np.array(asked).T
    assert fast.most_frequent == slow.best()
    assert fast.guess_left(left).tolist() == [slow.best(("left", a)) for a, _ in asked]
    assert fast.guess_both(left, right).tolist() == [
        slow.best(("both", a, b), ("left", a), ("right", b)) for a, b in asked
    ]


def test_documents_do_not_run_into_each_other() -> None:
    known = tables([[5, 6], [7, 8]])
    assert known.guess_left(np.array([6])).tolist() == [known.most_frequent]
    assert known.guess_left(np.array([CLS, 5, 7])).tolist() == [5, 6, 8]


def test_a_masked_neighbour_leaves_the_word_to_the_other() -> None:
    known = tables([[5, 6, 7], [8, 9, 10], [11, 11, 11, 11]])
    assert known.guess_both(np.array([MASK, 8, MASK]), np.array([7, MASK, MASK])).tolist() == [6, 9, 11]


def test_special_tokens_are_never_guessed() -> None:
    known = tables([[UNK, UNK, UNK, 5]])
    every = np.arange(SIZE)
    assert set(known.guess_both(every, every).tolist()) == {5}
