"""YAML as plain values with lines: compared with another parser, and kept small whatever it holds."""

from __future__ import annotations

import re
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from phalanx.job.document import JobFileError, load

# Numbers for YAML 1.2, as here, and text for YAML 1.1, whose writer leaves them without quotes.
NUMBERS_SINCE_1_2 = re.compile(r"[-+]?\d+[eE][-+]?\d+|0o[0-7]+")
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=12).filter(
        lambda text: not NUMBERS_SINCE_1_2.fullmatch(text)
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxyz", min_size=1), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text("abcdef", min_size=1), PLAIN, min_size=1))
def test_what_another_library_writes_is_read_the_same(value: dict[str, object]) -> None:
    assert load(yaml.safe_dump(value), "x").value == value


def test_every_key_has_its_line() -> None:
    document = load("a:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n", "x")
    assert document.value == {"a": {"b": 1, "c": ["x", {"d": 2}]}}
    lines = {("a",): 1, ("a", "b"): 2, ("a", "c"): 3, ("a", "c", 0): 4, ("a", "c", 1): 5, ("a", "c", 1, "d"): 5}
    assert {path: document.line(path) for path in lines} == lines
    assert document.line(("a", "c", "nothing", "below")) == 3


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1_000", 1000),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("-0x10", -16),
        ("+3", 3),
        ("no", "no"),
        ("on", "on"),
        ("True", True),
        ("~", None),
        ("2001-01-01", "2001-01-01"),
        ("12:30", "12:30"),
        ("'300'", "300"),
        ("=", "="),
        ("<<", "<<"),
    ],
)
def test_scalars_are_read_by_yaml_1_2(text: str, value: object) -> None:
    read = load(f"a: {text}", "x").value
    assert read == {"a": value}
    assert isinstance(read, dict)
    assert type(read["a"]) is type(value)


BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(24)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "the anchor &a is refused"),
        ("a: *b\n", r"the alias \*b is refused"),
        ("a: &a {b: *a}\n", "anchor"),
        ("[" * 100_000, "nested deeper than 32"),
        ("{a: " * 50_000, "nested deeper than 32"),
        ("- " * 1000 + "x", "nested deeper than 32"),
        ("- 1\n" * 20_000, "more than 10,000 values"),
        ("a: !!python/object/apply:os.system [id]\n", "the tag .* is refused"),
        ("a: !!int 3\n", "the tag .* is refused"),
        ("a: 1\n---\nb: 2\n", "a second document"),
        ("%YAML 1.1\n---\na: yes\n", "only YAML 1.2"),
        ("a: .inf\n", "not a finite number"),
        ("a: 1e999\n", "not a finite number"),
        ("a: " + "9" * 5000 + "\n", "a number of 5000 characters"),
        ('a: "\\ud800"\n', "lone surrogate"),
        ("a: 1\na: 2\n", "given twice"),
    ],
    ids=lambda text: text[:24],
)
def test_what_could_cost_much_or_mean_two_things_is_refused(text: str, said: str) -> None:
    before = time.process_time()
    with pytest.raises(JobFileError, match=said):
        load(text, "x")
    assert time.process_time() - before < 5  # CPU seconds; unbounded, the deep ones take minutes


@pytest.mark.parametrize("text", ["x" * (1 << 20), "a: " + "x y " * 200_000, "# " + "c" * 900_000 + "\na: 1"])
def test_the_largest_files_are_answered_within_seconds(text: str) -> None:
    before = time.process_time()
    load(text, "x")
    assert time.process_time() - before < 20
