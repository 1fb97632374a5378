"""The format on disk: what is written is read again, and whatever is cut, altered, missing or mixed is named."""

import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.data import Dataset, DatasetDamaged, DatasetWriter, Vocabulary, is_dataset
from phalanx.data.dataset import SPLITS, DatasetManifest, SourceRecord
from phalanx.data.learn import learn_vocabulary, vocabulary_of_bytes
from phalanx.job import VocabularySpec

BYTES = vocabulary_of_bytes("causal-lm")
TEXTS = [f"document {n} says {'so ' * (n % 7)}".encode() for n in range(40)]


def write(directory: Path, texts: list[bytes], *, shard_bytes: int = 200, vocabulary: Vocabulary = BYTES) -> Path:
    """Every tenth text is held out."""
    with DatasetWriter(directory, vocabulary, shard_bytes=shard_bytes) as writer:
        for place, text in enumerate(texts):
            writer.add("held_out" if place % 10 == 9 else "train", list(text), len(text))
        writer.finish(sources=[SourceRecord("a.txt", 10, 5, "ab")], licence="CC0", excluded={"empty": (2, 0)})
    return directory


documents = st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=40)


@settings(deadline=None, max_examples=30)
@given(documents, st.integers(1, 120), st.data())
def test_what_was_written_is_read_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, texts: list[bytes], shard_bytes: int, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("dataset")
    with DatasetWriter(directory, BYTES, shard_bytes=shard_bytes) as writer:
        for text in texts:
            writer.add("train", np.frombuffer(text, np.uint8), len(text))
        writer.finish()
    opened = Dataset.open(directory)
    order = data.draw(st.permutations(range(len(texts))))
    assert opened.train.lengths(order).tolist() == [len(texts[number]) for number in order]
    assert [bytes(opened.train.read(number).tolist()) for number in order] == [texts[number] for number in order]
    assert len(opened.train) == len(texts)
    assert opened.train.tokens == sum(map(len, texts)) == opened.manifest.bytes("train")
    assert opened.train.read(order[0], 1, 3).tolist() == list(texts[order[0]][1:3])
    assert opened.train.read(order[-1], 60).tolist() == opened.train.read(order[-1], 0, 0).tolist() == []
    opened.verify()


@settings(deadline=None, max_examples=20)
@given(documents, st.integers(1, 100), st.lists(st.integers(1, 9), min_size=1))
def test_shards_are_the_same_however_documents_are_batched(
    tmp_path_factory: pytest.TempPathFactory, texts: list[bytes], shard_bytes: int, batches: list[int]
) -> None:
    one, many = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("many")
    with DatasetWriter(one, BYTES, shard_bytes=shard_bytes) as writer:
        for text in texts:
            writer.add("train", list(text), len(text))
        alone = writer.finish()
    with DatasetWriter(many, BYTES, shard_bytes=shard_bytes) as writer:
        begin, turn = 0, 0
        while begin < len(texts):
            batch = texts[begin : begin + batches[turn % len(batches)]]
            sizes = [len(text) for text in batch]
            writer.add_all("train", np.frombuffer(b"".join(batch), np.uint8), sizes, sizes)
            begin, turn = begin + len(batch), turn + 1
        assert writer.finish() == alone
    for shard in alone.splits["train"][:-1]:
        assert shard.tokens * 2 >= shard_bytes


def test_the_files_are_what_the_format_says(tmp_path: Path) -> None:
    """Read without our reader: little-endian numbers, no marks between documents."""
    directory = write(tmp_path / "d", TEXTS)
    manifest = json.loads((directory / "dataset.json").read_text())
    train = [text for place, text in enumerate(TEXTS) if place % 10 != 9]
    found = []
    for shard in manifest["splits"]["train"]:
        tokens = np.fromfile(directory / f"{shard['name']}.tokens", "<u2")
        offsets = np.fromfile(directory / f"{shard['name']}.index", "<i8")
        assert (len(tokens), len(offsets)) == (shard["tokens"], shard["documents"] + 1)
        found += [bytes(tokens[a:b].tolist()) for a, b in pairwise(offsets)]
    assert found == train
    assert len(manifest["splits"]["train"]) > 3
    assert (manifest["licence"], manifest["excluded"]) == ("CC0", {"empty": [2, 0]})
    assert manifest["sources"] == [{"name": "a.txt", "bytes": 10, "mtime_ns": 5, "sha256": "ab"}]
    assert DatasetManifest.from_json((directory / "dataset.json").read_text()) == Dataset.open(directory).manifest
    assert sorted(p.name for p in directory.iterdir() if p.name.startswith(".")) == []


def test_a_vocabulary_of_more_than_two_bytes_takes_four(tmp_path: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, models

    large = Tokenizer(models.WordPiece(vocab={f"w{n}": n for n in range(70_000)}, unk_token="w0"))
    large.add_special_tokens([AddedToken("[MASK]", special=True)])
    with DatasetWriter(tmp_path, Vocabulary(large)) as writer:
        writer.add("train", [69_999, 3], 4)
        writer.finish()
    assert np.fromfile(tmp_path / "train-00000.tokens", "<u4").tolist() == [69_999, 3]
    assert Dataset.open(tmp_path).train.read(0).tolist() == [69_999, 3]


def first_shard(directory: Path, kind: str) -> Path:
    return sorted(directory.glob(f"train-*.{kind}"))[1]


@pytest.mark.parametrize("kind", ["tokens", "index"])
def test_a_cut_shard_is_named_at_once(tmp_path: Path, kind: str) -> None:
    directory = write(tmp_path / "d", TEXTS)
    file = first_shard(directory, kind)
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(DatasetDamaged, match="was cut") as caught:
        Dataset.open(directory)
    assert caught.value.where == str(file)


@pytest.mark.parametrize("name", ["train-00001.tokens", "train-00001.index", "tokenizer.json", "dataset.json"])
def test_a_missing_file_is_named_at_once(tmp_path: Path, name: str) -> None:
    directory = write(tmp_path / "d", TEXTS)
    (directory / name).unlink()
    with pytest.raises(DatasetDamaged, match="cannot be read") as caught:
        Dataset.open(directory)
    assert caught.value.where == str(directory / name)
    assert is_dataset(directory) is (name != "dataset.json")


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from(["tokens", "index"]), st.integers(1, 255))
def test_any_altered_byte_is_found_by_verify(
    tmp_path_factory: pytest.TempPathFactory, place: int, kind: str, change: int
) -> None:
    directory = write(tmp_path_factory.mktemp("dataset"), TEXTS)
    file = first_shard(directory, kind)
    data = bytearray(file.read_bytes())
    data[place % len(data)] ^= change
    file.write_bytes(data)
    with pytest.raises(DatasetDamaged, match=r"altered|does not fit") as caught:
        Dataset.open(directory).verify()
    assert caught.value.where == str(file)


def test_tokens_of_a_larger_vocabulary_are_named_when_read(tmp_path: Path) -> None:
    directory = write(tmp_path / "d", TEXTS)
    file = first_shard(directory, "tokens")
    file.write_bytes(np.full(file.stat().st_size // 2, 60_000, "<u2").tobytes())
    documents = Dataset.open(directory).train
    owner = documents.shards[0].facts.documents
    documents.read(owner - 1)
    with pytest.raises(DatasetDamaged, match="another tokenizer") as caught:
        documents.read(owner)
    assert caught.value.where == str(file)


def test_an_index_that_goes_back_is_named_when_read(tmp_path: Path) -> None:
    directory = write(tmp_path / "d", TEXTS)
    file = first_shard(directory, "index")
    offsets = np.fromfile(file, "<i8")
    offsets[1:-1] = offsets[1:-1][::-1]
    offsets.tofile(file)
    documents = Dataset.open(directory).train
    with pytest.raises(DatasetDamaged) as caught:
        documents.lengths(np.arange(len(documents)))
    assert caught.value.where == str(file)


def test_another_tokenizer_beside_the_shards_is_refused(tmp_path: Path) -> None:
    directory = write(tmp_path / "d", TEXTS)
    other = learn_vocabulary(VocabularySpec(kind="bpe", size=300), "causal-lm", ["to be or not to be"])
    (directory / "tokenizer.json").write_text(other.to_json())
    with pytest.raises(DatasetDamaged, match="not the vocabulary"):
        Dataset.open(directory)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda m: m | {"schema": 99}, "schema 99"),
        (lambda m: m | {"splits": {"train": []}}, "splits"),
        (lambda m: m | {"splits": m["splits"] | {"train": [m["splits"]["train"][0] | {"name": "../../etc"}]}}, "name"),
        (lambda m: m | {"splits": m["splits"] | {"train": [m["splits"]["train"][0] | {"documents": 0}]}}, "documents"),
        (lambda m: [], ""),
    ],
)
def test_a_strange_manifest_is_refused(tmp_path: Path, change, what: str) -> None:
    directory = write(tmp_path / "d", TEXTS)
    file = directory / "dataset.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(DatasetDamaged, match=f"no manifest.*{what}"):
        Dataset.open(directory)


def test_nothing_is_left_of_a_writer_that_failed(tmp_path: Path) -> None:
    def fail() -> None:
        with DatasetWriter(tmp_path, BYTES) as writer:
            writer.add("train", [1, 2], 2)
            writer.add("train", [300], 2)

    with pytest.raises(ValueError, match="token"):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tokens", [[], [300], [-1]])
def test_documents_that_no_reader_could_use_are_refused(tmp_path: Path, tokens: list[int]) -> None:
    with DatasetWriter(tmp_path, BYTES) as writer, pytest.raises(ValueError, match="token"):
        writer.add("train", tokens, 1)


KILLED = """
import json, os, signal, sys
from pathlib import Path
from dataclasses import asdict
from phalanx.data import DatasetWriter
from phalanx.data.learn import vocabulary_of_bytes
log = open(sys.argv[2], "w")
def closed(split, shard):
    print(json.dumps([split, asdict(shard)]), file=log, flush=True)
with DatasetWriter(Path(sys.argv[1]), vocabulary_of_bytes("causal-lm"), shard_bytes=200, closed=closed) as writer:
    for n in range(25):
        text = f"document {n} says {'so ' * (n % 7)}".encode()
        writer.add("held_out" if n % 10 == 9 else "train", list(text), len(text))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_whole_shards_and_another_goes_on_to_the_same_dataset(tmp_path: Path) -> None:
    log = tmp_path / "log"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "d"), str(log)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not is_dataset(tmp_path / "d")
    with pytest.raises(DatasetDamaged, match=r"cannot be read"):
        Dataset.open(tmp_path / "d")
    from phalanx.data import Shard

    finished: dict[str, list[Shard]] = {split: [] for split in SPLITS}
    for line in log.read_text().splitlines():
        split, facts = json.loads(line)
        finished[split].append(Shard(**facts))
    assert finished["train"]
    done = {split: sum(shard.documents for shard in finished[split]) for split in SPLITS}
    with DatasetWriter(tmp_path / "d", BYTES, shard_bytes=200, finished=finished) as writer:
        for place, text in enumerate(TEXTS):
            split = "held_out" if place % 10 == 9 else "train"
            if done[split]:
                done[split] -= 1
            else:
                writer.add(split, list(text), len(text))
        again = writer.finish()
    write(tmp_path / "whole", TEXTS)
    assert again.splits == Dataset.open(tmp_path / "whole").manifest.splits
    Dataset.open(tmp_path / "d").verify()


LIMITED = """
import resource, sys
from pathlib import Path
from phalanx.data import Dataset, DatasetDamaged
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
try:
    Dataset.open(Path(sys.argv[1]))
except DatasetDamaged as error:
    print(error)
"""


def test_more_shards_than_files_may_be_open_is_not_taken_for_damage(tmp_path: Path) -> None:
    directory = write(tmp_path / "d", TEXTS, shard_bytes=20)
    said = subprocess.run([sys.executable, "-c", LIMITED, str(directory)], capture_output=True, text=True, check=True)
    assert "Too many open files" in said.stdout
    assert "ulimit -n" in said.stdout
