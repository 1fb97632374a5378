"""Text to tokens and back: bytes, byte-level BPE, or WordPiece, each kept as one Hugging Face `tokenizer.json`.

Special tokens never come out of text: a document that spells `[MASK]` is encoded as the
characters it is. Knows nothing of files, splits or training; `data.learn` makes vocabularies.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from phalanx.data.errors import DataError
from phalanx.job.spec import Objective, VocabularyKind

PAD, UNK, CLS, SEP, MASK, EOS = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<eos>"
SPECIALS: dict[Objective, tuple[str, ...]] = {"causal-lm": (EOS,), "masked-lm": (PAD, UNK, CLS, SEP, MASK)}


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
        self._tokenizer = tokenizer
        model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
        self.kind: VocabularyKind = (
            "wordpiece" if model["type"] == "WordPiece" else "bpe" if model.get("merges") else "bytes"
        )
        self.size: int = tokenizer.get_vocab_size(with_added_tokens=True)
        self.special: dict[str, int] = {
            token.content: id_ for id_, token in tokenizer.get_added_tokens_decoder().items() if token.special
        }
        self.pad_id = self.special.get(PAD)
        self.unk_id = self.special.get(UNK)
        self.cls_id = self.special.get(CLS)
        self.sep_id = self.special.get(SEP)
        self.mask_id = self.special.get(MASK)
        self.eos_id = self.special.get(EOS)

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
            if self.kind == "wordpiece":
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
        try:
            return cls(Tokenizer.from_str(text))
        except Exception as error:  # the library raises bare Exception for every malformed file
            raise DataError(f"is not a vocabulary ({error})", where=str(path), remedy="run the job again") from error
