import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from phalanx.data import (
    Corpus,
    CorpusDamaged,
    DataChanged,
    DataError,
    TextTooSmall,
    UnfitVocabulary,
    prepare,
    reopen,
)
from phalanx.data.prepare import is_held_out
from phalanx.data.source import text_hash
from phalanx.foundation import StorageError
from phalanx.job import DataSpec, VocabularySpec
from tests.data.conftest import MakeCorpus, sentences


def document(corpus: Corpus, split: str, index: int) -> str:
    part = corpus.split(split)
    return corpus.vocabulary.decode(part.tokens[part.offsets[index] : part.offsets[index + 1]])


def spec(source: Path, **more: object) -> DataSpec:
    return DataSpec.model_validate({"source": str(source), "vocabulary": VocabularySpec(), **more})


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_every_file_is_in_one_split_whole(make_corpus: MakeCorpus, text_directory: Path, kind: str) -> None:
    corpus = make_corpus("causal-lm", kind)
    seen = {}
    for split in ("train", "held_out"):
        for index, name in enumerate(corpus.names(split)):
            assert name not in seen
            seen[name] = document(corpus, split, index)
            held_out = is_held_out(text_hash(seen[name]), 0.2)
            assert held_out == (split == "held_out")
    files = {path.relative_to(text_directory).as_posix(): path.read_text() for path in text_directory.rglob("*.txt")}
    unique = {text: name for name, text in sorted(files.items(), reverse=True)}
    assert seen == {name: text for text, name in unique.items()}


def test_the_manifest_states_the_sizes(make_corpus: MakeCorpus) -> None:
    corpus = make_corpus("causal-lm", "bpe")
    for split in ("train", "held_out"):
        part, counts = corpus.split(split), getattr(corpus.manifest, split)
        assert counts.tokens == len(part.tokens) == part.offsets[-1]
        assert counts.files == counts.documents == part.documents
        assert counts.bytes == corpus.vocabulary.byte_lengths[part.tokens].sum()
        assert (part.tokens[part.offsets[1:] - 1] == corpus.vocabulary.eos_id).all()
    text = corpus.manifest.describe()
    assert f"in {corpus.manifest.held_out.files} files held out" in text
    assert "duplicate" in text


def test_masked_corpora_have_no_end_marks(make_corpus: MakeCorpus) -> None:
    corpus = make_corpus("masked-lm", "wordpiece")
    assert not np.isin(corpus.train.tokens, list(corpus.vocabulary.special.values())).any()


def test_about_the_share_asked_for_is_held_out() -> None:
    held_out = sum(is_held_out(text_hash(str(number)), 0.05) for number in range(20_000))
    assert 900 < held_out < 1100


def test_held_out_text_teaches_the_vocabulary_nothing(text_directory: Path, tmp_path: Path) -> None:
    """A word that fills held-out files, and stands nowhere else, gets no token of its own."""
    word = "zyzzyva"
    changed = 0
    for path in sorted(text_directory.rglob("*.txt")):
        text = path.read_text() + f" {word}" * 300
        if is_held_out(text_hash(text), 0.2):
            path.write_text(text)
            changed += 1
    assert changed > 2
    for kind, objective in (("bpe", "causal-lm"), ("wordpiece", "masked-lm")):
        wanted = VocabularySpec.model_validate({"kind": kind, "size": 600})
        corpus = prepare(spec(text_directory, vocabulary=wanted, held_out=0.2), objective, tmp_path / kind)  # type: ignore[arg-type]
        assert (
            any(word in document(corpus, "held_out", index) for index in range(corpus.held_out.documents))
            or kind == "wordpiece"
        )
        assert not any("zy" in corpus.vocabulary.token(id_) for id_ in range(corpus.vocabulary.size))


def test_one_file_is_split_into_sections(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text(sentences(3000))
    corpus = prepare(spec(path), "causal-lm", tmp_path / "cache")
    assert corpus.manifest.held_out.files >= 1
    assert corpus.manifest.train.files > 50
    assert corpus.manifest.train.bytes + corpus.manifest.held_out.bytes == path.stat().st_size


def test_something_is_always_held_out(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text(sentences(100))
    corpus = prepare(spec(path, held_out=1e-9), "causal-lm", tmp_path / "cache")
    assert corpus.held_out.documents == 1


def test_a_text_too_small_to_split_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("short\n")
    with pytest.raises(TextTooSmall, match="too little text") as caught:
        prepare(spec(path), "causal-lm", tmp_path / "cache")
    assert caught.value.where == str(path)
    assert [entry.suffix for entry in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_bad_vocabulary_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UnfitVocabulary):
        prepare(
            spec(tmp_path / "missing", vocabulary=VocabularySpec(kind="wordpiece")), "causal-lm", tmp_path / "cache"
        )


def test_the_second_time_the_cache_is_used(make_corpus: MakeCorpus) -> None:
    first = make_corpus()
    written = (first.directory / "train.npy").stat().st_mtime_ns
    second = make_corpus()
    assert second.directory == first.directory
    assert (first.directory / "train.npy").stat().st_mtime_ns == written


def test_what_decides_the_content_decides_the_digest(make_corpus: MakeCorpus, text_directory: Path) -> None:
    digests = {
        make_corpus().digest,
        make_corpus(held_out=0.3).digest,
        make_corpus(objective="masked-lm").digest,
        make_corpus(kind="bpe").digest,
        make_corpus(kind="bpe", size=401).digest,
    }
    assert make_corpus(kind="bytes", size=999).digest in digests  # bytes have no size
    (text_directory / "part0" / "00.txt").write_text("changed")
    digests.add(make_corpus().digest)
    assert len(digests) == 6


def test_progress_goes_through_the_stages(tmp_path: Path, text_directory: Path) -> None:
    told: list[tuple[str, float]] = []
    prepare(spec(text_directory), "causal-lm", tmp_path / "cache", lambda stage, share: told.append((stage, share)))
    stages = list(dict.fromkeys(stage for stage, _ in told))
    assert stages == ["reading", "learning", "encoding", "ready"]
    assert all(0 <= share <= 1 for _, share in told)
    for stage in stages:
        shares = [share for name, share in told if name == stage]
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(1)


@pytest.mark.parametrize("name", ["train.npy", "held_out.offsets.npy", "corpus.json", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "garbage"])
def test_a_damaged_corpus_is_named_and_made_anew(make_corpus: MakeCorpus, name: str, damage: str) -> None:
    good = make_corpus()
    tokens = good.train.tokens.tolist()
    path = good.directory / name
    if damage == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"\x93NUMPY garbage")
    with pytest.raises(CorpusDamaged) as caught:
        Corpus.open(good.directory)
    assert caught.value.where == str(good.directory)
    again = make_corpus()
    assert again.train.tokens.tolist() == tokens


def test_a_pickle_in_the_cache_is_not_loaded(make_corpus: MakeCorpus) -> None:
    corpus = make_corpus()
    np.save(corpus.directory / "train.offsets.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CorpusDamaged, match="allow_pickle"):
        Corpus.open(corpus.directory)


def test_a_manifest_of_another_schema_is_refused(make_corpus: MakeCorpus) -> None:
    corpus = make_corpus()
    path = corpus.directory / "corpus.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(CorpusDamaged, match="schema 2, expected 1"):
        Corpus.open(corpus.directory)


def test_vocabulary_and_manifest_are_copied_into_a_run(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    corpus = make_corpus()
    corpus.describe_into(tmp_path / "run" / "data")
    for name in ("tokenizer.json", "corpus.json"):
        assert (tmp_path / "run" / "data" / name).read_text() == (corpus.directory / name).read_text()


def test_a_run_gets_its_own_corpus_again_though_the_text_has_changed(
    make_corpus: MakeCorpus, text_directory: Path, tmp_path: Path
) -> None:
    first = make_corpus()
    first.describe_into(tmp_path / "data")
    (text_directory / "part0" / "00.txt").write_text("changed")
    wanted = spec(text_directory, held_out=0.2)
    assert reopen(tmp_path / "data", wanted, "causal-lm", tmp_path / "cache").digest == first.digest
    with pytest.raises(DataChanged, match="changed since the run began") as caught:
        reopen(tmp_path / "data", wanted, "causal-lm", tmp_path / "other-cache")
    assert caught.value.where == str(text_directory)


def test_a_run_gets_its_corpus_again_from_the_same_text(
    make_corpus: MakeCorpus, text_directory: Path, tmp_path: Path
) -> None:
    make_corpus().describe_into(tmp_path / "data")
    wanted = spec(text_directory, held_out=0.2)
    again = reopen(tmp_path / "data", wanted, "causal-lm", tmp_path / "other-cache")
    assert again.digest == make_corpus().digest
    assert reopen(tmp_path / "no-record", wanted, "causal-lm", tmp_path / "cache").digest == again.digest


def test_a_damaged_record_of_a_run_is_named(make_corpus: MakeCorpus, text_directory: Path, tmp_path: Path) -> None:
    make_corpus().describe_into(tmp_path / "data")
    (tmp_path / "data" / "corpus.json").write_text("{")
    with pytest.raises(CorpusDamaged) as caught:
        reopen(tmp_path / "data", spec(text_directory), "causal-lm", tmp_path / "cache")
    assert "corpus.json" in caught.value.where


PREPARE = """
import sys, pathlib
from phalanx.data import prepare
from phalanx.job import DataSpec
slow = sys.argv[3] == "slow"
def progress(stage, share):
    print(stage, flush=True)
    if slow and stage == "encoding":
        sys.stdin.readline()
corpus = prepare(DataSpec(source=sys.argv[1]), "causal-lm", pathlib.Path(sys.argv[2]), progress)
print("digest", corpus.digest, int(corpus.train.tokens.astype("int64").sum()))
"""


def start(source: Path, cache: Path, speed: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(source), str(cache), speed],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def read_until(process: "subprocess.Popen[str]", word: str) -> str:
    assert process.stdout
    for line in process.stdout:
        if line.startswith(word):
            return line
    raise AssertionError(f"no {word!r}")


def test_two_processes_at_once_prepare_it_once(text_directory: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = start(text_directory, cache, "slow")
    read_until(first, "encoding")
    second = start(text_directory, cache, "fast")
    assert first.stdin
    first.stdin.write("\n" * 1000)
    first.stdin.close()
    results = {read_until(first, "digest"), read_until(second, "digest")}
    assert first.wait() == second.wait() == 0
    assert len(results) == 1
    assert len([entry for entry in cache.iterdir() if entry.is_dir()]) == 1


def test_a_process_killed_while_preparing_leaves_nothing_that_is_used(text_directory: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = start(text_directory, cache, "slow")
    read_until(first, "encoding")
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert list(cache.glob(".*.tmp"))
    corpus = prepare(spec(text_directory), "causal-lm", cache)
    assert corpus.train.documents
    assert not list(cache.glob(".*.tmp"))


def test_a_file_that_goes_while_it_is_read_is_an_error_and_leaves_no_rest(text_directory: Path, tmp_path: Path) -> None:
    def progress(stage: str, share: float) -> None:
        for path in text_directory.rglob("*.txt"):
            path.unlink()

    with pytest.raises(DataError, match="cannot be read"):
        prepare(spec(text_directory), "causal-lm", tmp_path / "cache", progress)
    assert not list((tmp_path / "cache").glob(".*.tmp"))


@pytest.mark.root
def test_a_full_disk_is_said_and_leaves_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text(sentences(30_000))
    program = (
        "import os, pathlib, subprocess, sys\n"
        "from phalanx.data import prepare\n"
        "from phalanx.job import DataSpec\n"
        "subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', sys.argv[2]], check=True)\n"
        "try:\n    prepare(DataSpec(source=sys.argv[1]), 'causal-lm', pathlib.Path(sys.argv[2]))\n"
        "except Exception as error:\n    print(type(error).__name__, error, [n for n in os.listdir(sys.argv[2]) if n.endswith('.tmp')])\n"
    )
    (tmp_path / "cache").mkdir()
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", program, str(path), str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("DiskFull"), done.stderr
    assert "free space" in done.stdout
    assert "[]" in done.stdout


def test_a_cache_that_is_a_file_is_an_error_of_storage(tmp_path: Path, text_directory: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(StorageError):
        prepare(spec(text_directory), "causal-lm", tmp_path / "cache")
