import pytest
import torch
from torch import nn

from benchmarks import same_loss
from benchmarks.harness import NotEqual
from phalanx.data import Batch, Corpus, Loader, LoaderSpec
from phalanx.models import ModelConfig, resolve
from tests.benchmarks.conftest import LENGTH


@pytest.fixture
def batch(small_corpus: Corpus) -> Batch:
    loader = Loader(small_corpus, LoaderSpec("masked-lm", LENGTH, 6, seed=4))
    return loader.micro_batches(0, 0, 1, 6)[0]


@pytest.fixture
def config(small_corpus: Corpus) -> ModelConfig:
    return resolve("bert-tiny", small_corpus.vocabulary.size + 7, LENGTH)


def test_the_same_weights_and_documents_give_the_same_loss_packed_and_padded(config: ModelConfig, batch: Batch) -> None:
    assert same_loss.check(config, batch, pad_id=0) <= same_loss.TOLERANCE


def test_a_weight_in_the_wrong_place_is_noticed(
    config: ModelConfig, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = same_loss.peer_of

    def wrong(ours: nn.Module) -> nn.Module:
        theirs = right(ours)
        attention = theirs.bert.encoder.layer[0].attention.self
        with torch.no_grad():
            attention.query.bias.copy_(attention.key.bias)
        return theirs

    monkeypatch.setattr(same_loss, "peer_of", wrong)
    with pytest.raises(NotEqual, match="the same weights and batch"):
        same_loss.check(config, batch, pad_id=0)
