"""Learns a vocabulary from text; the same text gives the same vocabulary on every machine and in every process.

Byte-level BPE (Sennrich 2016, over bytes as in GPT-2) by Hugging Face `tokenizers`. WordPiece is
learned by us from its BPE, because its own WordPiece trainer numbers pieces in the order of a
hash table and gives another vocabulary in each process (seen with tokenizers 0.23.3). Texts are read
as a stream: memory grows with the number of different words, which WordPiece bounds. Sees only
the texts it is handed: handing over training text alone is the caller's duty.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from phalanx.data.errors import UnfitVocabulary
from phalanx.data.vocabulary import SPECIALS, UNK, Vocabulary, byte_characters
from phalanx.job import VocabularySpec
from phalanx.job.spec import Objective

# A private-use character marks where a word begins while WordPiece is learned.
_WORD_START = "\ue000"
_LARGEST_ALPHABET_SHARE = 8
_MOST_WORDS = 4_000_000  # about 500 MB of counts
_REPEATED = 1 << 12  # words at a time: how often one is repeated to say how frequent it is


def check_vocabulary(spec: VocabularySpec, objective: Objective) -> None:
    """Raises UnfitVocabulary for a kind that cannot serve the objective, a size with no room for the bytes, or a file
    without the special tokens; DataError for a file that is no vocabulary."""
    kind = spec.kind
    if spec.path is not None:
        vocabulary = Vocabulary.open(Path(spec.path).expanduser())
        vocabulary.check_serves(objective, where=spec.path)
        kind = vocabulary.kind
    if kind == "wordpiece" and objective in ("causal-lm", "translate"):
        raise UnfitVocabulary(
            "a wordpiece vocabulary loses case and space, so a model of it cannot write text",
            where="spec.data.vocabulary.kind",
            remedy="use bytes or bpe",
        )
    least = 256 + len(SPECIALS[objective]) + 1
    if spec.path is None and kind == "bpe" and spec.size < least:
        raise UnfitVocabulary(
            f"a bpe vocabulary of {spec.size} has no room for 256 bytes, special tokens and a merge",
            where="spec.data.vocabulary.size",
            remedy=f"use at least {least}, or kind: bytes",
        )


def describe_vocabulary(spec: VocabularySpec) -> dict[str, Any]:
    """All that decides what `learn_vocabulary` gives for the same texts; JSON-safe."""
    if spec.path is not None:
        content = Vocabulary.open(Path(spec.path).expanduser()).to_json()
        return {"vocabulary": hashlib.sha256(content.encode()).hexdigest()}
    return {"vocabulary": spec.kind, "size": None if spec.kind == "bytes" else spec.size}


def vocabulary_of_bytes(objective: Objective) -> Vocabulary:
    """256 tokens, the byte b with id b, then the special tokens. Nothing is learned."""
    return _byte_level({character: byte for byte, character in enumerate(byte_characters())}, [], objective)


def learn_vocabulary(spec: VocabularySpec, objective: Objective, texts: Iterable[str]) -> Vocabulary:
    """A vocabulary of at most `spec.size` entries (fewer when the text has not that much in it), or the one that
    `spec.path` names. Raises what `check_vocabulary` does."""
    check_vocabulary(spec, objective)
    if spec.path is not None:
        return Vocabulary.open(Path(spec.path).expanduser())
    if spec.kind == "bytes":
        return vocabulary_of_bytes(objective)
    if spec.kind == "bpe":
        return _learn_bpe(spec.size, objective, texts)
    return _learn_wordpiece(spec.size, objective, texts)


def _byte_level(vocabulary: dict[str, int], merges: list[tuple[str, str]], objective: Objective) -> Vocabulary:
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=bool(merges))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS[objective]])
    return Vocabulary(tokenizer)


def _learn_bpe(size: int, objective: Objective, texts: Iterable[str]) -> Vocabulary:
    """Special tokens get the last ids. No merge can spell one: GPT-2's pattern never joins letters and brackets."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size - len(SPECIALS[objective]), show_progress=False, initial_alphabet=sorted(byte_characters())
        ),
    )
    learned = json.loads(learner.to_str())["model"]
    return _byte_level(learned["vocab"], [(left, right) for left, right in learned["merges"]], objective)


def _learn_wordpiece(size: int, objective: Objective, texts: Iterable[str]) -> Vocabulary:
    """Pieces of lower-cased words without accents, as BERT's uncased models have them; special tokens first.

    BPE over words with a start mark learns which pieces begin a word; a merge that holds the mark
    becomes a word's beginning, any other a continuation `##...`. Of more than 4 million different words the rarest
    are dropped while counting, until half as many are left; one that comes again is counted anew.
    """
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
        if len(words) > _MOST_WORDS:
            words = _most_frequent(words, _MOST_WORDS // 2)
    specials = SPECIALS[objective]
    pieces = [*specials, *_learn_pieces(size - len(specials), words)]
    ids = {piece: id_ for id_, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocab=ids, unk_token=UNK, continuing_subword_prefix="##"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    return Vocabulary(tokenizer)


def _most_frequent(words: Counter[str], count: int) -> Counter[str]:
    """Of equally frequent ones those that come first in the alphabet."""
    ranked = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    return Counter(dict(ranked[:count]))


def _repeated(words: Counter[str], alphabet: set[str]) -> Iterator[str]:
    """Each word that is spelled in `alphabet` as often as it was counted, in an order of its own."""
    for word, count in sorted(words.items()):
        if alphabet.issuperset(word):
            for start in range(0, count, _REPEATED):
                yield " ".join([_WORD_START + word] * min(_REPEATED, count - start))


def _learn_pieces(size: int, words: Counter[str]) -> list[str]:
    """The alphabet, alone and as continuation, then merges in the order learned: at most `size` pieces."""
    characters: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            characters[character] += count
    characters.pop(_WORD_START, None)
    ranked = sorted(characters, key=lambda character: (-characters[character], character))
    alphabet = sorted(ranked[: max(size // _LARGEST_ALPHABET_SHARE, 1)])
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    learner.train_from_iterator(
        _repeated(words, set(alphabet)),
        # Room for all merges, also for those that only join the mark to a first letter.
        trainers.BpeTrainer(
            vocab_size=size + len(alphabet) + 1,
            show_progress=False,
            initial_alphabet=[_WORD_START, *alphabet],
            limit_alphabet=len(alphabet) + 1,
        ),
    )
    learned = sorted(learner.get_vocab().items(), key=lambda item: item[1])
    pieces = dict.fromkeys([*alphabet, *("##" + character for character in alphabet)])
    for token, _ in learned:
        piece = token.removeprefix(_WORD_START) if token.startswith(_WORD_START) else "##" + token
        if len(pieces) < size and piece and (len(piece.removeprefix("##")) > 1):
            pieces[piece] = None
    return list(pieces)
