"""The translating networks: padding, teacher forcing and search agree, and attention learns what one vector cannot."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from phalanx.models import build, resolve
from phalanx.models.search import translate
from phalanx.models.seq2seq import NoAttention, Recurrence, Seq2Seq

NAMES = ["rnn-attention", "rnn-encoder-decoder"]
WORDS, END = 12, 0
Pair = tuple[list[int], list[int]]


def seq2seq(name: str, vocabulary: int = 2 * WORDS + 1, hidden: int = 16, seed: int = 0) -> Seq2Seq:
    torch.manual_seed(seed)
    module = build(replace(resolve(name, vocabulary, 16, 0.0), hidden=hidden))
    assert isinstance(module, Seq2Seq)
    with torch.no_grad():
        module.head_bias.normal_()
    return module


def reversals(count: int, shortest: int, longest: int, seed: int) -> list[Pair]:
    """Words, and their translations (each its own) from the last to the first."""
    draw = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(count):
        length = int(torch.randint(shortest, longest + 1, (), generator=draw))
        words = torch.randint(1, WORDS + 1, (length,), generator=draw).tolist()
        pairs.append((words, [word + WORDS for word in reversed(words)]))
    return pairs


def batch_of(pairs: list[Pair], padding: int = 0, pad: int = END) -> dict[str, Tensor]:
    """As the loader makes them, with `padding` more tokens at every end."""
    source = torch.full((len(pairs), max(len(words) for words, _ in pairs) + 1 + padding), pad)
    target = torch.full((len(pairs), max(len(words) for _, words in pairs) + 1 + padding), pad)
    positions, targets = [], []
    for row, (words, translated) in enumerate(pairs):
        source[row, : len(words) + 1] = torch.tensor([*words, END])
        target[row, : len(translated) + 1] = torch.tensor([END, *translated])
        positions += [row * target.shape[1] + place for place in range(len(translated) + 1)]
        targets += [*translated, END]
    return {
        "source": source,
        "lengths": torch.tensor([len(words) + 1 for words, _ in pairs]),
        "target": target,
        "positions": torch.tensor(positions),
        "targets": torch.tensor(targets),
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_that_of_the_logits_and_the_costs(name):
    module, batch = seq2seq(name), batch_of(reversals(5, 1, 6, seed=1))
    logits = module(batch["source"], batch["lengths"], batch["target"]).flatten(0, 1)[batch["positions"]]
    loss, count = module.loss(batch)
    costs, ranks = module.costs_and_ranks(batch)
    expected = F.cross_entropy(logits, batch["targets"], reduction="none")
    torch.testing.assert_close(costs, expected)
    torch.testing.assert_close(loss, expected.sum())
    assert count == len(batch["targets"])
    right = logits.gather(1, batch["targets"][:, None])
    assert ranks.tolist() == (logits > right).sum(1).tolist()


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing(name):
    module, pairs = seq2seq(name), reversals(5, 1, 6, seed=2)
    module.loss(batch_of(pairs))[0].backward()
    exact = [parameter.grad.clone() for parameter in module.parameters()]
    module.zero_grad()
    padded = batch_of(pairs, padding=4, pad=7)
    loss, count = module.loss(padded)
    loss.backward()
    plain, plain_count = module.loss(batch_of(pairs))
    torch.testing.assert_close(loss, plain)
    assert count == plain_count
    for parameter, gradient in zip(module.parameters(), exact, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_sentence_costs_the_same_alone_and_among_others(name):
    module, pairs = seq2seq(name), reversals(6, 1, 8, seed=3)
    together = module.costs_and_ranks(batch_of(pairs))[0]
    alone = torch.cat([module.costs_and_ranks(batch_of([pair]))[0] for pair in pairs])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_the_readers_are_torchs_bidirectional_gru_over_packed_sentences():
    module, batch = seq2seq("rnn-attention"), batch_of(reversals(6, 1, 8, seed=4))
    theirs = nn.GRU(8, 16, bidirectional=True, batch_first=True)
    with torch.no_grad():
        for suffix, reader in (("", module.forwards), ("_reverse", module.backwards)):
            _copy(theirs, suffix, reader)
    packed = pack_padded_sequence(
        module.embedding(batch["source"]), batch["lengths"], batch_first=True, enforce_sorted=False
    )
    expected, _ = pad_packed_sequence(theirs(packed)[0], batch_first=True)
    memory = module.read(batch["source"], batch["lengths"]).memory
    assert memory is not None
    for row, length in enumerate(batch["lengths"].tolist()):
        torch.testing.assert_close(memory.annotations[row, :length], expected[row, :length], atol=1e-6, rtol=1e-5)
        assert memory.bias[row].tolist() == [0.0] * length + [-torch.inf] * (expected.shape[1] - length)


def _copy(theirs: nn.GRU, suffix: str, reader: Recurrence) -> None:
    for name, linear in (("ih", reader.inward), ("hh", reader.state)):
        getattr(theirs, f"weight_{name}_l0{suffix}").copy_(linear.weight)
        getattr(theirs, f"bias_{name}_l0{suffix}").copy_(linear.bias)


@pytest.mark.parametrize("name", NAMES)
def test_step_by_step_is_what_is_read_at_once(name):
    module, batch = seq2seq(name), batch_of(reversals(4, 3, 5, seed=5))
    at_once = module(batch["source"], batch["lengths"], batch["target"])
    reading = module.read(batch["source"], batch["lengths"])
    state = reading.start
    for place in range(batch["target"].shape[1]):
        logits, state = module.step(reading, state, batch["target"][:, place])
        torch.testing.assert_close(logits, at_once[:, place], atol=1e-5, rtol=1e-4)


def test_an_alignment_shares_out_each_sentences_own_tokens():
    module, batch = seq2seq("rnn-attention"), batch_of(reversals(5, 1, 8, seed=6))
    weights = module.alignment(batch["source"], batch["lengths"], batch["target"])
    assert weights.shape == (5, batch["target"].shape[1], batch["source"].shape[1])
    torch.testing.assert_close(weights.sum(2), torch.ones(weights.shape[:2]))
    for row, length in enumerate(batch["lengths"].tolist()):
        assert (weights[row, :, length:] == 0).all()


def test_without_attention_there_is_no_alignment():
    batch = batch_of(reversals(2, 1, 3, seed=7))
    with pytest.raises(NoAttention, match="rnn-encoder-decoder has no attention"):
        seq2seq("rnn-encoder-decoder").alignment(batch["source"], batch["lengths"], batch["target"])


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_near_the_exact_loss(name):
    module, batch = seq2seq(name, hidden=32), batch_of(reversals(8, 1, 8, seed=8))
    exact, _ = module.loss(batch)
    with torch.autocast("cpu", torch.bfloat16):
        half, _ = module.loss(batch)
    half.backward()
    assert half.dtype == torch.float32
    assert abs(float(half.detach() - exact.detach())) < 0.01 * float(exact.detach())
    assert all(parameter.grad.dtype == torch.float32 for parameter in module.parameters())


@cache
def learned(name: str) -> Seq2Seq:
    """After a few seconds with reversals of up to ten words."""
    module, steps, rate = seq2seq(name, hidden=64), 160, 8e-3
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    for step in range(steps):
        loss, count = module.loss(batch_of(reversals(32, 1, 10, seed=step)))
        optimizer.zero_grad()
        (loss / count).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        optimizer.step()
    return module.eval()


def right_of(module: Seq2Seq, shortest: int, longest: int, beam: int = 1) -> float:
    """Share of unseen reversals that are whole."""
    pairs = reversals(100, shortest, longest, seed=10_000)
    batch = batch_of(pairs)
    found = translate(module, batch["source"], batch["lengths"], begin=END, end=END, beam=beam)
    return sum(list(one.tokens) == words for one, (_, words) in zip(found, pairs, strict=True)) / len(pairs)


def test_attention_reverses_sentences_of_any_length_it_was_shown():
    assert right_of(learned("rnn-attention"), 1, 4) > 0.95
    assert right_of(learned("rnn-attention"), 8, 10) > 0.95
    assert right_of(learned("rnn-attention"), 8, 10, beam=3) > 0.95


def test_one_vector_falls_with_the_length():
    short, long = (right_of(learned("rnn-encoder-decoder"), *lengths) for lengths in ((1, 3), (8, 10)))
    assert short > 0.7
    assert long < 0.3


def test_the_alignment_of_a_reversal_runs_from_the_end_to_the_beginning():
    batch = batch_of(reversals(20, 5, 8, seed=20_000))
    weights = learned("rnn-attention").alignment(batch["source"], batch["lengths"], batch["target"])
    looked_at = right = 0
    for row, length in enumerate((batch["lengths"] - 1).tolist()):
        # The state that writes word j has just taken in word j - 1: what it looks at is word j's origin.
        for place in range(length):
            looked_at += 1
            right += int(weights[row, place].argmax()) == length - 1 - place
    assert right > 0.9 * looked_at
