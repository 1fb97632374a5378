"""What is left out as a duplicate, against brute force over all pairs, across files and pieces."""

from __future__ import annotations

import random
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.data.build import build, duplicates, listing
from phalanx.data.build.collecting import digest_of
from phalanx.data.build.duplicates import _with_whole_context
from phalanx.data.dataset import Dataset
from tests.data.build.corpora import altered, document, fingerprints, in_process, options_for, texts_of, write_files
from tests.data.build.test_shingles import plain_jaccard

pytestmark = pytest.mark.usefixtures("in_process")
assert in_process

EQUAL, NEAR = "equal to one before", "nearly equal to one before"


def corpus_with_copies(chance: random.Random, originals: int, copies: int) -> list[str]:
    """Documents, and altered copies of some anywhere among them, from equal ones to hardly similar ones."""
    texts = [document(chance) for _ in range(originals)]
    for _ in range(copies):
        one = chance.choice(texts)
        length = len(one.split())
        texts.insert(
            chance.randrange(len(texts) + 1), altered(one, min(chance.choice([0, 1, 1, 2, 3, 6]), length), chance)
        )
    return texts


def similar_before(texts: list[str], threshold: float) -> dict[int, float]:
    """Of each document that has one before it at least so similar, the greatest similarity: by brute force."""
    found: dict[int, float] = {}
    for later in range(len(texts)):
        best = max((plain_jaccard(texts[later], texts[before]) for before in range(later)), default=0.0)
        if best >= threshold:
            found[later] = best
    return found


@pytest.mark.parametrize("threshold", [0.6, 0.8])
def test_near_duplicates_are_those_of_brute_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold: float
) -> None:
    monkeypatch.setattr(listing, "PIECE_BYTES", 3000)
    expected_total = missed = 0
    for seed in range(4):
        texts = corpus_with_copies(random.Random(seed), 60, 60)
        write_files(tmp_path / str(seed), texts)
        out = tmp_path / f"out-{seed}"
        build(options_for(tmp_path / str(seed), near=threshold, held_out=0.0), out)
        kept = texts_of(out, "train")
        expected = similar_before(texts, threshold)
        gone = _gone(texts, kept)
        assert gone <= set(expected), "a document was left out that no earlier one is like"
        expected_total += len(expected)
        missed += len(set(expected) - gone)
    assert expected_total > 100
    assert missed <= 0.02 * expected_total  # 1 % of those just at the threshold may be missed


def _gone(texts: list[str], kept: list[str]) -> set[int]:
    """Places of the documents that are not in `kept`, which is in order."""
    gone = set()
    coming = iter([*kept, None])
    ahead = next(coming)
    for place, text in enumerate(texts):
        if text == ahead:
            ahead = next(coming)
        else:
            gone.add(place)
    assert ahead is None, "documents are out of order"
    return gone


def test_equal_ones_are_found_across_files_whatever_their_white_space_and_composition(tmp_path: Path) -> None:
    texts = ["éa b c\n", "x y z", "e\u0301a  b\nc", "éa b C", "éa b c ", "x y  z\n\n"]
    write_files(tmp_path / "texts", texts)
    built = build(options_for(tmp_path / "texts", near=None, held_out=0.0), tmp_path / "out")
    assert texts_of(tmp_path / "out", "train") == ["éa b c\n", "x y z", "éa b C"]
    assert built.manifest.excluded == {EQUAL: (3, sum(len(texts[place].encode()) for place in (2, 4, 5)))}
    examples = built.manifest.made["examples"][EQUAL]
    assert examples[0] == f"{tmp_path}/texts/00002.txt@0 as {tmp_path}/texts/00000.txt@0"


def test_the_examples_of_near_duplicates_say_how_similar(tmp_path: Path) -> None:
    one = document(random.Random(5), 60, 60)
    other = altered(one, 1, random.Random(6))
    write_files(tmp_path / "texts", [one, other, document(random.Random(7))])
    built = build(options_for(tmp_path / "texts", held_out=0.0), tmp_path / "out")
    assert built.manifest.excluded == {NEAR: (1, len(other.encode()))}
    similarity = plain_jaccard(one, other)
    assert built.manifest.made["examples"][NEAR][0].endswith(f"00000.txt@0 ({similarity:.2f})")


def test_all_may_be_kept(tmp_path: Path) -> None:
    write_files(tmp_path / "texts", ["same text"] * 3)
    build(options_for(tmp_path / "texts", exact=False, near=None, held_out=0.0), tmp_path / "out")
    assert texts_of(tmp_path / "out", "train") == ["same text"] * 3


def test_a_group_of_many_is_one_document(tmp_path: Path) -> None:
    """Of a hundred all alike, in bands of a hundred, the first is kept and no other."""
    chance = random.Random(8)
    one = document(chance, 110, 110)
    group = [altered(one, 1, chance) for _ in range(100)]
    texts = [text for pair in zip(group, (document(chance) for _ in range(100)), strict=True) for text in pair]
    write_files(tmp_path / "texts", texts)
    build(options_for(tmp_path / "texts", held_out=0.0), tmp_path / "out")
    kept = texts_of(tmp_path / "out", "train")
    assert [text for text in kept if text in set(group)] == [group[0]]
    assert len(kept) == 101


def test_no_text_that_is_held_out_has_a_duplicate_in_training(tmp_path: Path) -> None:
    texts = corpus_with_copies(random.Random(9), 150, 150)
    write_files(tmp_path / "texts", texts)
    build(options_for(tmp_path / "texts", held_out=0.3), tmp_path / "out")
    train, held = texts_of(tmp_path / "out", "train"), texts_of(tmp_path / "out", "held_out")
    assert 0.2 < len(held) / (len(held) + len(train)) < 0.4
    assert max(plain_jaccard(one, other) for one in held for other in train) < 0.8


def test_the_split_depends_on_a_document_alone(tmp_path: Path) -> None:
    texts = [document(random.Random(seed)) for seed in range(200)]
    write_files(tmp_path / "all", texts)
    write_files(tmp_path / "some", reversed(texts[50:]))
    build(options_for(tmp_path / "all", held_out=0.2), tmp_path / "one")
    build(options_for(tmp_path / "some", held_out=0.2), tmp_path / "two")
    held = set(texts_of(tmp_path / "one", "held_out"))
    assert set(texts_of(tmp_path / "two", "held_out")) == held & set(texts[50:])
    share = int(0.2 * 2**64)
    assert held == {text for text in texts if digest_of(text)[0] < share}


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6), piece=st.integers(200, 20_000), memory=st.integers(100, 5000))
def test_how_the_work_is_divided_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, seed: int, piece: int, memory: int
) -> None:
    """Pieces of any size, runs of a few records: the same bytes."""
    directory = tmp_path_factory.mktemp("division")
    write_files(directory / "texts", corpus_with_copies(random.Random(seed), 15, 15))
    options = options_for(directory / "texts", near=0.6, held_out=0.2)
    build(options, directory / "one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "PIECE_BYTES", piece)
        patch.setattr(type(options), "sort_memory", property(lambda self: memory))
        patch.setattr(duplicates, "_PAIRS_A_TASK", 3)
        patch.setattr(duplicates, "_ROWS_AT_ONCE", 4)
        build(options, directory / "two")
    assert fingerprints(directory / "one") == fingerprints(directory / "two")
    Dataset.open(directory / "two").verify()


@given(st.lists(st.integers(0, 3), max_size=30), st.lists(st.integers(1, 7), min_size=1))
def test_pairs_of_a_band_do_not_depend_on_where_blocks_end(bands: list[int], cuts: list[int]) -> None:
    rows = np.array([[band, number] for number, band in enumerate(sorted(bands))], np.uint64).reshape(-1, 2)
    blocks, at = [], 0
    while at < len(rows):
        size = cuts[len(blocks) % len(cuts)]
        blocks.append(rows[at : at + size])
        at += size
    found = {tuple(pair) for block in _with_whole_context(iter(blocks)) for pair in block.tolist()}
    expected = set()
    for band in set(bands):
        members = [int(number) for own, number in rows.tolist() if own == band]
        for place, later in enumerate(members):
            expected |= {(later, before) for before in members[max(place - 4, 0) : place]}
            expected |= {(later, members[0])} if place else set()
    assert found == expected


def test_digests_of_a_thousand_documents_differ_and_are_of_the_normal_form() -> None:
    texts = [document(random.Random(seed)) for seed in range(1000)]
    digests = sorted(map(digest_of, texts))
    assert all(one != other for one, other in pairwise(digests))
    for text in texts[:50]:
        assert digest_of(unicodedata.normalize("NFD", text).replace(" ", "\u3000 ")) == digest_of(text)
