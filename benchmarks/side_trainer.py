"""One rank of Hugging Face Trainer, training BertForMaskedLM on the documents of a corpus; says its Window.

    python -m benchmarks.side_trainer ORDERS      (see `Orders`; started on every rank by `ranks.run_ranks`)

Knows nothing of which settings are good: they are in the orders.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.documents import documents_of
from benchmarks.ranks import Instant, Window
from phalanx.data import Corpus


@dataclass(frozen=True)
class Orders:
    """`model`: values of BertConfig; `arguments`: of TrainingArguments. The first `warmup` steps do not count."""

    corpus: str
    model: dict[str, Any]
    arguments: dict[str, Any]
    sequence_length: int
    mask_probability: float
    warmup: int


class Documents(torch.utils.data.Dataset[dict[str, list[int]]]):
    """The documents as the peer's samplers and collators want them."""

    def __init__(self, documents: Sequence[NDArray[np.int64]]) -> None:
        self._documents = [document.tolist() for document in documents]

    def __len__(self) -> int:
        return len(self._documents)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return {"input_ids": self._documents[index]}


class Counting:
    """A collator that also notes the size of each batch: tokens, and places with padding."""

    def __init__(self, collator: DataCollatorForLanguageModeling) -> None:
        self._collator = collator
        self.sizes: list[tuple[int, int]] = []

    def __call__(self, features: list[dict[str, list[int]]]) -> Any:
        lengths = [len(feature["input_ids"]) for feature in features]
        batch = self._collator(features)
        self.sizes.append((sum(lengths), batch["input_ids"].numel()))
        return batch


class Clock(TrainerCallback):
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.ends: list[Instant] = []

    def on_step_end(self, *_: object, **__: object) -> None:
        self.ends.append(Instant.now())


def tokenizer_of(corpus: Corpus) -> PreTrainedTokenizerFast:
    """The corpus's own vocabulary; its specials are those of BERT."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(corpus.directory / "tokenizer.json")),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def main(orders: Orders) -> Window:
    torch.set_num_threads(1)
    corpus = Corpus.open(Path(orders.corpus))
    settings = TrainingArguments(**orders.arguments)
    torch.manual_seed(settings.seed)
    collator = Counting(
        DataCollatorForLanguageModeling(tokenizer_of(corpus), mlm=True, mlm_probability=orders.mask_probability)
    )
    clock = Clock()
    trainer = Trainer(
        model=BertForMaskedLM(BertConfig(**orders.model)),
        args=settings,
        train_dataset=Documents(documents_of(corpus, orders.sequence_length)),
        data_collator=collator,
        callbacks=[clock],
    )
    loss = trainer.train().training_loss
    # Batches are collated one ahead of their use, in the order of their use.
    accumulation = settings.gradient_accumulation_steps
    counted = collator.sizes[orders.warmup * accumulation : settings.max_steps * accumulation]
    first, last = clock.ends[orders.warmup - 1], clock.ends[-1]
    return Window(
        tokens=sum(tokens for tokens, _ in counted),
        places=sum(places for _, places in counted),
        seconds=last.wall - first.wall,
        cpu_seconds=last.cpu - first.cpu,
        loss=float(loss),
    )


if __name__ == "__main__":
    main(Orders(**json.loads(Path(sys.argv[1]).read_text()))).say()
