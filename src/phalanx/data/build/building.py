"""Builds a dataset: plans or takes up the work, has each stage done by the pool, and publishes with one rename.

    read -> exact -> sketch -> candidates -> verify -> near -> layout -> learn -> tokenize -> finish

A stage is a list of tasks whose results are noted one by one; what is noted is not done again, so a build may be
killed at any moment. The dataset is the same, byte for byte, whatever was killed and however many processes work.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from phalanx.data.build.listing import SourceFile, digest_of, list_sources, pieces
from phalanx.data.build.options import BuildOptions, fingerprint
from phalanx.data.build.pool import Pool, Task
from phalanx.data.build.work import Work
from phalanx.data.dataset import MANIFEST, DatasetManifest, is_dataset
from phalanx.data.errors import DataChanged, DataError
from phalanx.data.vocabulary import Vocabulary
from phalanx.foundation import StorageError, UsageError, sha256_file

Progress = Callable[[str, int, int], None]
"""Called with the stage, how much of it is done, and how much it is in all (0: not known)."""

_ON_THE_DISK = "make room there, or make it writable, then run the same command again: it goes on where it stopped"


@dataclass(frozen=True)
class Built:
    """`peak`: most bytes of memory that a process held, 0 when nothing had to be done; `resumed`: tasks that were done
    before."""

    directory: Path
    manifest: DatasetManifest
    peak: int
    resumed: int
    was_there: bool


def build(
    options: BuildOptions,
    out: Path,
    *,
    vocabulary: Vocabulary | None = None,
    processes: int | None = None,
    restart: bool = False,
    progress: Progress = lambda stage, done, total: None,
) -> Built:
    """The dataset of `options` at `out`, built, taken up where it was cut off, or found there whole.

    `vocabulary`: what to tokenize with, unless `options.train` says how to learn it. `processes`: None for one a core.
    Raises UsageError for options that cannot be meant or are not those that the work was begun with, SourceMissing,
    SourceEmpty, UnreadableText, TextTooSmall, DataChanged for a source that is not what it was, StorageError
    (DiskFull), and WorkerLost when a process was killed.
    """
    if (vocabulary is None) == (options.train is None):
        raise UsageError("give a vocabulary, or say how to learn one, not both", remedy="see --tokenizer")
    if vocabulary is not None:
        options = replace(options, tokenizer_sha256=sha256(vocabulary.to_json().encode()).hexdigest())
    options.check()
    try:
        return _build(options, out, vocabulary, processes or len(os.sched_getaffinity(0)), restart, progress)
    except StorageError as error:
        raise type(error)(error.message, where=error.where, remedy=_ON_THE_DISK) from error


def _build(
    options: BuildOptions,
    out: Path,
    vocabulary: Vocabulary | None,
    processes: int,
    restart: bool,
    progress: Progress,
) -> Built:
    files, left_out = list_sources(options)
    mark = fingerprint(options, digest_of(files))
    work = Work.beside(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        return _found(out, mark, work)
    with work.locked():
        if restart:
            _forget(work)
        if work.plan() is None:
            _forget(work)
            work.begin(options, mark, files, pieces(files, options), left_out, vocabulary)
        else:
            _check_same(work, options, files)
        with Pool(work, processes) as pool:
            stages = _Stages(work, pool, progress)
            stages.run_all(options)
            peak = pool.peak
        work.publish()
        work.remove()
    manifest = DatasetManifest.from_json((out / MANIFEST).read_text("utf-8"))
    return Built(out, manifest, peak, stages.resumed, was_there=False)


class _Stages:
    """Runs the tasks of each stage that are not noted as done."""

    def __init__(self, work: Work, pool: Pool, progress: Progress) -> None:
        self._work, self._pool, self._progress = work, pool, progress
        self.resumed = 0

    def run_all(self, options: BuildOptions) -> None:
        work = self._work
        sizes = sum(file.bytes for file in work.sources())
        self._run("read", ({"parts": parts} for parts in work.pieces()), sizes)
        numbers = range(sum(1 for _ in work.results("read")))
        text = sum(result["counts"]["bytes"] for result in work.results("read"))
        if options.exact:
            self._run("exact", iter([{}]))
        if options.near is not None:
            self._run("sketch", ({} for _ in numbers), text)
            self._run("candidates", iter([{}]))
            looked = work.finished("candidates")
            self._run("verify", ({"portion": portion} for portion in looked["portions"]), looked["pairs"])
            self._run("near", iter([{}]))
        self._run("layout", iter([{}]))
        if options.train is not None:
            self._run("learn", iter([{}]), options.train.sample_bytes)
        starts = work.finished("layout")["starts"]
        shards = zip(starts, [*starts[1:], None], strict=True)
        self._run("tokenize", ({"start": start, "stop": stop} for start, stop in shards), text)
        plan = work.plan()
        assert plan is not None
        self._run("finish", iter([{"fingerprint": plan["fingerprint"], "left_out": plan["left_out"]}]))

    def _run(self, stage: str, tasks: Iterator[Task], total: int = 0) -> None:
        done = 0

        def further(count: int) -> None:
            nonlocal done
            done += count
            self._progress(stage, done, total)

        further(0)
        for _ in self._pool.run(self._missing(stage, tasks), further):
            pass
        self._progress(stage, total, total)

    def _missing(self, stage: str, tasks: Iterator[Task]) -> Iterator[Task]:
        for number, task in enumerate(tasks):
            if self._work.result(stage, number) is None:
                yield {"stage": stage, "number": number} | task
            else:
                self.resumed += 1


def _forget(work: Work) -> None:
    """Drop the work, but not the lock that is held."""
    (work.directory / "plan.json").unlink(missing_ok=True)
    for path in work.directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()


def _found(out: Path, mark: str, work: Work) -> Built:
    """What to do with an `out` that is there: fine when it is this very dataset."""
    if is_dataset(out):
        try:
            manifest = DatasetManifest.from_json((out / MANIFEST).read_text("utf-8"))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"holds a damaged dataset ({error})", where=str(out), remedy="delete it, then build again"
            ) from error
        if manifest.made.get("fingerprint") == mark:
            if work.directory.exists():  # killed between the rename and this
                with work.locked():
                    work.remove()
            return Built(out, manifest, 0, 0, was_there=True)
        what = "holds a dataset of other sources, other options, or sources that have changed since"
    else:
        what = "is there already, and is not a dataset"
    raise UsageError(what, where=str(out), remedy="name another directory with --out, or delete this one")


def _check_same(work: Work, options: BuildOptions, files: list[SourceFile]) -> None:
    """Raises UsageError when the work was begun with other options, DataChanged when a source is not what it was."""
    plan: dict[str, Any] | None = work.plan()
    assert plan is not None
    then, now = BuildOptions.from_json(plan["options"]).deciding(), options.deciding()
    if then != now:
        different = [
            f"{name} {then.get(name)!r} then, {now[name]!r} now" for name in now if then.get(name) != now[name]
        ]
        raise UsageError(
            f"this build was begun with other options: {'; '.join(different)}",
            where=str(work.directory),
            remedy="run it with the same options to go on, or with --restart to begin anew",
        )
    hashes: dict[int, str] = {}
    for result in work.results("read"):
        hashes |= {int(number): digest for number, digest in result["hashes"].items()}
    current = {file.name: file for file in files}
    problems = []
    for old in work.sources():
        new = current.pop(old.name, None)
        if new is None:
            problems.append(f"{old.name} is gone")
        elif new.bytes != old.bytes:
            problems.append(f"{old.name} had {old.bytes:,} bytes, has {new.bytes:,}")
        elif new.mtime_ns != old.mtime_ns and hashes.get(old.number) != sha256_file(Path(old.name)):
            problems.append(f"{old.name} was written again")
    problems += [f"{name} is new" for name in current]
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise DataChanged(
            f"sources changed since this build began: {'; '.join(problems[:5])}{more}",
            where=str(work.out),
            remedy="bring them back as they were to go on, or begin anew with --restart",
        )
