from phalanx.foundation import PhalanxError, UsageError


def test_an_error_says_where_what_and_what_to_do() -> None:
    error = PhalanxError("the disk is full", where="/data", remedy="free some space")
    assert str(error) == "/data: the disk is full\n  To do: free some space"


def test_an_error_without_place_or_remedy_is_its_message() -> None:
    assert str(PhalanxError("it broke")) == "it broke"


def test_a_usage_error_exits_with_two_and_others_with_one() -> None:
    assert (PhalanxError("x").exit_code, UsageError("x").exit_code) == (1, 2)
