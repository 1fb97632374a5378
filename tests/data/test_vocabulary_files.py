"""BERT's and GPT-2's own files, read as `transformers` reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import BertTokenizerFast, GPT2TokenizerFast

from phalanx.data.errors import DataError, UnfitVocabulary
from phalanx.data.learn import learn_vocabulary
from phalanx.data.vocabulary import SPECIALS, Vocabulary, byte_characters
from phalanx.job import VocabularySpec
from tests.data.conftest import sentences

ADVERSARIAL = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("aeéÉïİßﬁǅ 中文字々\u0301\u200d\ufeff\u00ad\x00\t\r\n\u2028 .,'’“-_[]<|>🙂🇩🇪"),
    ),
    max_size=60,
)
FIXED = [
    "",
    " ",
    "[MASK] [CLS]it's[SEP]",
    "<|endoftext|> and <|endoftext|>",
    "x" * 120,
    "naïve CAFÉ\u0301 ǅ İstanbul ﬁn",
    "中文 字",
    "don't WE'LL  two  spaces\n\n\ttab",
    "\x00\ufffd\u200b",
    "🙂🇩🇪 e\u0301",
]


def bert_files(directory: Path, **config: Any) -> Path:
    """As google-research/bert published them."""
    words = sentences(300) + " café CAFÉ Straße it's 中 文 İ ﬁ , . ! [ ] ' < > |"
    letters = sorted({letter for letter in words + words.lower() if not letter.isspace()} | set("eénaïstxß"))
    pieces = sorted({word for word in words.split() if word not in letters})
    tokens = [*SPECIALS["masked-lm"], "[unused0]", *letters, *(f"##{letter}" for letter in letters), *pieces]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "vocab.txt").write_text("\n".join(dict.fromkeys(tokens)) + "\n", "utf-8")
    if config:
        (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


def gpt2_files(directory: Path) -> Path:
    """As openai/gpt-2 published them: merges after a line with a version, the end mark last."""
    learned = learn_vocabulary(VocabularySpec(kind="bpe", size=500), "causal-lm", [sentences(300)])
    model = json.loads(learned.to_json())["model"]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "vocab.json").write_text(json.dumps(model["vocab"] | {"<|endoftext|>": len(model["vocab"])}))
    merges = "".join(f"{left} {right}\n" for left, right in model["merges"])
    (directory / "merges.txt").write_text("#version: 0.2\n" + merges, "utf-8")
    return directory


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Vocabulary, Any]]:
    """Ours and transformers' of the same files."""
    root = tmp_path_factory.mktemp("files")
    made = []
    for name, config in (
        ("uncased", {}),
        ("cased", {"do_lower_case": False}),
        ("accents", {"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": False}),
    ):
        directory = bert_files(root / name, **config)
        made.append((Vocabulary.open(directory), BertTokenizerFast.from_pretrained(directory)))
    directory = gpt2_files(root / "gpt2")
    made.append((Vocabulary.open(directory / "vocab.json"), GPT2TokenizerFast.from_pretrained(directory)))
    made[0][1].save_pretrained(root / "saved")  # tokenizer.json
    made.append((Vocabulary.open(root / "saved"), made[0][1]))
    made.append((Vocabulary.open(directory), made[3][1]))
    return made


def same(pairs: list[tuple[Vocabulary, Any]], text: str) -> None:
    for ours, theirs in pairs:
        expected = theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert ours.encode(text).tolist() == expected
        assert not set(expected) & (set(ours.special.values()) - {ours.unk_id})


@pytest.mark.parametrize("text", FIXED)
def test_our_tokens_are_those_of_transformers(pairs: list[tuple[Vocabulary, Any]], text: str) -> None:
    same(pairs, text)


@given(ADVERSARIAL)
def test_our_tokens_are_those_of_transformers_for_any_text(pairs: list[tuple[Vocabulary, Any]], text: str) -> None:
    same(pairs, text)


@given(ADVERSARIAL)
def test_gpt_2_s_tokens_give_the_text_back(pairs: list[tuple[Vocabulary, Any]], text: str) -> None:
    ours = pairs[3][0]
    assert ours.decode(ours.encode(text)) == text
    assert ours.byte_lengths[ours.encode(text)].sum() == len(text.encode())


def test_special_tokens_are_found_by_their_usual_names(pairs: list[tuple[Vocabulary, Any]]) -> None:
    bert, gpt2 = pairs[0][0], pairs[3][0]
    assert (bert.pad_id, bert.unk_id, bert.cls_id, bert.sep_id, bert.mask_id) == (0, 1, 2, 3, 4)
    assert (gpt2.eos_id, gpt2.pad_id, gpt2.size) == (pairs[3][1].eos_token_id, None, len(pairs[3][1]))
    assert gpt2.kind == "bpe"
    bert.check_serves("classify")
    gpt2.check_serves("causal-lm")
    with pytest.raises(UnfitVocabulary, match=r"no \[PAD\], \[CLS\], \[SEP\]"):
        gpt2.check_serves("classify")


def test_a_vocabulary_of_ours_is_found_in_a_run_and_in_its_checkpoints(tmp_path: Path) -> None:
    ours = learn_vocabulary(VocabularySpec(kind="wordpiece", size=300), "classify", [sentences(100)])
    for place in ("model", "run/data", "other/checkpoints/step-00000010"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "tokenizer.json").write_text(ours.to_json())
    for path in ("model", "model/tokenizer.json", "run", "other", "other/checkpoints"):
        assert Vocabulary.open(tmp_path / path).to_json() == ours.to_json()


def test_bytes_in_another_order_are_not_taken_for_the_byte_vocabulary(tmp_path: Path) -> None:
    ids = {character: 255 - byte for byte, character in enumerate(byte_characters())}
    (tmp_path / "vocab.json").write_text(json.dumps(ids))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    opened = Vocabulary.open(tmp_path)
    assert opened.encode("az").tolist() == [255 - ord("a"), 255 - ord("z")]


def test_what_a_file_says_of_cutting_and_padding_is_not_heeded(tmp_path: Path) -> None:
    saved = BertTokenizerFast.from_pretrained(bert_files(tmp_path))
    saved.backend_tokenizer.enable_truncation(3)
    saved.backend_tokenizer.enable_padding(length=9)
    (tmp_path / "tokenizer.json").write_text(saved.backend_tokenizer.to_str())
    assert len(Vocabulary.open(tmp_path).encode("a b c d e")) == 5


WRONG = {
    "vocab.txt": [
        (b"[PAD]\n[UNK]\na\na\n", "a token twice"),
        (b"[PAD]\na\n", "no [UNK]"),
        (b"[UNK]\n\xff\n", "cannot be read"),
    ],
    "tokenizer.json": [(b"{}", "is not a vocabulary"), (b'{"version": "1.0", "mod', "is not a vocabulary")],
    "vocab.json": [(b'{"a": 0}', "255 bytes have no token"), (b"[1]", "no JSON object"), (b"{", "is not JSON")],
}


@pytest.mark.parametrize(("name", "data", "message"), [(n, *case) for n, cases in WRONG.items() for case in cases])
def test_a_damaged_file_is_named(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "merges.txt").write_text("")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        Vocabulary.open(tmp_path)
    assert message in caught.value.message
    assert caught.value.where.endswith(name)
    assert caught.value.remedy


def test_merges_of_another_model_are_named_by_their_line(tmp_path: Path) -> None:
    gpt2_files(tmp_path)
    with (tmp_path / "merges.txt").open("a") as file:
        file.write("qqq zzz\n")
    lines = (tmp_path / "merges.txt").read_text().count("\n")
    with pytest.raises(DataError, match=f"line {lines} is no merge") as caught:
        Vocabulary.open(tmp_path)
    assert caught.value.where.endswith("merges.txt")


def test_a_vocabulary_of_sentence_pieces_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(Tokenizer(models.Unigram([("a", -1.0)])).to_str())
    with pytest.raises(DataError, match="kind Unigram"):
        Vocabulary.open(tmp_path)
    with pytest.raises(DataError, match="there is no vocabulary here"):
        Vocabulary.open(_empty(tmp_path))


def _empty(directory: Path) -> Path:
    made = directory / "empty"
    made.mkdir()
    return made
