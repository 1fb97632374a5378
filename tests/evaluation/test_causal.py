import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from phalanx.data import Corpus, Split, prepare
from phalanx.data.sampling import SampledCorpus
from phalanx.evaluation import causal
from phalanx.evaluation.causal import CONTEXT_SHARE, cut, score
from phalanx.models import Decoder
from tests.evaluation.runs import SEQUENCE, Trained, make_job
from tests.evaluation.test_ngram import SlowModel

END = 256


def quiet(stage: str, share: float) -> None:
    """Progress that nobody watches."""


class Uniform(nn.Module):
    """Knows nothing."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*tokens.shape, self.size)


@given(st.integers(1, 300), st.integers(2, 40), st.integers(1, 400))
def test_blocks_predict_each_place_once_from_enough_text(tokens: int, sequence: int, most: int) -> None:
    blocks = cut(tokens, sequence, most)
    targets = blocks.targets
    assert (np.diff(targets) > 0).all(), "no place twice"
    assert targets[0] >= 1
    assert targets[-1] <= tokens
    step = blocks.length - blocks.length // CONTEXT_SHARE
    assert len(targets) <= max(most, step)
    if most >= tokens + step:
        assert len(targets) == tokens, "all of a small text"
    assert (blocks.windows >= 0).all()
    assert (blocks.windows + blocks.length <= tokens).all(), "the last token read has a successor"
    for window, first, last in zip(blocks.windows, blocks.first, blocks.last, strict=True):
        assert window + blocks.length >= last, "the window reaches to the place before the last"
        assert first - window > min(blocks.length // CONTEXT_SHARE, first - 1), "what lies before a target"


def test_a_sample_is_spread_over_all_of_the_text() -> None:
    targets = cut(100_000, 64, 5_000).targets
    assert targets[0] == 1
    assert targets[-1] == 100_000
    assert np.bincount(targets // 10_001).min() > 300


def naive_costs(module: Decoder, corpus: Corpus) -> list[float]:
    """Nats of each held-out token, one window at a time, as `causal` says it: an end mark, then the text."""
    stream = [END, *corpus.held_out.tokens.tolist()]
    costs = []
    step = SEQUENCE - SEQUENCE // 4
    for first in range(1, len(stream), step):
        last = min(first + step, len(stream)) - 1
        begin = max(0, last - SEQUENCE)
        with torch.no_grad():
            logits = module(torch.tensor([stream[begin:last]]))[0]
        places = range(first, last + 1)
        costs += [float(F.cross_entropy(logits[at - 1 - begin], torch.tensor(stream[at]))) for at in places]
    return costs


def test_the_model_is_scored_as_a_plain_loop_does(decoder: Trained) -> None:
    scores = score(decoder.module, decoder.corpus, SEQUENCE, quiet)
    costs = naive_costs(decoder.module, decoder.corpus)
    size = decoder.corpus.manifest.held_out.bytes
    assert scores.model.value == pytest.approx(sum(costs) / math.log(2) / size, rel=1e-5)
    assert scores.loss == pytest.approx(sum(costs) / len(costs), rel=1e-5)
    assert scores.tokens == len(costs) == len(decoder.corpus.held_out.tokens)
    assert dict(scores.split) == {
        "files": decoder.corpus.manifest.held_out.files,
        "bytes": size,
        "tokens": len(costs),
    }


def test_a_model_of_single_documents_reads_each_alone(decoder: Trained) -> None:
    """Short documents, so that windows hold several; a plain loop gives the model one at a time."""
    whole = decoder.corpus.held_out.tokens
    documents = [np.append(whole[start : start + 11], END) for start in range(0, 600, 11)]
    tokens = np.concatenate(documents).astype(np.uint16)
    text = Split(tokens, np.arange(0, len(tokens) + 1, 12))
    corpus = decoder.corpus
    corpus = SampledCorpus(corpus.directory, corpus.manifest, corpus.vocabulary, corpus.train, text)
    stream = [END, *tokens.tolist()]
    owner = [-1, *(place // 12 for place in range(len(tokens)))]
    costs = []
    step = SEQUENCE - SEQUENCE // 4
    for first in range(1, len(stream), step):
        last = min(first + step, len(stream)) - 1
        begin = max(0, last - SEQUENCE)
        for at in range(first, last + 1):
            if owner[at] == owner[at - 1]:
                seen = [place for place in range(begin, at) if owner[place] == owner[at]]
                with torch.no_grad():
                    logits = decoder.module(torch.tensor([[stream[place] for place in seen]]))[0, -1]
                costs.append(float(F.cross_entropy(logits, torch.tensor(stream[at]))))
    scores = score(decoder.module, corpus, SEQUENCE, quiet, cross=False)
    assert scores.tokens == len(costs) == 11 * len(documents)
    assert scores.loss == pytest.approx(sum(costs) / len(costs), rel=1e-5)
    assert scores.split["bytes"] == 10 * len(documents)
    assert score(decoder.module, corpus, SEQUENCE, quiet).loss != pytest.approx(scores.loss, rel=1e-3)


def test_tables_are_scored_as_dictionaries_do(decoder: Trained) -> None:
    scores = score(Uniform(257), decoder.corpus, SEQUENCE, quiet)
    train, text = decoder.corpus.train.tokens.tolist(), decoder.corpus.held_out.tokens.tolist()
    for order, baseline in zip((1, 4, 6), scores.baselines, strict=True):
        slow = SlowModel(train, order)
        nats = sum(slow.cost(text, place) for place in range(len(text)))
        assert baseline.value == pytest.approx(nats / math.log(2) / scores.split["bytes"], rel=1e-9)
    assert scores.strongest == "6-gram"


def test_a_model_that_knows_nothing_costs_eight_bits_and_a_little(decoder: Trained) -> None:
    scores = score(Uniform(257), decoder.corpus, SEQUENCE, quiet)
    counts = decoder.corpus.manifest.held_out
    assert scores.model.value == pytest.approx(math.log2(257) * counts.tokens / counts.bytes)
    assert not scores.beats_strongest


def test_a_sample_is_the_same_for_model_and_tables(decoder: Trained) -> None:
    """A uniform model and the unigram table tell which tokens were asked: bytes of the sample, and their frequencies."""
    whole = score(Uniform(257), decoder.corpus, SEQUENCE, quiet)
    part = score(Uniform(257), decoder.corpus, SEQUENCE, quiet, max_tokens=4000)
    assert 3000 < part.tokens < 4100 < whole.tokens
    blocks = cut(len(decoder.corpus.held_out.tokens), SEQUENCE, 4000)
    asked = decoder.corpus.held_out.tokens[blocks.targets - 1]
    slow = SlowModel(decoder.corpus.train.tokens.tolist(), 1)
    nats = sum(slow.cost(asked.tolist(), place) for place in range(len(asked)))
    assert part.split["bytes"] == int((asked < 256).sum())
    assert part.baselines[0].value == pytest.approx(nats / math.log(2) / part.split["bytes"])
    assert part.split["files"] == whole.split["files"], "spread over all files"
    assert part.model.value == pytest.approx(whole.model.value, rel=0.01)


def test_sub_word_tokens_are_scored_per_byte_too(text: Path, cache: Path) -> None:
    spec = make_job(text, kind="bpe").spec
    corpus = prepare(spec.data, "causal-lm", cache)
    size = corpus.vocabulary.size
    assert size > 300
    scores = score(Uniform(size), corpus, SEQUENCE, quiet)
    counts = corpus.manifest.held_out
    assert scores.model.value == pytest.approx(math.log2(size) * counts.tokens / counts.bytes)
    assert scores.loss == pytest.approx(math.log(size))
    bytes_corpus = prepare(make_job(text).spec.data, "causal-lm", cache)
    others = score(Uniform(257), bytes_corpus, SEQUENCE, quiet)
    for mine, other in zip(scores.baselines, others.baselines, strict=True):
        assert mine.value == pytest.approx(other.value), "tables read bytes, whatever the model's tokens are"


def test_a_text_shorter_than_a_window_is_one_window(tmp_path: Path, cache: Path) -> None:
    source = tmp_path / "short.txt"
    source.write_text("".join(f"a few lines, number {n}\n" for n in range(300)))
    job = make_job(source, sequence_length=4096, held_out=0.02)
    corpus = prepare(job.spec.data, "causal-lm", cache)
    assert len(corpus.held_out.tokens) < 4096
    scores = score(Uniform(257), corpus, 4096, quiet)
    assert scores.tokens == len(corpus.held_out.tokens)


def test_much_training_text_is_counted_in_part_and_said_so(decoder: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causal, "TABLE_SYMBOLS", 2000)
    scores = score(Uniform(257), decoder.corpus, SEQUENCE, quiet)
    assert {baseline.note for baseline in scores.baselines} == {"counted on the first 0.0 MB of the training text"}
    slow = SlowModel(decoder.corpus.train.tokens[:2000].tolist(), 1)
    text = decoder.corpus.held_out.tokens.tolist()
    nats = sum(slow.cost(text, place) for place in range(len(text)))
    assert scores.baselines[0].value == pytest.approx(nats / math.log(2) / scores.split["bytes"])


def test_progress_goes_from_scoring_to_counting_and_ends_at_one(decoder: Trained) -> None:
    told: list[tuple[str, float]] = []
    score(Uniform(257), decoder.corpus, SEQUENCE, lambda stage, share: told.append((stage, share)))
    for stage in ("scoring", "counting"):
        shares = [share for name, share in told if name == stage]
        assert shares == sorted(shares)
        assert shares[-1] == 1.0
    assert list(dict.fromkeys(stage for stage, _ in told)) == ["scoring", "counting"]
