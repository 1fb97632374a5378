import itertools
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers

from phalanx.data import learn
from phalanx.data.errors import DataError, UnfitVocabulary
from phalanx.data.learn import check_vocabulary, learn_vocabulary, vocabulary_of_bytes
from phalanx.data.vocabulary import SPECIALS, Vocabulary, byte_characters
from phalanx.job import VocabularySpec
from phalanx.job.spec import Objective, VocabularyKind
from tests.data.conftest import sentences

TEXT = sentences(400)


def learned(kind: VocabularyKind, objective: Objective = "masked-lm", size: int = 400) -> Vocabulary:
    return learn_vocabulary(VocabularySpec(kind=kind, size=size), objective, TEXT.splitlines(keepends=True))


BYTES, BPE, WORDPIECE = vocabulary_of_bytes("causal-lm"), learned("bpe", "causal-lm"), learned("wordpiece")


def test_the_byte_characters_are_gpt_2s() -> None:
    assert set(byte_characters()) == set(pre_tokenizers.ByteLevel.alphabet())
    encoded = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str("a é\n")
    assert encoded[0][0] == "".join(byte_characters()[byte] for byte in "a é\n".encode())


@given(st.text())
def test_every_text_comes_back_from_bytes_and_bpe(text: str) -> None:
    for vocabulary in (BYTES, BPE):
        ids = vocabulary.encode(text)
        assert vocabulary.decode_bytes(ids) == text.encode()
        assert vocabulary.decode(ids) == text
        assert vocabulary.byte_lengths[ids].sum() == len(text.encode())


@given(st.text())
def test_a_token_of_bytes_is_the_byte(text: str) -> None:
    assert BYTES.encode(text).tolist() == list(text.encode())


@given(st.text(alphabet="abc é\n<[]>", max_size=30))
def test_our_bytes_are_what_the_saved_tokenizer_gives_to_others(text: str) -> None:
    other = Tokenizer.from_str(BYTES.to_json())
    other.encode_special_tokens = True
    assert other.encode(text, add_special_tokens=False).ids == BYTES.encode(text).tolist()


@pytest.mark.parametrize("kind", ["bytes", "bpe", "wordpiece"])
def test_special_tokens_never_come_out_of_text(kind: VocabularyKind) -> None:
    # Learned from text that is full of their spelling, so that a merge could want to make one.
    text = "[MASK] <eos> [CLS]" * 500 + TEXT
    objectives: list[Objective] = ["masked-lm"] if kind == "wordpiece" else ["masked-lm", "causal-lm"]
    for objective in objectives:
        vocabulary = learn_vocabulary(VocabularySpec(kind=kind, size=500), objective, [text])
        assert set(vocabulary.special) == set(SPECIALS[objective])
        ids = vocabulary.encode("[MASK] and <eos> [SEP] [PAD][CLS]")
        assert not set(ids.tolist()) & set(vocabulary.special.values())


def test_bpe_and_wordpiece_have_the_size_asked_for_when_the_text_gives_that_much() -> None:
    text = [" ".join("".join(random.Random(n).choices("abcdefghij", k=6)) for n in range(2000))]
    for kind, objective in (("bpe", "causal-lm"), ("wordpiece", "masked-lm")):
        vocabulary = learn_vocabulary(VocabularySpec(kind=kind, size=700), objective, text)  # type: ignore[arg-type]
        assert vocabulary.size == 700
        assert vocabulary.kind == kind


def test_a_small_text_gives_a_smaller_vocabulary() -> None:
    vocabulary = learn_vocabulary(VocabularySpec(kind="wordpiece", size=4096), "masked-lm", ["aa ab aa"])
    assert [vocabulary.token(id_) for id_ in range(vocabulary.size)] == [
        *SPECIALS["masked-lm"],
        "a",
        "b",
        "##a",
        "##b",
        "aa",
        "ab",
    ]


def test_frequent_words_become_one_token() -> None:
    assert [BPE.token(id_) for id_ in BPE.encode(" the model")] == [" the", " model"]
    assert [WORDPIECE.token(id_) for id_ in WORDPIECE.encode("The MODEL, thé")] == ["the", "model", "[UNK]", "the"]


def test_wordpiece_takes_the_longest_piece_first_as_bert_does() -> None:
    """Against the algorithm as written in BERT's own tokenizer."""
    pieces = {WORDPIECE.token(id_) for id_ in range(5, WORDPIECE.size)}

    def spell(word: str) -> list[str]:
        found, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in pieces:
                    found.append(piece)
                    start = end
                    break
            else:
                return ["[UNK]"]
        return found

    letters = sorted({piece for piece in pieces if len(piece) == 1})
    for seed in range(100):
        word = "".join(random.Random(seed).choices([c for c in letters if c.isalpha()], k=1 + seed % 9))
        assert [WORDPIECE.token(id_) for id_ in WORDPIECE.encode(word)] == spell(word)


def test_wordpiece_joins_its_pieces_again() -> None:
    ids = WORDPIECE.encode("Readers read the data")
    assert WORDPIECE.decode(ids) == "readers read the data"
    assert WORDPIECE.decode([2, *ids, 3], show_special=True).startswith("[CLS] readers")
    assert WORDPIECE.decode([2, *ids, 3]) == "readers read the data"


def test_special_tokens_are_shown_only_when_asked() -> None:
    ids = [*BYTES.encode("a"), BYTES.eos_id, *BYTES.encode("b")]
    assert BYTES.decode(ids) == "ab"
    assert BYTES.decode(ids, show_special=True) == "a<eos>b"
    assert BYTES.token(256) == "<eos>"


def test_half_a_character_is_shown_as_a_replacement() -> None:
    assert BYTES.decode(BYTES.encode("é")[:1]) == "\ufffd"


@pytest.mark.parametrize("vocabulary", [BYTES, BPE, WORDPIECE, learned("bytes"), learned("bpe")])
def test_a_vocabulary_is_the_same_after_saving(vocabulary: Vocabulary, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(vocabulary.to_json())
    again = Vocabulary.load(tmp_path / "tokenizer.json")
    assert (again.kind, again.size, again.special) == (vocabulary.kind, vocabulary.size, vocabulary.special)
    assert again.encode(TEXT).tolist() == vocabulary.encode(TEXT).tolist()
    assert again.pieces == vocabulary.pieces


@pytest.mark.parametrize("content", ["", "{}", '{"model": {"type": "BPE"}', "[1]", "\udcff"])
def test_a_damaged_vocabulary_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match="vocabulary") as caught:
        Vocabulary.load(tmp_path / "tokenizer.json")
    assert "tokenizer.json" in caught.value.where
    with pytest.raises(DataError, match="cannot be read"):
        Vocabulary.load(tmp_path / "missing.json")


def test_ordinary_ids_are_all_but_the_special_ones() -> None:
    for vocabulary in (BYTES, BPE, WORDPIECE):
        assert sorted([*vocabulary.ordinary_ids.tolist(), *vocabulary.special.values()]) == list(range(vocabulary.size))
        assert (vocabulary.byte_lengths[vocabulary.ordinary_ids] > 0).all()
        assert vocabulary.byte_lengths[list(vocabulary.special.values())].sum() == 0


def test_ids_fit_their_type() -> None:
    assert BPE.encode("x").dtype == BPE.dtype == np.uint16


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_another_process_learns_the_same_vocabulary(kind: str) -> None:
    objective = "causal-lm" if kind == "bpe" else "masked-lm"
    program = (
        "import sys, hashlib\n"
        "from phalanx.data.learn import learn_vocabulary\n"
        "from phalanx.job import VocabularySpec\n"
        "from tests.data.conftest import sentences\n"
        f"v = learn_vocabulary(VocabularySpec(kind={kind!r}, size=700), {objective!r}, [sentences(300, 1), open('pyproject.toml').read()])\n"
        "print(hashlib.sha256(v.to_json().encode()).hexdigest())\n"
    )
    root = Path(__file__).parents[2]
    runs = [
        subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    ]
    assert len(set(runs)) == 1


def test_a_vocabulary_that_cannot_serve_is_refused_with_the_key() -> None:
    with pytest.raises(UnfitVocabulary, match="loses case") as caught:
        check_vocabulary(VocabularySpec(kind="wordpiece"), "causal-lm")
    assert caught.value.where == "spec.data.vocabulary.kind"
    with pytest.raises(UnfitVocabulary, match="no room") as caught:
        check_vocabulary(VocabularySpec(kind="bpe", size=256), "causal-lm")
    assert "258" in caught.value.remedy
    check_vocabulary(VocabularySpec(kind="bpe", size=258), "causal-lm")


def test_a_stream_of_ever_new_words_is_counted_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = learn_vocabulary(VocabularySpec(kind="wordpiece", size=300), "classify", TEXT.splitlines())
    most = 0

    class Watched(Counter[str]):
        def update(self, *words: Iterable[str], **more: int) -> None:  # type: ignore[override]
            nonlocal most
            super().update(*words, **more)
            most = max(most, len(self))

    monkeypatch.setattr(learn, "Counter", Watched)
    monkeypatch.setattr(learn, "_MOST_WORDS", 1000)
    noise = (f"x{number}y" for number in range(20_000))
    texts = (text for line in TEXT.splitlines() for text in (line, line, *itertools.islice(noise, 5)))
    bounded = learn_vocabulary(VocabularySpec(kind="wordpiece", size=300), "classify", texts)
    assert most < 1100
    frequent = [word for word, _ in Counter(TEXT.lower().split()).most_common(10)]
    assert all(bounded.token(int(bounded.encode(word)[0])) == word for word in frequent if len(whole.encode(word)) == 1)


def test_how_often_a_word_comes_does_not_decide_how_much_of_it_is_written_at_once() -> None:
    texts = list(learn._repeated(Counter({"a": 10_000, "b": 1}), {"a", "b"}))
    assert max(map(len, texts)) < 20_000
    assert Counter(word for text in texts for word in text.split()) == {"\ue000a": 10_000, "\ue000b": 1}
