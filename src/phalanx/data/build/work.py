"""The directory beside the dataset in which a build works: its plan, what is finished, and a lock.

    .<name>.building/plan.json        options and fingerprint, written last of the plan
                     sources.jsonl    a SourceFile a line
                     pieces.jsonl     a list of parts a line
                     done/<stage>-<number>.json   a task's result, written when its files are durable: the journal
                     texts/ sort/ dataset/        what the stages leave

A task without its result in `done` has never happened: it is done again from its beginning, and its files are
overwritten. Knows nothing of what the tasks do.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phalanx.data.build.listing import Part, SourceFile
from phalanx.data.build.options import BuildOptions
from phalanx.data.vocabulary import Vocabulary
from phalanx.foundation import UsageError, sync_directory, write_atomic, writing

Result = dict[str, Any]
"""JSON-safe; what a task tells those after it."""

_PLACES = ("done", "texts", "sort", "dataset")


@dataclass(frozen=True)
class Work:
    """`directory`: of the work; `out`: where the dataset will be."""

    directory: Path
    out: Path

    @classmethod
    def beside(cls, out: Path) -> Work:
        whole = out.absolute()
        return cls(whole.with_name(f".{whole.name}.building"), whole)

    @property
    def texts(self) -> Path:
        return self.directory / "texts"

    @property
    def sort(self) -> Path:
        return self.directory / "sort"

    @property
    def dataset(self) -> Path:
        return self.directory / "dataset"

    @property
    def held_out(self) -> Path:
        return self.sort / "held_out"

    @property
    def given_vocabulary(self) -> Path:
        """The tokenizer that the person named, or that was learned."""
        return self.directory / "tokenizer.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One build at a time. Raises UsageError when another has it; the kernel lets go when its holder dies."""
        with writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    "another build of this dataset is under way", where=str(self.out), remedy="wait for its end"
                ) from error
            yield
        finally:
            os.close(descriptor)

    def begin(
        self,
        options: BuildOptions,
        fingerprint: str,
        files: Iterable[SourceFile],
        pieces: Iterable[list[Part]],
        left_out: dict[str, tuple[int, int]],
        vocabulary: Vocabulary | None,
    ) -> None:
        """Write the plan; it is there when all of it is."""
        with writing(self.directory):
            for place in _PLACES:
                (self.directory / place).mkdir(exist_ok=True)
            self.held_out.mkdir(exist_ok=True)
            _write_lines(self.directory / "sources.jsonl", (file.to_json() for file in files))
            lines = (json.dumps([[part.source.number, part.start, part.stop] for part in piece]) for piece in pieces)
            _write_lines(self.directory / "pieces.jsonl", lines)
        if vocabulary is not None:
            write_atomic(self.given_vocabulary, vocabulary.to_json())
        plan = {"options": options.to_json(), "fingerprint": fingerprint, "left_out": left_out}
        write_atomic(self.directory / "plan.json", json.dumps(plan))

    def plan(self) -> dict[str, Any] | None:
        """What `begin` wrote: options, fingerprint and what the listing left out; None when nothing was begun."""
        try:
            found: dict[str, Any] = json.loads((self.directory / "plan.json").read_text("utf-8"))
        except FileNotFoundError:
            return None
        return found

    def sources(self) -> Iterator[SourceFile]:
        with (self.directory / "sources.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                yield SourceFile(**json.loads(line))

    def pieces(self) -> Iterator[list[Any]]:
        """Of each piece, its parts, JSON-safe: a source (as a dictionary), start and stop."""
        ahead = self.sources()
        held: SourceFile | None = None
        with (self.directory / "pieces.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                parts = []
                for number, start, stop in json.loads(line):
                    while held is None or held.number < number:
                        held = next(ahead)
                    parts.append([asdict(held), start, stop])
                yield parts

    def result(self, stage: str, number: int = 0) -> Result | None:
        """Of a finished task, None when it is not."""
        try:
            found: Result = json.loads(self._done(stage, number).read_text("utf-8"))
        except FileNotFoundError:
            return None
        return found

    def finished(self, stage: str, number: int = 0) -> Result:
        """Of a task that a later one builds on."""
        found = self.result(stage, number)
        assert found is not None, f"{stage} {number} is not done"
        return found

    def results(self, stage: str) -> Iterator[Result]:
        """Of all tasks of a stage, in order."""
        for number in itertools.count():
            found = self.result(stage, number)
            if found is None:
                return
            yield found

    def finish(self, stage: str, number: int, result: Result) -> None:
        """Note that a task is done; its files must be durable."""
        write_atomic(self._done(stage, number), json.dumps(result))

    def publish(self) -> None:
        """Give the dataset its name. It must be whole and durable."""
        with writing(self.out):
            os.rename(self.dataset, self.out)
            sync_directory(self.out.parent)

    def remove(self) -> None:
        """All of the work; the plan goes first, so that a kill in the middle leaves nothing that looks like work."""
        with writing(self.directory), contextlib.suppress(FileNotFoundError):
            (self.directory / "plan.json").unlink(missing_ok=True)
            shutil.rmtree(self.directory)

    def _done(self, stage: str, number: int) -> Path:
        return self.directory / "done" / f"{stage}-{number:06d}.json"


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
