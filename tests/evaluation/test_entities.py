"""Entities of tags: against conlleval's rules written another way, and numbers by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.evaluation.entities import entities_of, entity_scores

TAGS = st.sampled_from(["O", "B-X", "I-X", "E-X", "S-X", "B-Y", "I-Y", "E-Y", "S-Y"])


def conlleval(tags: list[str]) -> list[tuple[int, int, str]]:
    """As conlleval.pl decides: whether a chunk ends between two tags, and whether one begins (its endOfChunk and
    startOfChunk, for the marks B, I, E, S and O)."""
    found = []
    start = None
    split = [(tag[:1], tag[2:]) for tag in ["O", *tags, "O"]]
    for place, ((before, kind), (mark, name)) in enumerate(itertools.pairwise(split)):
        ends = (before in "BI" and mark in "BSO") or before in "ES" or (before != "O" and mark != "O" and kind != name)
        ends = ends and before != "O"
        begins = mark in "BS" or (before in "ESO" and mark in "EI") or (mark != "O" and before != "O" and kind != name)
        if ends and start is not None:
            found.append((start, place, kind))
            start = None
        if begins and mark != "O":
            start = place
    return found


@given(st.lists(TAGS, max_size=12))
def test_entities_are_those_of_conlleval(tags: list[str]) -> None:
    assert list(entities_of(tags)) == conlleval(tags)


def test_scores_of_a_case_worked_out_by_hand() -> None:
    truth = np.array(["B-PER", "I-PER", "O", "B-LOC", "B-LOC", "O"])
    called = np.array(["B-PER", "I-PER", "O", "B-PER", "O", "B-LOC"])
    scores = entity_scores(truth, called, np.array([0, 0, 0, 0, 1, 1]))
    assert scores is not None
    assert (scores["entities"], scores["found"], scores["right"]) == (3, 3, 1)
    assert scores["f1"] == pytest.approx(1 / 3)
    assert scores["kinds"]["PER"]["precision"]["value"] == pytest.approx(1 / 2)
    assert scores["kinds"]["LOC"]["recall"]["value"] == 0
    assert scores["kinds"]["PER"]["recall"]["value"] == 1


def test_an_entity_does_not_cross_sentences() -> None:
    tags = np.array(["B-X", "I-X"])
    one = entity_scores(np.append(tags, "O"), np.append(tags, "O"), np.array([0, 0, 1]))
    two = entity_scores(np.append(tags, "O"), np.append(tags, "O"), np.array([0, 1, 1]))
    assert one is not None
    assert two is not None
    assert (one["entities"], two["entities"]) == (1, 2)


def test_tags_that_mark_no_entities_have_no_such_scores() -> None:
    tags = np.array(["NOUN", "VERB", "O"])
    assert entity_scores(tags, tags, np.zeros(3, int)) is None
    assert entity_scores(np.array(["O"]), np.array(["O"]), np.zeros(1, int)) is None
