"""Pages of attention: pictures read back by the rules of PNG, hostile texts, and pages that would be too large."""

from __future__ import annotations

import base64
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.evaluation.attention import Attention
from phalanx.pages.attention import TooMuchToShow, render_attention, write_attention_page
from phalanx.pages.checkpoint import render_checkpoint
from phalanx.pages.heat import HeatMap, picture
from phalanx.pages.run_files import parse_evaluation
from phalanx.pages.verdict import _scored


def attention(
    layers: int = 2, heads: int = 3, tokens: tuple[str, ...] = ("a", "·b", "c"), kind: str = "self"
) -> Attention:
    draw = np.random.default_rng(0)
    weights = draw.dirichlet(np.ones(len(tokens)), (layers, heads, len(tokens))).astype(np.float32)
    numbers = tuple(range(1, layers + 1)), tuple(range(1, heads + 1))
    written = "x y" if kind == "alignment" else ""
    return Attention(kind, tokens, tokens, weights, *numbers, "a-model", written)


def weights_of(uri: str) -> np.ndarray:
    """As the page's script reads them: the alpha of each pixel."""
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = {}, 8
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", data, at + 8 + size) == (zlib.crc32(kind + content),)
        chunks[kind] = content
        at += 12 + size
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert rest == [8, 6, 0, 0, 0]
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + 4 * width)
    assert (lines[:, 0] == 0).all()
    return (lines[:, 4::4] / 255) ** 2


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_picture_holds_the_weights(rows, columns, seed):
    weights = np.random.default_rng(seed).random((rows, columns)).astype(np.float32) ** 3
    found = weights_of(picture(weights))
    assert found.shape == (rows, columns)
    assert np.abs(np.sqrt(found) - np.sqrt(weights)).max() <= 0.5 / 255 + 1e-6


def test_every_head_is_on_the_page():
    values = attention()
    page = render_attention(values, "a b c", now_ns=0)
    pictures = re.findall(r'<img src="(data:[^"]+)" alt="layer (\d), head (\d)"', page)
    assert [(int(layer), int(head)) for _, layer, head in pictures] == [(i, j) for i in (1, 2) for j in (1, 2, 3)]
    for uri, layer, head in pictures:
        assert np.abs(weights_of(uri) - values.weights[int(layer) - 1, int(head) - 1]).max() < 0.005
    (large,) = re.findall(r'<image href="(data:[^"]+)"', page)
    assert large == pictures[0][0]
    assert page.count("data-token=") == 6


def test_the_page_needs_nothing_else_and_lets_nothing_in():
    page = render_attention(attention(), "a b c", now_ns=0)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    assert "default-src &#39;none&#39;" in policy
    assert "img-src data:" in policy
    assert "unsafe" not in policy
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "style=" not in page


def test_hostile_texts_are_shown_and_not_obeyed():
    evil = ("<script>alert(1)</script>", '"><img src=x>', "\u202eabc")
    page = render_attention(attention(tokens=evil), "".join(evil), now_ns=0)
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "\u202e" not in page


def test_an_alignment_shows_what_was_written_and_no_small_heads():
    page = render_attention(attention(1, 1, kind="alignment"), "a b c", now_ns=0)
    assert "Which words a translation came from" in page
    assert ">x y</p>" in page
    assert 'class="small-head"' not in page


def test_long_tokens_are_cut_in_labels_and_whole_for_the_reader():
    long = "w" * 60
    map_ = HeatMap("", (long,), ("b",), np.ones((1, 1), np.float32))
    (label,) = map_.row_labels
    assert label.token == long
    assert len(label.text) == 22
    assert map_.left < 200


def test_a_page_that_no_browser_shows_is_refused(tmp_path):
    tokens = tuple(str(number) for number in range(300))
    with pytest.raises(TooMuchToShow, match="12 x 12 heads") as caught:
        write_attention_page(attention(12, 12, tokens), "x", tmp_path / "page.html")
    assert "--layer" in caught.value.remedy
    assert not (tmp_path / "page.html").exists()


EXAMPLE = {"source": "ein Hund", "translated": "a dog", "reference": "one dog"}
MATRIX = {"rows": ["a", "dog"], "columns": ["ein", "Hund"], "weights": [[0.9, 0.1], [0.2, 0.8]]}


def evaluation(value: float = 20.0, example: dict[str, object] | None = None) -> dict[str, object]:
    """The document of a translator."""
    length = {"from": 1, "to": 5, "pairs": 7, "words": 3.5, "bleu": 19.0, "standard_error": 1.0, "chrf": 44.0}
    return {
        "job": {"name": "de-en"},
        "checkpoint": {"path": "run/step-1", "step": 1},
        "metric": "bleu",
        "model": {"name": "rnn-attention", "value": value, "standard_error": 1.0, "loss": 2.0},
        "baselines": [{"name": "nearest training sentence", "value": 10.0, "standard_error": 0.5}],
        "strongest": "nearest training sentence",
        "beats_strongest": value > 10,
        "margin": value - 10,
        "margin_standard_error": 1.0,
        "split": {"pairs": 7},
        "perplexity": 7.4,
        "guesses": None,
        "translation": {"bleu": value, "chrf": 44.5, "lengths": [length, length | {"words": 8.0, "from": 6, "to": 10}]},
        "examples": [example or EXAMPLE | {"alignment": MATRIX}],
        "method": "greedily",
        "seconds": 1.0,
    }


def test_a_translator_is_shown_with_lengths_texts_and_alignment():
    page = render_checkpoint(evaluation(), ["It is ahead."], now_ns=0)
    for words in ("20.0 BLEU", "44.5", "By length", "6 to 10 words", "ein Hund", "a dog", "A person wrote: one dog"):
        assert words in page, words
    (uri,) = re.findall(r'<image href="(data:[^"]+)"', page)
    np.testing.assert_allclose(weights_of(uri), MATRIX["weights"], atol=0.005)


@pytest.mark.parametrize(
    "broken", [None, "x", {}, MATRIX | {"weights": [[1.0]]}, MATRIX | {"weights": "x"}, MATRIX | {"rows": None}]
)
def test_a_damaged_alignment_leaves_a_gap_and_no_error(broken):
    page = render_checkpoint(evaluation(example=EXAMPLE | {"alignment": broken}), [], now_ns=0)
    assert "a dog" in page
    assert 'class="heat"' not in page


@pytest.mark.parametrize(("value", "tone", "said"), [(20.0, "good", "beats"), (5.0, "neutral", "behind")])
def test_the_headline_of_a_translators_report_counts_points(value, tone, said):
    found = parse_evaluation(evaluation(value))
    assert found is not None
    verdict = _scored(found)
    assert verdict.tone == tone
    assert said in verdict.headline
    assert f"{abs(value - 10):.1f} points" in verdict.headline
    assert "On held-out pairs" in verdict.sentence
    assert "baseline, nearest training sentence" in verdict.sentence
