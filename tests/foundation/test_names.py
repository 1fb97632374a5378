import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from phalanx.foundation import check_name, nearest

# RFC 1123 as Kubernetes writes it, the other implementation.
KUBERNETES = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")


@given(st.text(alphabet="abz019-._/A \n", max_size=70))
@example("a" * 63)
@example("a" * 64)
@example("name\n")
def test_a_name_is_usable_exactly_when_kubernetes_says_so(text: str) -> None:
    if KUBERNETES.match(text) and len(text) <= 63:
        assert check_name(text) == text
    else:
        with pytest.raises(ValueError, match="not a usable name"):
            check_name(text)


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "../a", "/", "a..b", "Ä", "-a", "a-", "a\0b", "٣"])
def test_no_path_is_a_name(name: str) -> None:
    with pytest.raises(ValueError, match="not a usable name"):
        check_name(name)


def test_the_nearest_name_forgives_case_and_a_slip() -> None:
    assert nearest("BERT-tniy", ["gpt2-small", "bert-tiny"]) == "bert-tiny"


def test_a_name_like_nothing_has_no_nearest() -> None:
    assert nearest("zzz", ["bert-tiny", "decoder"]) is None
    assert nearest("x", []) is None
