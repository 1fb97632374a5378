"""The page of an evaluated checkpoint: scores, errors, notes and examples are there, as text."""

from __future__ import annotations

import pytest

from phalanx.pages.checkpoint import render_checkpoint
from tests.cli.test_evaluate import document
from tests.pages.test_predictions import HOSTILE, read


@pytest.mark.parametrize(
    ("metric", "value", "within", "margin"),
    [("bits_per_byte", "1.81", "give or take 0.0235", "0.190"), ("top1", "31.0", "give or take 2.4", "8.0")],
)
def test_a_checkpoint_among_its_tables(metric: str, value: str, within: str, margin: str) -> None:
    text = render_checkpoint(document(metric), ["It is ahead."], now_ns=0)
    read(text)
    for words in (
        value,
        within,
        margin,
        "decoder, step 300",
        "strong",
        "weak",
        "<li>It is ahead.</li>",
        "3.49",
        "80.0",
    ):
        assert words in text, words
    assert "Does it know how good it is?" in text
    assert text.index("this model") < text.index("weak")


def test_without_an_error_there_is_no_interval() -> None:
    model = {"name": "decoder", "value": 1.81, "standard_error": None, "loss": 1.25}
    assert "one text: no interval" in render_checkpoint(document(model=model), [], now_ns=0)


def test_what_a_model_wrote_is_text() -> None:
    seen = {"name": HOSTILE, "value": 2.5, "standard_error": None, "sees_more": True, "note": HOSTILE}
    examples = [{"prompt": HOSTILE, "generated": HOSTILE}]
    text = render_checkpoint(document(baselines=[seen], strongest=HOSTILE, examples=examples), [HOSTILE], now_ns=0)
    assert HOSTILE not in text
    assert "sees more than the model" in text
    assert read(text).seen.count("script") == 1


def test_another_document_is_refused() -> None:
    with pytest.raises(ValueError, match="not an evaluation"):
        render_checkpoint({"kind": "needles"}, [])
