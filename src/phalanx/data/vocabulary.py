"""Text to tokens and back: bytes, byte-level BPE, or WordPiece, each kept as one Hugging Face `tokenizer.json`.

Special tokens never come out of text: a document that spells `[MASK]` is encoded as the
characters it is. BERT's and GPT-2's own files are read too. Knows nothing of splits or training; `data.learn`
makes vocabularies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from phalanx.data.errors import DataError, UnfitVocabulary
from phalanx.job.spec import Objective, VocabularyKind

PAD, UNK, CLS, SEP, MASK, BOS, EOS = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<bos>", "<eos>"
_BERT = (PAD, UNK, CLS, SEP, MASK)
SPECIALS: dict[Objective, tuple[str, ...]] = {
    "causal-lm": (EOS,),
    "masked-lm": _BERT,
    "classify": _BERT,
    "regress": _BERT,
    "tag": _BERT,
    "translate": (PAD, UNK, BOS, EOS),
}
# Under which names the tokens of a vocabulary made elsewhere are found; the first is ours.
ROLES: dict[str, tuple[str, ...]] = {
    PAD: (PAD, "<pad>", "<|pad|>", "<|finetune_right_pad_id|>"),
    UNK: (UNK, "<unk>"),
    CLS: (CLS,),
    SEP: (SEP,),
    MASK: (MASK, "<mask>"),
    BOS: (BOS, "[BOS]", "<s>", "<|begin_of_text|>"),
    EOS: (EOS, "[EOS]", "<|endoftext|>", "</s>", "<|end_of_text|>"),
}
_NEEDED: dict[Objective, tuple[str, ...]] = {  # a word that cannot be spelled is rare, and BPE has none
    "causal-lm": (EOS,),
    "masked-lm": (PAD, CLS, SEP, MASK),
    "classify": (PAD, CLS, SEP),
    "regress": (PAD, CLS, SEP),
    "tag": (PAD, CLS, SEP),
    "translate": (PAD, BOS, EOS),
}
FILES = ("tokenizer.json", "vocab.txt", "vocab.json")
_MERGES, _CONFIG = "merges.txt", "tokenizer_config.json"
_LONGEST_WORD = 100  # characters: BERT makes a longer one unknown


def byte_characters() -> list[str]:
    """The printable character that stands for each byte in byte-level vocabularies (GPT-2's `bytes_to_unicode`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    characters = {byte: chr(byte) for byte in printable}
    others = [byte for byte in range(256) if byte not in characters]
    characters.update({byte: chr(256 + place) for place, byte in enumerate(others)})
    return [characters[byte] for byte in range(256)]


class Vocabulary:
    """Tokens by id. `kind`, `size` (entries, special ones included) and ids of special tokens, None where absent."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.encode_special_tokens = True  # encode their spelling as ordinary text
        tokenizer.no_truncation()  # which a file from elsewhere may ask for
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.kind: VocabularyKind = _kind(tokenizer)
        self.size: int = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        added = tokenizer.get_added_tokens_decoder()
        self._added: dict[str, int] = {token.content: id_ for id_, token in added.items()}
        self.special: dict[str, int] = {token.content: id_ for id_, token in added.items() if token.special}
        self.pad_id = self._role(PAD)
        self.unk_id = self._role(UNK)
        self.cls_id = self._role(CLS)
        self.sep_id = self._role(SEP)
        self.mask_id = self._role(MASK)
        self.bos_id = self._role(BOS)
        self.eos_id = self._role(EOS)

    def _role(self, role: str) -> int | None:
        return next((self.special[name] for name in ROLES[role] if name in self.special), None)

    def check_serves(self, objective: Objective, where: str = "") -> None:
        """Raises UnfitVocabulary when it lacks a special token that the objective needs."""
        missing = [role for role in _NEEDED[objective] if self._role(role) is None]
        if missing:
            raise UnfitVocabulary(
                f"the vocabulary has no {', '.join(missing)}, which {objective} needs",
                where=where or "spec.data.vocabulary",
                remedy="use one that was made for it, or let the job learn its own",
            )

    def table(self) -> dict[str, int]:
        """Every token and its id."""
        return dict(self._tokenizer.get_vocab(with_added_tokens=True))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest of uint16 and uint32 that holds every id."""
        return np.dtype(np.uint16 if self.size <= 1 << 16 else np.uint32)

    @cached_property
    def ordinary_ids(self) -> NDArray[np.int64]:
        """Ids of all tokens that are not special, ascending."""
        return np.setdiff1d(np.arange(self.size), np.fromiter(self.special.values(), np.int64))

    @cached_property
    def pieces(self) -> tuple[bytes, ...]:
        """UTF-8 bytes of each token (of part of a character, for byte-level ones); special tokens are empty."""
        table = self._tokenizer.get_vocab(with_added_tokens=True)
        pieces = [b""] * self.size
        byte_of = {character: byte for byte, character in enumerate(byte_characters())}
        for token, id_ in table.items():
            if token in self.special:
                continue
            if token in self._added:  # a word of its own, spelled as it is
                pieces[id_] = token.encode()
            elif self.kind == "wordpiece":
                pieces[id_] = token.removeprefix("##").encode()
            else:
                pieces[id_] = bytes(byte_of[character] for character in token)
        return tuple(pieces)

    @cached_property
    def byte_lengths(self) -> NDArray[np.int64]:
        """int64 [size]: bytes of text that each token stands for; 0 for special tokens."""
        return np.array([len(piece) for piece in self.pieces], np.int64)

    @property
    def is_lossless(self) -> bool:
        """Whether the tokens of a text give back every byte of it (WordPiece loses case and space)."""
        return self.kind != "wordpiece"

    def encode(self, text: str) -> NDArray[Any]:
        """Ids of `text`, [n], without special tokens (but [UNK] for a word that WordPiece cannot spell)."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        """Ids of each text."""
        if self.kind == "bytes":
            return [np.frombuffer(text.encode(), np.uint8).astype(self.dtype) for text in texts]
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, self.dtype) for encoding in encodings]

    def decode_bytes(self, ids: Sequence[int] | NDArray[Any]) -> bytes:
        """Bytes of the tokens one after the other; special tokens give none."""
        pieces = self.pieces
        return b"".join(pieces[int(id_)] for id_ in ids)

    def decode(self, ids: Sequence[int] | NDArray[Any], *, show_special: bool = False) -> str:
        """Text of the tokens; `show_special`: spell special tokens out. Bytes that are not UTF-8 become U+FFFD."""
        if self.kind == "wordpiece":
            return str(self._tokenizer.decode([int(id_) for id_ in ids], skip_special_tokens=not show_special))
        if not show_special:
            return self.decode_bytes(ids).decode("utf-8", errors="replace")
        names = {id_: name.encode() for name, id_ in self.special.items()}
        return b"".join(names.get(int(id_), self.pieces[int(id_)]) for id_ in ids).decode("utf-8", errors="replace")

    def token(self, id_: int) -> str:
        """One token as a person reads it, such as `##ing` or a special token's name."""
        for name, special_id in self.special.items():
            if special_id == id_:
                return name
        if self.kind == "wordpiece":
            return str(self._tokenizer.id_to_token(int(id_)))
        return self.pieces[int(id_)].decode("utf-8", errors="replace")

    def to_json(self) -> str:
        """The content of `tokenizer.json`."""
        return str(self._tokenizer.to_str(pretty=True))

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """From a `tokenizer.json`. Raises DataError when it is missing or damaged."""
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"the vocabulary cannot be read ({error})", where=str(path), remedy="run the job again"
            ) from error
        return cls(_parsed(text, path))

    @classmethod
    def open(cls, path: Path) -> Vocabulary:
        """From `tokenizer.json`, BERT's `vocab.txt` or GPT-2's `vocab.json` and `merges.txt`; `path`: the file, or a
        directory of a model, a run or a checkpoint.

        `tokenizer_config.json` beside BERT's or GPT-2's files is heeded: `do_lower_case`, `strip_accents`,
        `tokenize_chinese_chars`, `add_prefix_space`. Raises DataError for what is none of these, or damaged.
        """
        file = _find(path)
        made = (
            _bert_files
            if file.name.endswith("vocab.txt")
            else _gpt2_files
            if file.name.endswith("vocab.json")
            else None
        )
        tokenizer = made(file) if made else _parsed(_text_of(file), file)
        try:
            return cls(tokenizer)
        except DataError as error:
            raise DataError(error.message, where=str(file), remedy=error.remedy) from error


def _kind(tokenizer: Tokenizer) -> VocabularyKind:
    """Raises DataError for a kind that we cannot give back bytes of."""
    whole: dict[str, Any] = json.loads(tokenizer.to_str())
    model = whole["model"]
    if model["type"] == "WordPiece":
        return "wordpiece"
    if model["type"] != "BPE" or not _is_byte_level(whole):
        raise DataError(
            f"a vocabulary of the kind {model['type']}" + (" that is not byte-level" if model["type"] == "BPE" else ""),
            remedy="use WordPiece (BERT's) or byte-level BPE (GPT-2's)",
        )
    own = all(model["vocab"].get(character) == byte for byte, character in enumerate(byte_characters()))
    return "bpe" if model["merges"] or not own else "bytes"


def _is_byte_level(whole: dict[str, Any]) -> bool:
    """Whether the text is split over bytes, by one of its steps."""
    step = whole["pre_tokenizer"] or {}
    return any(part["type"] == "ByteLevel" for part in [step, *step.get("pretokenizers", [])] if part)


def _find(path: Path) -> Path:
    """The file of a vocabulary at or below `path`."""
    if path.is_file():
        return path
    below = [path, path / "data", *sorted(path.glob("step-*")), *sorted(path.glob("checkpoints/step-*"))]
    for file in (directory / name for directory in below for name in FILES):
        if file.is_file():
            return file
    raise DataError(
        f"there is no vocabulary here: none of {', '.join(FILES)}" if path.exists() else "there is no such path",
        where=str(path),
        remedy="name a directory of a model, a run or a checkpoint, or the file itself",
    )


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the vocabulary cannot be read ({error})", where=str(path), remedy="fetch it again, or name another"
        ) from error


def _parsed(text: str, path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception for every malformed file
        raise DataError(
            f"is not a vocabulary ({error})", where=str(path), remedy="write it again: run the job, or fetch the file"
        ) from error


def _json_of(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text_of(path))
    except ValueError as error:
        raise DataError(f"is not JSON ({error})", where=str(path), remedy="fetch it again") from error
    if not isinstance(value, dict):
        raise DataError("is no JSON object", where=str(path), remedy="fetch it again")
    return value


def _config_beside(path: Path) -> dict[str, Any]:
    file = path.parent / _CONFIG
    return _json_of(file) if file.is_file() else {}


def _bert_files(path: Path) -> Tokenizer:
    """A token a line, its number the id; BERT's uncased models say nothing, its cased ones `do_lower_case: false`."""
    tokens = _text_of(path).removesuffix("\n").split("\n")
    ids = {token.removesuffix("\r"): id_ for id_, token in enumerate(tokens)}
    if len(ids) != len(tokens) or UNK not in ids:
        what = f"has no {UNK}" if UNK not in ids else "holds a token twice"
        raise DataError(f"is not BERT's vocabulary: it {what}", where=str(path), remedy="fetch it again")
    config = _config_beside(path)
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=UNK, max_input_chars_per_word=_LONGEST_WORD))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=bool(config.get("do_lower_case", True)),
        strip_accents=config.get("strip_accents"),
        handle_chinese_chars=bool(config.get("tokenize_chinese_chars", True)),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return _with_specials(tokenizer, ids)


def _gpt2_files(path: Path) -> Tokenizer:
    ids = _json_of(path)
    file = path.with_name(path.name.removesuffix("vocab.json") + _MERGES)
    merges = []
    for number, line in enumerate(_text_of(file).split("\n"), start=1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        left, _, right = line.removesuffix("\r").partition(" ")
        if not right or " " in right or not {left, right, left + right} <= ids.keys():
            raise DataError(
                f"line {number:,} is no merge of two tokens of the vocabulary: {line[:40]!r}",
                where=str(file),
                remedy="vocab.json and merges.txt must be of one model: fetch both again",
            )
        merges.append((left, right))
    missing = [character for character in byte_characters() if character not in ids]
    if missing or not all(type(id_) is int and id_ >= 0 for id_ in ids.values()):
        what = f"{len(missing)} bytes have no token" if missing else "an id is no number"
        raise DataError(f"is not GPT-2's vocabulary: {what}", where=str(path), remedy="fetch it again")
    tokenizer = Tokenizer(models.BPE(ids, merges))
    prefix = bool(_config_beside(path).get("add_prefix_space", False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    return _with_specials(tokenizer, ids)


def _with_specials(tokenizer: Tokenizer, ids: Mapping[str, int]) -> Tokenizer:
    usual = (name for names in ROLES.values() for name in names)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in usual if name in ids])
    return tokenizer
