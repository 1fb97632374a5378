"""BLEU and chrF: the numbers and signatures of sacrebleu, on texts as they are and on any texts; the same from any parts."""

import io
import json
import math
import random
import subprocess
import sys
import unicodedata
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import regex
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_intl import TokenizerV14International

from phalanx.metrics import (
    BadInput,
    Bleu,
    Chrf,
    DifferentDefinition,
    State,
    corpus_bleu,
    corpus_chrf,
    sentence_bleu,
    sentence_chrf,
)
from phalanx.metrics.tokens import _class_of, international, western

HYPOTHESES = [
    "The dog bit the man, who paid $3,250.75 on 12-05-2024.",
    "It wasn't surprising at all.",
    "",
    "Der Mann wurde vom Hund gebissen &quot;heute&quot; -- sagt er (angeblich).",
    "猫は毛布の上に座った。",
    "L'été dernier, j'ai visité l'Île-de-France !",
    "ПРИВЕТ мир… это тест; 3.14 и 2,718!",
    "a b c d e f g",
    "state-of-the-art re-\nsults <skipped> at 5-10 % A&amp;B, x<y>z",
]
REFERENCES: list[list[str | None]] = [
    [
        "The dog bit the man who paid $3,250.75 on 12-05-2024.",
        "It was not surprising at all!",
        "not empty",
        'Der Mann wurde heute vom Hund gebissen, "heute" -- sagt er angeblich.',
        "猫が毛布の上に座っていた。",
        "L'été dernier, j'ai visité l'Île de France.",
        "привет, мир… это тест: 3.14 и 2,718!",
        "a b c d x f g",
        "state-of-the-art results at 5-10 % A&B, x<y>z",
    ],
    [
        "A man was bitten by the dog; he paid $3,250.75 on 12-05-2024.",
        None,
        "",
        "Heute wurde der Mann vom Hund gebissen.",
        None,
        "J'ai visité l'Île-de-France l'été dernier !",
        "Привет мир! Это тест.",
        "",
        "results of the state of the art at 5-10%",
    ],
]
FULL: list[list[str]] = [[each or "something else" for each in column] for column in REFERENCES]

_PIECES = """the The cat sat on mat . , ! 3.5 1,000 x-y 5-6 - -- ( ) (hi) &amp; &lt; <skipped> don't «é» … 猫 € $5 ‐ ½ ٣
a\u0301 'quoted' U.S. ..,, Σας İstanbul"""
known = st.characters(exclude_categories=["Cs", "Cn"])  # what is not yet assigned here, another Unicode may know
pieces = st.sampled_from([*_PIECES.split(), "\u00a0", "\n", "-\n", ""]) | st.text(known, max_size=4)
texts = st.lists(pieces, max_size=12).map(" ".join)
rows = st.lists(st.tuples(texts, texts, texts | st.none()), min_size=1, max_size=6)


def columns(data: list[tuple[str, str, str | None]]) -> tuple[list[str], list[list[str | None]]]:
    return [row[0] for row in data], [[row[1] for row in data], [row[2] for row in data]]


def bleu_matches(hypotheses: list[str], references: Any, **options: Any) -> None:
    renamed = {"smooth": "smooth_method", "max_order": "max_ngram_order"}
    theirs = BLEU(force=True, **{renamed.get(name, name): value for name, value in options.items()})
    expected = theirs.corpus_score(hypotheses, references)
    found = Bleu(**options).update(hypotheses, references).compute()
    assert found.score == pytest.approx(expected.score, rel=1e-12, abs=1e-12)
    assert found.precisions == pytest.approx(expected.precisions, rel=1e-12, abs=1e-12)
    assert (found.sys_len, found.ref_len) == (expected.sys_len, expected.ref_len)
    assert found.bp == pytest.approx(expected.bp, rel=1e-12)
    if options.get("smooth") != "add-k":  # there sacrebleu writes its smoothing into the counts
        assert list(found.counts) == list(expected.counts)
        assert list(found.totals) == list(expected.totals)
    signature = str(theirs.get_signature())
    assert found.signature.partition("|version:")[0] == signature.partition("|version:")[0]
    ours, same = str(found), expected.format(signature=signature)
    assert ours.partition(" = ")[2] == same.partition(" = ")[2]


def chrf_matches(hypotheses: list[str], references: Any, **options: Any) -> None:
    theirs = CHRF(**options)
    expected = theirs.corpus_score(hypotheses, references)
    found = Chrf(**options).update(hypotheses, references).compute()
    assert found.score == pytest.approx(expected.score, rel=1e-12, abs=1e-12)
    assert found.name == expected.name
    assert found.signature.partition("|version:")[0] == str(theirs.get_signature()).partition("|version:")[0]
    assert str(found).startswith(f"{expected.name}|nrefs:")


BLEU_OPTIONS: list[dict[str, Any]] = [
    {},
    {"tokenize": "none"},
    {"tokenize": "char", "lowercase": True},
    {"tokenize": "intl"},
    {"smooth": "floor"},
    {"smooth": "floor", "smooth_value": 0.4},
    {"smooth": "add-k"},
    {"smooth": "add-k", "smooth_value": 0.5, "effective_order": True},
    {"smooth": "none"},
    {"smooth": "none", "effective_order": True},
    {"max_order": 2},
    {"effective_order": True, "lowercase": True},
    {"max_order": 6},
]
CHRF_OPTIONS: list[dict[str, Any]] = [
    {},
    {"word_order": 2},
    {"word_order": 1, "eps_smoothing": True},
    {"whitespace": True, "lowercase": True},
    {"beta": 1, "char_order": 3},
    {"beta": 3, "eps_smoothing": True},
]


@pytest.mark.parametrize("options", BLEU_OPTIONS, ids=str)
def test_bleu_is_sacrebleus_on_texts_as_they_are(options: dict[str, Any]) -> None:
    for references in (FULL[:1], FULL, REFERENCES):
        bleu_matches(HYPOTHESES, references, **options)
        for which in range(len(HYPOTHESES)):
            bleu_matches([HYPOTHESES[which]], [[column[which]] for column in references], **options)


@pytest.mark.parametrize("options", CHRF_OPTIONS, ids=str)
def test_chrf_is_sacrebleus_on_texts_as_they_are(options: dict[str, Any]) -> None:
    for references in (FULL[:1], FULL, REFERENCES):
        chrf_matches(HYPOTHESES, references, **options)
        for which in range(len(HYPOTHESES)):
            chrf_matches([HYPOTHESES[which]], [[column[which]] for column in references], **options)


@given(rows, st.sampled_from(BLEU_OPTIONS))
@settings(deadline=None)
def test_bleu_is_sacrebleus_on_any_texts(data: list[tuple[str, str, str | None]], options: dict[str, Any]) -> None:
    bleu_matches(*columns(data), **options)


@given(rows, st.sampled_from(CHRF_OPTIONS))
@settings(deadline=None)
def test_chrf_is_sacrebleus_on_any_texts(data: list[tuple[str, str, str | None]], options: dict[str, Any]) -> None:
    chrf_matches(*columns(data), **options)


def test_a_long_corpus_with_the_documentation_of_python() -> None:
    lines = [line for name in ("argparse", "random", "json") for line in (__import__(name).__doc__ or "").splitlines()]
    lines += [line.strip() for line in (sys.__doc__ or "").splitlines()]
    chance = random.Random(6)
    worse = [" ".join(word for word in line.split() if chance.random() < 0.85) for line in lines]
    other = [" ".join(chance.sample(line.split(), len(line.split()))) for line in lines]
    bleu_matches(worse, [lines, other])
    chrf_matches(worse, [lines, other], word_order=2)


@given(texts)
def test_words_are_cut_as_sacrebleu_cuts_them(line: str) -> None:
    assert western(line) == Tokenizer13a()(line).split()
    assert international(line) == TokenizerV14International()(line).split()


def test_classes_of_characters_are_those_of_unicode() -> None:
    assigned = [code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) != "Cn"]
    everything = "".join(map(chr, assigned))
    for major in "NPS":
        mine = regex.findall(f"[{_class_of(major)}]", everything)
        assert mine == [each for each in everything if unicodedata.category(each)[0] == major]


@given(rows, st.integers(0, 6), st.sampled_from([Bleu, Chrf]))
@settings(deadline=None)
def test_any_parts_in_any_order_give_the_state_of_the_whole(
    data: list[tuple[str, str, str | None]], cut: int, kind: type[Bleu] | type[Chrf]
) -> None:
    whole = kind().update(*columns(data))
    first, second = kind(), kind()
    if data[:cut]:
        first.update(*columns(data[:cut]))
    for row in reversed(data[cut:]):
        second.update(*columns([row]))
    merged = State.from_bytes(second.to_bytes()).merge(first)
    assert merged == whole
    assert merged.compute() == whole.compute()
    assert State.from_bytes(whole.to_bytes()) == whole


def test_the_functions_are_sacrebleus() -> None:
    assert corpus_bleu(HYPOTHESES, FULL).score == pytest.approx(sacrebleu.corpus_bleu(HYPOTHESES, FULL).score)
    options: dict[str, Any] = {"smooth_method": "add-k", "smooth_value": 2, "lowercase": True, "tokenize": "intl"}
    assert corpus_bleu(HYPOTHESES, FULL, **options).score == pytest.approx(
        sacrebleu.corpus_bleu(HYPOTHESES, FULL, **options).score, abs=1e-12
    )
    assert corpus_bleu(HYPOTHESES, FULL, use_effective_order=True).signature.startswith("nrefs:2|case:mixed|eff:yes")
    for options in ({}, {"word_order": 2}, {"beta": 3, "char_order": 4}, {"remove_whitespace": False}):
        assert corpus_chrf(HYPOTHESES, FULL, **options).score == pytest.approx(
            sacrebleu.corpus_chrf(HYPOTHESES, FULL, **options).score, abs=1e-12
        )
        for text, *references in zip(HYPOTHESES, *FULL, strict=True):
            assert sentence_chrf(text, references, **options).score == pytest.approx(
                sacrebleu.sentence_chrf(text, references, **options).score, abs=1e-12
            )
    for text, *references in zip(HYPOTHESES, *FULL, strict=True):
        expected = sacrebleu.sentence_bleu(text, references).score
        assert sentence_bleu(text, references).score == pytest.approx(expected, abs=1e-12)


def test_one_column_of_references_and_columns_of_other_libraries_are_taken() -> None:
    expected = corpus_bleu(HYPOTHESES, FULL[:1])
    assert corpus_bleu(HYPOTHESES, FULL[0]) == expected
    for made in (np.array, pd.Series, pl.Series, pa.array, iter):
        assert corpus_bleu(made(HYPOTHESES), [made(FULL[0])]) == expected


def test_of_no_texts_a_state_answers_nan() -> None:
    assert math.isnan(Bleu().compute().score)
    assert math.isnan(Chrf().compute().score)
    assert Bleu().update([], [[]]) == Bleu()
    assert Chrf().merge(Chrf()) == Chrf()


def test_a_perfect_text_has_a_hundred_and_one_of_other_words_nothing() -> None:
    assert corpus_bleu(["one two three four"], ["one two three four"]).score == pytest.approx(100)
    assert corpus_bleu(["one two three four"], ["five six seven eight"]).score == 0
    assert corpus_chrf(["one"], ["one"]).score == 100
    assert corpus_chrf(["one"], ["xyz"]).score == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: corpus_bleu(["a", "b"], [["a"]]), r"references\[0\] has 1 texts for 2 hypotheses"),
        (lambda: corpus_bleu("a text", [["a text"]]), "hypotheses is one text, not a list"),
        (lambda: corpus_bleu(["a"], "a"), "references is one text, not a list"),
        (lambda: sentence_chrf("a", "a"), "references is one text, not a list"),
        (lambda: corpus_bleu(["a", None], [["a", "b"]]), r"hypotheses\[1\] is None, not a text"),
        (lambda: corpus_chrf(["a", "b"], [["a", 7]]), r"references\[0\]\[1\] is of the type int, not a text"),
        (lambda: corpus_chrf(["a", "b"], [["a", None]]), r"hypotheses\[1\] has no reference"),
        (lambda: corpus_bleu(["a"], []), "there are no references"),
        (lambda: corpus_bleu([], [[]]), "there are no texts"),
        (lambda: corpus_chrf(7, [[]]), "hypotheses is of the type int, not a list of texts"),
        (lambda: Bleu(tokenize="14"), "no tokenizer '14'"),
        (lambda: Bleu(smooth="laplace"), "no smoothing 'laplace'"),
        (lambda: Bleu(smooth_value=0.1), "smoothing exp takes no value 0.1"),
        (lambda: Bleu(smooth="floor", smooth_value=0), "smoothing floor takes no value 0"),
        (lambda: Bleu(max_order=0), "max_order is a whole number from 1 to 100, not 0"),
        (lambda: Chrf(beta=0.5), "beta is a whole number from 1 to 100, not 0.5"),
        (lambda: Chrf.of_parts({}, {"sums": np.zeros(3, np.int64), "texts": np.zeros(3)}), "no numbers of Chrf"),
    ],
)
def test_what_cannot_be_meant_is_refused(call: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        call()


def test_a_process_that_has_not_used_the_class_yet_reads_its_state() -> None:
    state = Chrf(word_order=2).update(HYPOTHESES, FULL)
    program = (
        "import sys; from phalanx.metrics import State; print(State.from_bytes(sys.stdin.buffer.read()).compute())"
    )
    told = subprocess.run([sys.executable, "-c", program], input=state.to_bytes(), capture_output=True, check=True)
    assert told.stdout.decode().strip() == str(state.compute())
    for name in ("BadInput", "NotThere"):
        file = io.BytesIO()
        np.savez(file, definition=np.frombuffer(json.dumps({"metric": name}).encode(), np.uint8))
        with pytest.raises(BadInput, match=f"no state of a metric .*{name}"):
            State.from_bytes(file.getvalue())


def test_what_was_refused_leaves_no_trace() -> None:
    state = Bleu().update(["a b"], ["a c"])
    with pytest.raises(BadInput):
        state.update(["a", "b"], [["a", None]])
    assert state == Bleu().update(["a b"], ["a c"])


def test_other_settings_do_not_merge() -> None:
    with pytest.raises(DifferentDefinition, match="tokenize is '13a' here and 'intl' there"):
        Bleu().merge(Bleu(tokenize="intl"))
    with pytest.raises(DifferentDefinition, match="word_order is 2 here and 0 there"):
        Chrf(word_order=2).merge(Chrf())
