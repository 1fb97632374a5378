from collections.abc import Callable

import pytest
import torch

from benchmarks.harness import NotEqual
from phalanx.data import Batch, Corpus, Loader, LoaderSpec
from phalanx.models import ModelConfig, build, resolve
from tests.benchmarks.conftest import LENGTH

pytest.importorskip("transformers", reason="the peer is not installed: `make bench` does that")

from benchmarks import same_loss


@pytest.fixture
def batch(small_corpus: Corpus) -> Batch:
    loader = Loader(small_corpus, LoaderSpec("masked-lm", LENGTH, 6, seed=4))
    return loader.micro_batches(0, 0, 1, 6)[0]


@pytest.fixture
def config(small_corpus: Corpus) -> ModelConfig:
    return resolve("bert-tiny", small_corpus.vocabulary.size + 7, LENGTH)


def test_the_same_weights_and_documents_give_the_same_loss_packed_and_padded(config: ModelConfig, batch: Batch) -> None:
    assert same_loss.check(config, batch, pad_id=0) <= same_loss.TOLERANCE


def test_every_weight_of_ours_has_one_place_at_the_peer_and_none_is_left_over(config: ModelConfig) -> None:
    theirs = same_loss.BertForMaskedLM(same_loss.BertConfig(**same_loss.bert_values(config))).state_dict()
    translated = same_loss.translated(build(config))
    assert translated.keys() == theirs.keys()
    assert {name: tensor.shape for name, tensor in translated.items()} == {n: t.shape for n, t in theirs.items()}


def test_a_weight_in_the_wrong_place_is_noticed(
    config: ModelConfig, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    right: Callable[..., dict[str, torch.Tensor]] = same_loss.translated

    def wrong(ours: torch.nn.Module) -> dict[str, torch.Tensor]:
        state = right(ours)
        query, key = (f"bert.encoder.layer.0.attention.self.{which}.bias" for which in ("query", "key"))
        return state | {query: state[key], key: state[query]}

    monkeypatch.setattr(same_loss, "translated", wrong)
    with pytest.raises(NotEqual, match="the same weights and batch"):
        same_loss.check(config, batch, pad_id=0)
