"""Tokens from the environment, and forming (or not forming) a group."""

from __future__ import annotations

from pathlib import Path

import pytest

from phalanx.collectives import CollectiveError, Membership


def test_the_token_is_read_from_torchruns_variables():
    token = Membership.from_environment(
        {
            "RANK": "3",
            "WORLD_SIZE": "4",
            "LOCAL_RANK": "1",
            "LOCAL_WORLD_SIZE": "2",
            "PHALANX_RENDEZVOUS": "/r",
            "PHALANX_GENERATION": "7",
        }
    )
    assert token == Membership(rank=3, size=4, local_rank=1, local_size=2, generation=7, rendezvous=Path("/r"))


def test_an_empty_environment_is_one_worker_alone():
    assert Membership.from_environment({}) == Membership()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RANK": "x"}, "RANK is 'x'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "rank 2 of 2"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "rendezvous"),
        ({"RANK": "0", "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "2", "PHALANX_RENDEZVOUS": "/r"}, "multiple of 2"),
        ({"RANK": "-1"}, "impossible"),
    ],
)
def test_an_impossible_token_is_refused_with_its_reason(environment, said):
    with pytest.raises(CollectiveError, match=said):
        Membership.from_environment(environment)


def test_ranks_that_do_not_come_are_named(start_ranks):
    code = """
try:
    join(member, timeout_s=1.0)
except CollectiveTimeout as error:
    print(error.missing, error, flush=True)
    os._exit(0)
"""
    first, third = start_ranks(3, code, ranks=[0, 2])
    output, errors = first.communicate(timeout=30)
    assert output.startswith("(1,) generation 1: rank 1 did not join within 1 s"), errors
    third.wait(timeout=30)


def test_a_member_of_another_generation_is_not_taken_for_ours(start_ranks):
    code = """
try:
    join(member, timeout_s=1.5)
except CollectiveTimeout as error:
    print(error.missing, flush=True)
    os._exit(0)
"""
    (first,) = start_ranks(2, code, ranks=[0])
    (second,) = start_ranks(2, code, ranks=[1], extra={"PHALANX_GENERATION": "2"})
    assert first.communicate(timeout=30)[0] == "(1,)\n"
    assert second.communicate(timeout=30)[0] == "(0,)\n"
