import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from phalanx.data import Loader, LoaderSpec
from phalanx.evaluation import masked
from phalanx.evaluation.masked import SEED, UNMASKED, Places, score
from tests.evaluation.runs import SEQUENCE, Trained
from tests.evaluation.test_causal import quiet
from tests.evaluation.test_neighbours import SlowTables


class Answers(nn.Module):
    """Answers every place with a token chosen by `choose`: sure of it, or of nothing."""

    def __init__(self, size: int, token: int | None) -> None:
        super().__init__()
        self.size, self.token = size, token

    def predict(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        positions = batch["positions"]
        assert (batch["document"].flatten()[positions] > 0).all()
        logits = torch.zeros(len(positions), self.size)
        if self.token is not None:
            logits[:, self.token] = 3.0
        return logits


def rows(run: Trained) -> Iterator[tuple[list[int], list[int]]]:
    """What is seen and what is true in each held-out row, without padding."""
    loader = Loader(run.corpus, replace(LoaderSpec.of(run.job.spec), seed=SEED))
    for batch in loader.validation_batches(10**9, 1):
        seen = batch.arrays["tokens"][0].tolist()[: batch.real_tokens]
        true = list(seen)
        for position, target in zip(batch.arrays["positions"].tolist(), batch.arrays["targets"].tolist(), strict=True):
            true[position] = target
        yield seen, true


def documents(run: Trained) -> list[list[int]]:
    split = run.corpus.train
    return [split.tokens[a:b].tolist() for a, b in zip(split.offsets[:-1], split.offsets[1:], strict=True)]


def slow_tables(run: Trained) -> SlowTables:
    """Dictionaries. The ids of this vocabulary's special tokens are those of `test_neighbours`: 0 to 4."""
    assert sorted(run.corpus.vocabulary.special.values()) == list(range(5))
    return SlowTables(documents(run))


def test_tables_guess_as_dictionaries_do_from_the_same_masked_text(encoder: Trained) -> None:
    slow, mask = slow_tables(encoder), encoder.corpus.vocabulary.mask_id
    hits = dict.fromkeys(("most frequent token", "left neighbour", "both neighbours", UNMASKED), 0)
    count = 0
    for seen, true in rows(encoder):
        for place, token in enumerate(seen):
            if token != mask:
                continue
            count += 1
            left, right = seen[place - 1], seen[place + 1]
            before, after = true[place - 1], true[place + 1]
            hits["most frequent token"] += slow.best() == true[place]
            hits["left neighbour"] += slow.best(("left", left)) == true[place]
            hits["both neighbours"] += slow.best(("both", left, right), ("left", left), ("right", right)) == true[place]
            unmasked = slow.best(("both", before, after), ("left", before), ("right", after))
            hits[UNMASKED] += unmasked == true[place]
    scores = score(Answers(encoder.corpus.vocabulary.size, 7), encoder.corpus, spec_of(encoder), quiet)
    assert scores.tokens == count > 200
    assert {baseline.name: baseline.value for baseline in scores.baselines} == {
        name: found / count for name, found in hits.items()
    }


def spec_of(run: Trained) -> LoaderSpec:
    return LoaderSpec.of(run.job.spec)


def test_the_model_is_scored_as_a_plain_loop_does(encoder: Trained) -> None:
    """One row at a time, without padding, the head at every position."""
    mask = encoder.corpus.vocabulary.mask_id
    cls_id = encoder.corpus.vocabulary.cls_id
    hits, nats, count = 0, 0.0, 0
    for seen, true in rows(encoder):
        document = torch.from_numpy(np.cumsum(np.array([seen]) == cls_id, axis=1, dtype=np.int32))
        with torch.no_grad():
            batch = {"tokens": torch.tensor([seen]), "document": document, "positions": torch.arange(len(seen))}
            logits = encoder.module.predict(batch)
        for place, token in enumerate(seen):
            if token == mask:
                hits += int(logits[place].argmax()) == true[place]
                nats -= float(logits[place].log_softmax(-1)[true[place]])
                count += 1
    scores = score(encoder.module, encoder.corpus, spec_of(encoder), quiet)
    assert scores.tokens == count
    assert scores.model.value == hits / count
    assert scores.loss == pytest.approx(nats / count, rel=1e-5)
    assert scores.model.value > scores.baselines[0].value, "it has learned more than the most frequent token"


def test_a_constant_answer_is_right_as_often_as_its_token_is_masked(encoder: Trained) -> None:
    vocabulary = encoder.corpus.vocabulary
    tables = slow_tables(encoder)
    scores = score(Answers(vocabulary.size, tables.best()), encoder.corpus, spec_of(encoder), quiet)
    assert scores.model.value == scores.baselines[0].value > 0
    ignorant = score(Answers(vocabulary.size, None), encoder.corpus, spec_of(encoder), quiet)
    assert ignorant.loss == pytest.approx(math.log(vocabulary.size))


def test_the_table_that_sees_true_neighbours_is_a_reference_only(encoder: Trained) -> None:
    scores = score(encoder.module, encoder.corpus, spec_of(encoder), quiet)
    assert [baseline.name for baseline in scores.baselines if baseline.sees_more] == [UNMASKED]
    assert scores.strongest == max(scores.baselines[:3], key=lambda baseline: baseline.value).name


def test_the_masks_are_the_same_whatever_the_seed_of_the_job(encoder: Trained) -> None:
    spec = spec_of(encoder)
    first = score(encoder.module, encoder.corpus, replace(spec, seed=1), quiet)
    assert first == score(encoder.module, encoder.corpus, replace(spec, seed=2), quiet)


def test_the_rows_computed_at_once_change_nothing(encoder: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    many = score(encoder.module, encoder.corpus, spec_of(encoder), quiet)
    monkeypatch.setattr(masked, "row_count", lambda *_: 1)
    single = score(encoder.module, encoder.corpus, spec_of(encoder), quiet)
    assert single.model.value == many.model.value
    assert single.baselines == many.baselines
    assert single.loss == pytest.approx(many.loss, rel=1e-5)


def test_a_sample_says_how_much_it_read(encoder: Trained) -> None:
    whole = score(encoder.module, encoder.corpus, spec_of(encoder), quiet)
    part = score(encoder.module, encoder.corpus, spec_of(encoder), quiet, max_tokens=10 * SEQUENCE)
    assert 8 * SEQUENCE < part.split["tokens"] <= 10 * SEQUENCE < whole.split["tokens"]
    assert "bytes" not in part.split
    assert whole.split["bytes"] == encoder.corpus.manifest.held_out.bytes
    assert part.split["masked"] == part.tokens < whole.tokens


def test_places_show_the_text_as_the_model_sees_it_and_as_it_is() -> None:
    arrays = {
        "tokens": np.array([[2, 4, 4, 9, 3, 0], [2, 7, 8, 3, 0, 0]]),
        "positions": np.array([1, 2, 7]),
        "targets": np.array([5, 6, 8]),
    }
    places = Places.of(arrays, 4)
    assert places.flat.tolist() == [1, 2], "the third shows another token, so that it is no [MASK] position"
    assert places.targets.tolist() == [5, 6]
    assert (places.left.tolist(), places.right.tolist()) == ([2, 4], [4, 9])
    assert (places.true_left.tolist(), places.true_right.tolist()) == ([2, 5], [6, 9])


def test_progress_ends_at_one(encoder: Trained) -> None:
    told: list[tuple[str, float]] = []
    score(encoder.module, encoder.corpus, spec_of(encoder), lambda stage, share: told.append((stage, share)))
    assert told[-1] == ("scoring", 1.0)
