"""Datasets for the tests of streams: no token is in two documents, so that a count of tokens is a count of places."""

from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from tokenizers import AddedToken, Tokenizer, models

from phalanx.data import Dataset, DatasetWriter, Vocabulary

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<eos>"]
WORDS = 6000
KEPT = TemporaryDirectory(prefix="phalanx-streams-")  # deleted when the session ends


@cache
def vocabulary(special: tuple[str, ...] = tuple(SPECIAL)) -> Vocabulary:
    names = [*special, *(f"w{number}" for number in range(WORDS))]
    tokenizer = Tokenizer(models.WordPiece(vocab={name: id_ for id_, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
    return Vocabulary(tokenizer)


def make(
    directory: Path, lengths: list[int], first: int = 0, shard_bytes: int = 100, held_out: int = 20
) -> tuple[Dataset, list[list[int]]]:
    """A dataset of documents of these lengths, and these; tokens are numbered from `first` on."""
    made = vocabulary()
    numbers = count(len(SPECIAL) + first)
    documents = [[next(numbers) for _ in range(length)] for length in lengths]
    with DatasetWriter(directory, made, shard_bytes=shard_bytes) as writer:
        for document in documents:
            writer.add("train", document, 2 * len(document))
        for start in range(0, held_out, 5):
            writer.add("held_out", list(range(100 + start, 105 + start)), 10)
        writer.finish()
    return Dataset.open(directory), documents


@cache
def made(lengths: tuple[tuple[int, ...], ...], shard_bytes: int) -> tuple[list[Dataset], list[list[list[int]]]]:
    """One dataset for each tuple of lengths; kept for the whole session, because many examples ask for the same."""
    root, first, found = Path(mkdtemp(dir=KEPT.name)), 0, []
    for place, own in enumerate(lengths):
        found.append(make(root / str(place), list(own), first, shard_bytes))
        first += sum(own)
    return [data for data, _ in found], [documents for _, documents in found]
