"""Whole builds: the same bytes for any number of processes and after any kill; what changed, or cannot be, is said."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from phalanx.data.build import BuildOptions, TrainTokenizer, WorkerLost, build, listing
from phalanx.data.build.pool import Pool
from phalanx.data.build.work import Work
from phalanx.data.dataset import Dataset, is_dataset
from phalanx.data.errors import DataChanged, SourceEmpty, TextTooSmall, UnfitVocabulary, UnreadableText
from phalanx.data.vocabulary import Vocabulary
from phalanx.foundation import DiskFull, StorageError, UsageError
from tests.data.build.corpora import (
    BYTES,
    InProcess,
    document,
    fingerprints,
    in_process,
    options_for,
    texts_of,
    write_files,
)
from tests.data.build.test_duplicates import corpus_with_copies

assert in_process
BPE = TrainTokenizer("bpe", 400, "causal-lm", 20_000)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this process only; workers are told their pieces."""
    monkeypatch.setattr(listing.pieces, "__defaults__", (4000,))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A directory of texts, JSON lines and packed ones, with equal and near duplicates across them."""
    directory = tmp_path / "corpus"
    texts = corpus_with_copies(random.Random(0), 60, 30)
    write_files(directory, texts[:30])
    lines = [json.dumps({"text": text}) + "\n" for text in texts[20:70]]
    (directory / "lines.jsonl").write_text("".join(lines))
    (directory / "more.jsonl.gz").write_bytes(gzip.compress("".join(lines[:5]).encode(), mtime=0))
    (directory / "rest.txt").write_text("\n".join(texts[70:]))
    return directory


def test_one_process_and_four_make_the_same_bytes(corpus: Path, tmp_path: Path, small_pieces: None) -> None:
    options = options_for(corpus, train=BPE, held_out=0.1, licence="CC0-1.0")
    one = build(options, tmp_path / "one", processes=1)
    build(options, tmp_path / "four", processes=4)
    assert fingerprints(tmp_path / "one") == fingerprints(tmp_path / "four")
    dataset = Dataset.open(tmp_path / "four")
    dataset.verify()
    assert dataset.manifest.licence == "CC0-1.0"
    assert not list(tmp_path.glob(".*"))  # the work is gone
    assert one.peak > 0


@pytest.mark.usefixtures("in_process", "small_pieces")
class TestContent:
    def test_tokens_are_those_of_the_vocabulary_in_the_order_of_the_sources(self, tmp_path: Path) -> None:
        texts = [document(random.Random(seed)) for seed in range(40)]
        write_files(tmp_path / "texts", texts)
        build(options_for(tmp_path / "texts", train=BPE, held_out=0.2), tmp_path / "out")
        dataset = Dataset.open(tmp_path / "out")
        held = set(texts_of(tmp_path / "out", "held_out"))
        assert texts_of(tmp_path / "out", "held_out") == [text for text in texts if text in held]
        trained = [text for text in texts if text not in held]
        for number, text in enumerate(trained):
            assert dataset.train.read(number).tolist() == dataset.vocabulary.encode(text).tolist()
        assert len(dataset.train) == len(trained)
        assert dataset.manifest.bytes("train") == sum(len(text.encode()) for text in trained)
        assert dataset.manifest.bytes("held_out") == sum(len(text.encode()) for text in held)

    def test_a_learned_vocabulary_sees_training_text_only_and_a_sample_of_it(self, tmp_path: Path) -> None:
        write_files(tmp_path / "texts", (document(random.Random(seed)) for seed in range(60)))
        options = options_for(tmp_path / "texts", train=TrainTokenizer("bpe", 300, "causal-lm", 10_000), held_out=0.2)
        sample = build(options, tmp_path / "out").manifest.made["sample"]
        total = Dataset.open(tmp_path / "out").manifest.bytes("train")
        assert 0 < sample["bytes"] <= 10_000 < total
        assert sample["share"] == pytest.approx(10_000 / total)
        assert sample["documents"] < 48

    def test_a_given_vocabulary_is_used_and_named(self, tmp_path: Path) -> None:
        write_files(tmp_path / "texts", ["Hello there, you", "and you, there"])
        pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "there", "you", "and", ","]
        (tmp_path / "vocab.txt").write_text("\n".join(pieces))
        vocabulary = Vocabulary.open(tmp_path / "vocab.txt")
        options = options_for(tmp_path / "texts", train=None, held_out=0.0)
        manifest = build(options, tmp_path / "out", vocabulary=vocabulary).manifest
        assert Dataset.open(tmp_path / "out").train.read(0).tolist() == [5, 6, 9, 7]
        assert manifest.made["options"]["tokenizer_sha256"] == manifest.tokenizer_sha256
        with pytest.raises(UsageError, match="give a vocabulary, or say how to learn one, not both"):
            build(options, tmp_path / "other")

    def test_what_has_no_tokens_is_left_out_and_counted(self, tmp_path: Path) -> None:
        write_files(tmp_path / "texts", ["words here", "\u0301\u0302", "and there"])  # WordPiece strips lone accents
        train = TrainTokenizer("wordpiece", 300, "masked-lm", 1000)
        options = options_for(tmp_path / "texts", train=train, held_out=0.0)
        manifest = build(options, tmp_path / "out").manifest
        assert manifest.excluded == {"no tokens": (1, 4)}
        assert manifest.documents("train") == 2

    def test_what_is_left_out_is_counted_by_reason_with_examples(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text('{"text": "fine text"}\n{"text": ""}\nnot json\n{"text": "\\u0000\\u0001"}\n')
        options = options_for(tmp_path / "a.jsonl", skip_bad=True, held_out=0.0)
        manifest = build(options, tmp_path / "out").manifest
        assert manifest.excluded == {"empty": (1, 0), "not JSON": (1, 9), "more than 25% is no text": (1, 2)}
        assert manifest.made["examples"]["empty"] == [f"{tmp_path}/a.jsonl@22"]
        assert manifest.made["read"] == {"documents": 3, "bytes": 11, "cut": 0, "parts": 0}

    def test_a_long_text_is_cut_and_that_is_counted(self, tmp_path: Path) -> None:
        options = options_for(tmp_path / "long.txt", memory=128 << 20, near=None, exact=False)
        text = " ".join(f"word{number}" for number in range(40_000))
        (tmp_path / "long.txt").write_text(text)
        manifest = build(options, tmp_path / "out").manifest
        parts = -(-len(text) // options.longest_document)
        assert manifest.made["read"] == {"documents": parts, "bytes": len(text), "cut": 1, "parts": parts}
        assert "".join(sorted(texts_of(tmp_path / "out", "train") + texts_of(tmp_path / "out", "held_out"))) != ""
        assert manifest.bytes("train") + manifest.bytes("held_out") == len(text)

    def test_sources_are_recorded_with_their_hashes(self, corpus: Path, tmp_path: Path) -> None:
        manifest = build(options_for(corpus), tmp_path / "out").manifest
        assert [source.name for source in manifest.sources] == [str(path) for path in sorted(corpus.iterdir())]
        for source in manifest.sources:
            path = Path(source.name)
            assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
            assert (source.bytes, source.mtime_ns) == (path.stat().st_size, path.stat().st_mtime_ns)

    def test_many_shards_hold_what_one_does(
        self, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        build(options_for(corpus, held_out=0.2), tmp_path / "one")
        monkeypatch.setattr("phalanx.data.build.learning._LEAST_SHARD", 1500)
        build(options_for(corpus, held_out=0.2), tmp_path / "many")
        one, many = Dataset.open(tmp_path / "one"), Dataset.open(tmp_path / "many")
        assert len(one.manifest.splits["train"]) == 1
        assert len(many.manifest.splits["train"]) > 10
        for split in ("train", "held_out"):
            assert texts_of(tmp_path / "one", split) == texts_of(tmp_path / "many", split)
        longest = max(len(text.encode()) for text in texts_of(tmp_path / "one", "train"))
        assert all(shard.bytes < 1500 + longest for shard in many.manifest.splits["train"])

    def test_too_little_to_hold_out_or_to_train_on(self, tmp_path: Path) -> None:
        write_files(tmp_path / "two", ["one text", "another text"])
        build(options_for(tmp_path / "two", held_out=0.01), tmp_path / "out")
        assert len(texts_of(tmp_path / "out", "held_out")) == 1  # the one with the least digest
        write_files(tmp_path / "one", ["one text"])
        with pytest.raises(TextTooSmall, match=r"of 1 document none is left to train on.*\n.*--held-out 0"):
            build(options_for(tmp_path / "one"), tmp_path / "none")
        with pytest.raises(SourceEmpty, match="no document is left"):
            build(
                options_for(tmp_path / "two", filters=options_for().filters.__class__(min_characters=99)),
                tmp_path / "none2",
            )

    def test_options_that_cannot_be_meant(self, tmp_path: Path) -> None:
        write_files(tmp_path / "texts", ["text"])
        for changes, says in (
            ({"memory": 100 << 20}, "100 MiB are too little"),
            ({"held_out": 1.0}, "no share of documents"),
            ({"near": 0.1}, "no threshold of similarity"),
        ):
            with pytest.raises(UsageError, match=says):
                build(options_for(tmp_path / "texts", **changes), tmp_path / "out")
        with pytest.raises(UnfitVocabulary, match="--train-tokenizer: a wordpiece vocabulary loses case"):
            build(
                options_for(tmp_path / "texts", train=TrainTokenizer("wordpiece", 300, "causal-lm", 1)),
                tmp_path / "out",
            )
        assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("in_process", "small_pieces")
class TestTakenUp:
    def test_a_finished_one_is_found_and_another_is_not_overwritten(self, corpus: Path, tmp_path: Path) -> None:
        first = build(options_for(corpus), tmp_path / "out")
        before = fingerprints(tmp_path / "out")
        Work.beside(tmp_path / "out").directory.mkdir()  # as if killed just before it was removed
        again = build(options_for(corpus), tmp_path / "out")
        assert (first.was_there, again.was_there) == (False, True)
        assert fingerprints(tmp_path / "out") == before
        assert not list(tmp_path.glob(".*"))
        with pytest.raises(UsageError, match="holds a dataset of other sources, other options"):
            build(options_for(corpus, held_out=0.5), tmp_path / "out")
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "file").touch()
        with pytest.raises(UsageError, match="is there already, and is not a dataset"):
            build(options_for(corpus), tmp_path / "mine")
        assert fingerprints(tmp_path / "out") == before

    def test_sources_that_changed_meanwhile_are_named(self, corpus: Path, tmp_path: Path, broken_off: Path) -> None:
        file = corpus / "00003.txt"
        text, times = file.read_text(), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
        options = options_for(corpus)
        file.write_text(text + "more")
        with pytest.raises(DataChanged, match=r"00003\.txt had \d+ bytes, has \d+.*\n.*--restart"):
            build(options, broken_off)
        file.write_text(text[:-2] + "x\n")  # as long as before
        with pytest.raises(DataChanged, match=r"00003\.txt was written again"):
            build(options, broken_off)
        file.unlink()
        (corpus / "00099.txt").write_text("new")
        with pytest.raises(DataChanged, match=r"00003\.txt is gone; .*00099\.txt is new"):
            build(options, broken_off)
        (corpus / "00099.txt").unlink()
        file.write_text(text)  # only touched: the hash is what it was
        assert build(options, broken_off).resumed > 0
        os.utime(file, ns=times)

    def test_a_source_that_changes_under_the_reader_is_noticed(
        self, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from phalanx.data.build import collecting

        def slowly(part: listing.Part, *rest: object) -> Iterator[object]:
            with open(part.source.name, "a") as file:
                file.write("x")
            return real(part, *rest)  # type: ignore[arg-type,return-value]

        real = collecting.read_part
        monkeypatch.setattr(collecting, "read_part", slowly)
        with pytest.raises(DataChanged, match=r"00000\.txt: changed since the build began"):
            build(options_for(corpus), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_other_options_are_refused_by_name_and_restart_forgets(self, corpus: Path, broken_off: Path) -> None:
        with pytest.raises(UsageError, match=r"begun with other options: held_out 0\.01 then, 0\.2 now"):
            build(options_for(corpus, held_out=0.2), broken_off)
        assert build(options_for(corpus, held_out=0.2), broken_off, restart=True).resumed == 0
        assert is_dataset(broken_off)

    def test_two_at_once_do_not_mix(self, corpus: Path, broken_off: Path) -> None:
        with (
            Work.beside(broken_off).locked(),
            pytest.raises(UsageError, match="another build of this dataset is under way"),
        ):
            build(options_for(corpus), broken_off)

    def test_an_error_in_a_source_leaves_the_rest_done(self, corpus: Path, tmp_path: Path) -> None:
        (corpus / "zz.txt").write_bytes(b"\xff")
        with pytest.raises(UnreadableText, match=r"zz\.txt, line 1 \(byte 0\)"):
            build(options_for(corpus), tmp_path / "out")
        assert not (tmp_path / "out").exists()
        (corpus / "zz.txt").unlink()
        with pytest.raises(DataChanged, match=r"zz\.txt is gone"):
            build(options_for(corpus), tmp_path / "out")


@pytest.fixture
def broken_off(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a build was cut off after it had read everything."""

    class Tired(InProcess):
        def run(self, tasks: Iterator[dict[str, object]], progress: Callable[[int], None]) -> Iterator[object]:  # type: ignore[override]
            for task in tasks:
                if task["stage"] != "read":
                    raise KeyboardInterrupt
                yield from super().run([task], progress)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("phalanx.data.build.building.Pool", Tired)
        with pytest.raises(KeyboardInterrupt):
            build(options_for(corpus), out)
    assert not out.exists()
    return out


class TestKilled:
    @pytest.mark.usefixtures("in_process", "small_pieces")
    @pytest.mark.parametrize("times", [4, pytest.param(40, marks=pytest.mark.slow)])
    def test_at_any_moment_it_goes_on_to_the_same_bytes(self, corpus: Path, tmp_path: Path, times: int) -> None:
        """Moments are openings, renamings, deletions and flushes of files: it dies before one of them, again and again."""
        options = options_for(corpus, train=BPE, held_out=0.1)
        build(options, tmp_path / "whole")
        whole = fingerprints(tmp_path / "whole")
        moments = _moments(lambda: build(options, tmp_path / "counted"))
        assert moments > 200
        chance = random.Random(times)
        for number in range(times):
            out = tmp_path / f"out-{number}"
            deaths = 0
            while _dies(lambda out=out: build(options, out), at=chance.randrange(1, moments)):  # type: ignore[misc]
                deaths += 1
                assert not out.exists() or fingerprints(out) == whole  # never a part of one
                if deaths == 2:
                    break
            build(options, out)
            assert fingerprints(out) == whole
            assert not list(tmp_path.glob(f".{out.name}*"))

    def test_by_signal_with_all_its_processes(self, corpus: Path, tmp_path: Path) -> None:
        """The parent is killed when so many tasks are done: its workers die too, and the same command goes on."""
        text = "".join(f"{document(random.Random(seed))}\n" for seed in range(3000))
        (corpus / "large.txt").write_text(text)
        command = [sys.executable, "-m", "phalanx", "data", "build", str(corpus), "--processes", "2", "--quiet"]
        command += ["--split", "blank-lines", "--train-tokenizer", "bytes", "--json", "--out"]
        subprocess.run([*command, str(tmp_path / "whole")], check=True, stdout=subprocess.DEVNULL)
        out = tmp_path / "out"
        done = Work.beside(out).directory / "done"
        for tasks in (1, 5):
            process = subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL)
            while process.poll() is None and (not done.exists() or len(list(done.glob("*.json"))) < tasks):
                os.sched_yield()
            process.send_signal(signal.SIGKILL)
            process.wait()
        finished = subprocess.run([*command, str(out)], check=True, stdout=subprocess.PIPE)
        assert json.loads(finished.stdout)["resumed_tasks"] >= 5
        assert fingerprints(out) == fingerprints(tmp_path / "whole")

    def test_of_one_worker_is_one_message(self, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        started = Pool._start

        def start_and_kill(self: Pool) -> object:
            worker = started(self)
            worker.process.kill()
            return worker

        with monkeypatch.context() as patch:
            patch.setattr(Pool, "_start", start_and_kill)
            with pytest.raises(
                WorkerLost, match=r"killed by SIGKILL in the middle of read 0\n.*goes on where it stopped"
            ):
                build(options_for(corpus), tmp_path / "out", processes=1)
        build(options_for(corpus), tmp_path / "out", processes=1)


def _moments(work: Callable[[], object]) -> int:
    """How many moments `work` has."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        counted = _Moments(at=None)
        work()
        os.write(writer, str(counted.count).encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    os.close(writer)
    with os.fdopen(reader) as said:
        return int(said.read())


def _dies(work: Callable[[], object], at: int) -> bool:
    """Do `work` in a child that kills itself at a moment; False when it came to its end before that."""
    child = os.fork()
    if not child:
        _Moments(at)
        work()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
    return status != 0


class _Moments:
    """Counts what this process does to files, and kills it before number `at`."""

    EVENTS = frozenset({"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"})

    def __init__(self, at: int | None) -> None:
        self.count, self._at = 0, at
        sys.addaudithook(lambda event, _: self.tick() if event in self.EVENTS else None)
        flush = os.fsync

        def fsync(descriptor: int) -> None:
            self.tick()
            flush(descriptor)

        os.fsync = fsync  # type: ignore[assignment]

    def tick(self) -> None:
        self.count += 1
        if self.count == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_full_disk_is_one_message_and_no_dataset(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file may grow beyond 20,000 bytes, as on a full disk."""
    started = Pool._start

    def start_with_little_room(self: Pool) -> object:
        worker = started(self)
        resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
        return worker

    (corpus / "large.txt").write_bytes(np.random.default_rng(0).integers(97, 123, 300_000, np.uint8).tobytes())
    with monkeypatch.context() as patch:
        patch.setattr(Pool, "_start", start_with_little_room)
        with pytest.raises(DiskFull, match=r"the disk is full\n.*goes on where it stopped"):
            build(options_for(corpus), tmp_path / "out", processes=1)
    assert not (tmp_path / "out").exists()
    assert build(options_for(corpus), tmp_path / "out", processes=1).directory == tmp_path / "out"


def test_a_place_that_cannot_be_written_is_said_with_what_helps(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot be written.*\n.*run the same command again") as caught:
        build(options_for(corpus), tmp_path / "file" / "out")
    assert "--home" not in str(caught.value)


def test_options_survive_their_way_through_json() -> None:
    options = options_for("a", "b", include=("*.txt",), train=BPE, near=None)
    assert BuildOptions.from_json(json.loads(json.dumps(options.to_json()))) == options
    assert options_for("a", train=BYTES) != options_for("a", train=BPE)
