import numpy as np
import pytest

from benchmarks.documents import IGNORED, documents_of, unpacked
from phalanx.data import Batch, Corpus, Loader, LoaderSpec
from tests.benchmarks.conftest import LENGTH


@pytest.fixture
def batch(small_corpus: Corpus) -> Batch:
    loader = Loader(small_corpus, LoaderSpec("masked-lm", LENGTH, 6, seed=4))
    return loader.micro_batches(2, 0, 1, 6)[0]


def test_the_documents_are_the_text_cut_into_pieces_between_cls_and_sep(small_corpus: Corpus) -> None:
    vocabulary, split = small_corpus.vocabulary, small_corpus.train
    found = sorted(tuple(document[1:-1].tolist()) for document in documents_of(small_corpus, LENGTH))
    expected = []
    for number in range(split.documents):
        whole = split.tokens[split.offsets[number] : split.offsets[number + 1]].tolist()
        pieces = [tuple(whole[start : start + LENGTH - 2]) for start in range(0, len(whole), LENGTH - 2)]
        expected += [piece for piece in pieces if len(piece) >= 3]
    assert found == sorted(expected)
    for document in documents_of(small_corpus, LENGTH):
        assert (document[0], document[-1]) == (vocabulary.cls_id, vocabulary.sep_id)
        assert len(document) <= LENGTH


def test_a_batch_taken_apart_has_every_token_and_every_target_once(batch: Batch) -> None:
    padded = unpacked(batch, pad_id=0)
    seen = batch.arrays["tokens"][batch.arrays["document"] > 0]
    assert sorted(padded.input_ids[padded.attention_mask == 1]) == sorted(seen)
    assert sorted(padded.labels[padded.labels != IGNORED]) == sorted(batch.arrays["targets"])
    assert padded.attention_mask.sum() == batch.real_tokens


def test_a_target_stays_where_it_was_in_its_document(batch: Batch) -> None:
    padded = unpacked(batch, pad_id=0)
    rows = iter(zip(padded.input_ids, padded.labels, strict=True))
    labels = np.full(batch.arrays["tokens"].size, IGNORED)
    labels[batch.arrays["positions"]] = batch.arrays["targets"]
    for tokens, document, wanted in zip(
        batch.arrays["tokens"], batch.arrays["document"], labels.reshape(batch.arrays["tokens"].shape), strict=True
    ):
        for number in np.unique(document[document > 0]):
            inside = document == number
            seen, kept = next(rows)
            assert seen[: inside.sum()].tolist() == tokens[inside].tolist()
            assert kept[: inside.sum()].tolist() == wanted[inside].tolist()
            assert (kept[inside.sum() :] == IGNORED).all()
    assert next(rows, None) is None
