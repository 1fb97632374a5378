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
from phalanx.pages.heat import HeatMap, picture


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
