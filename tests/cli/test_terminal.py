from hypothesis import given
from hypothesis import strategies as st

from phalanx.cli._terminal import one_line, printable


def test_escape_codes_are_shown_and_not_obeyed() -> None:
    assert printable("\x1b]0;title\x07 \x1b[31mred\r\n\tend") == "␛]0;title␇ ␛[31mred␍\n\tend"
    assert printable("\x9b2J\x7f\u202ecod.exe\ud800") == "\ufffd2J␡\ufffdcod.exe\ufffd"


@given(st.text())
def test_no_control_character_is_left_and_every_other_is_kept(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    for before, after in zip(text, shown, strict=True):
        if before.isprintable() or before in "\n\t":
            assert after == before
        assert ord(after) >= 0x20 or after in "\n\t"
        assert not 0x7F <= ord(after) < 0xA0


def test_one_line_has_no_line_feeds() -> None:
    assert one_line(" a\n\tb\x1b  c ") == "a b␛ c"
