"""Building a dataset beside a plain loop over the same `tokenizers`: megabytes of text in a processor second.

The text is Python's own library, tests included, each file once, as JSON lines. The loop reads them, encodes sixteen at
a time and writes the tokens: no filter, no hash, no duplicates, nothing that can be taken up. Both are processes whose
processor time counts from their start to their end, with all their children. Tokens must be the same, else nothing is
measured. The third vocabulary is one whose words are not split here (it composes letters first), so that all of the
text goes to the library in both.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, normalizers

from benchmarks.harness import Comparison, NotEqual, Options, Side, compare
from phalanx.data.build.collecting import digest_of
from phalanx.data.dataset import Dataset
from phalanx.data.learn import learn_vocabulary
from phalanx.data.stdlib import stdlib_root
from phalanx.data.vocabulary import Vocabulary
from phalanx.job import VocabularySpec
from phalanx.job.spec import Objective, VocabularyKind

OURS, PEER, NEAR, TWO = "build", "plain loop", "build, near duplicates", "build, 2 processes"
_QUICK_BYTES = 2_000_000
_LEARNED_FROM = 4_000_000
_ALONE = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_KINDS: tuple[tuple[str, VocabularyKind, Objective], ...] = (
    ("bpe", "bpe", "causal-lm"),
    ("wordpiece", "wordpiece", "masked-lm"),
    ("bpe after NFC", "bpe", "causal-lm"),
)


def run(options: Options, progress: Callable[[str], None]) -> list[Comparison]:
    """Raises NotEqual when the tokens differ."""
    found = []
    with tempfile.TemporaryDirectory(prefix="phalanx-bench-") as scratch:
        directory = Path(scratch)
        corpus = directory / "corpus.jsonl"
        texts = _texts(_QUICK_BYTES if options.quick else None)
        corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        megabytes = sum(len(text.encode()) for text in texts) / 1e6
        for label, kind, objective in _KINDS:
            vocabulary = _learned(kind, objective, texts)
            if label.endswith("NFC"):
                vocabulary = _composing(vocabulary)
            tokenizer = directory / f"{label}.json"
            tokenizer.write_text(vocabulary.to_json())
            _check_equal(directory, corpus, tokenizer)

            def build(*more: str, tokenizer: Path = tokenizer) -> float:
                return megabytes / _processor_seconds(_build(directory / "out", corpus, tokenizer, *more))

            def loop(tokenizer: Path = tokenizer) -> float:
                return megabytes / _processor_seconds(_loop(directory / "loop.tokens", corpus, tokenizer))

            sides = [
                Side(OURS, lambda build=build: build("--near-duplicates", "0", "--processes", "1")),
                Side(PEER, loop),
                Side(NEAR, lambda build=build: build("--processes", "1")),
                Side(TWO, lambda build=build: build("--near-duplicates", "0", "--processes", "2")),
            ]
            name = f"data build, {label} of {vocabulary.size:,}"
            notes = {"megabytes": megabytes, "documents": len(texts)}
            found.append(
                compare(name, "MB/s of a core", sides, rounds=options.rounds, warmup=0, notes=notes, progress=progress)
            )
    return found


def _texts(most: int | None) -> list[str]:
    """Files of the library in order, each text once, up to `most` bytes."""
    texts, seen, size = [], set(), 0
    for path in sorted(stdlib_root().rglob("*.py")):
        if "site-packages" in path.parts:
            continue
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:  # of its tests
            continue
        if text.strip() and (digest := digest_of(text)) not in seen:
            seen.add(digest)
            texts.append(text)
            size += len(text.encode())
        if most is not None and size > most:
            break
    return texts


def _learned(kind: VocabularyKind, objective: Objective, texts: list[str]) -> Vocabulary:
    sample, size = [], 0
    for text in texts:
        sample.append(text)
        if (size := size + len(text)) > _LEARNED_FROM:
            break
    return learn_vocabulary(VocabularySpec(kind=kind, size=8192), objective, sample)


def _composing(vocabulary: Vocabulary) -> Vocabulary:
    tokenizer = Tokenizer.from_str(vocabulary.to_json())
    tokenizer.normalizer = normalizers.NFC()
    return Vocabulary(tokenizer)


def _build(out: Path, corpus: Path, tokenizer: Path, *more: str) -> list[str]:
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "phalanx", "data", "build", str(corpus), "--out", str(out)]
    return [*command, "--tokenizer", str(tokenizer), "--held-out", "0", "--quiet", *more]


def _loop(out: Path, corpus: Path, tokenizer: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.side_data_build", str(corpus), str(tokenizer), str(out)]


def _processor_seconds(command: list[str]) -> float:
    """User and system, of the process and all its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | _ALONE)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _check_equal(directory: Path, corpus: Path, tokenizer: Path) -> None:
    """The dataset's tokens, shard after shard, are those that the loop wrote."""
    _processor_seconds(_build(directory / "out", corpus, tokenizer, "--near-duplicates", "0"))
    _processor_seconds(_loop(directory / "loop.tokens", corpus, tokenizer))
    ours = np.concatenate([shard.tokens for shard in Dataset.open(directory / "out").train.shards])
    if not np.array_equal(ours, np.fromfile(directory / "loop.tokens", np.uint16)):
        raise NotEqual("the dataset holds other tokens than the plain loop wrote")
