"""`phalanx data`: build a dataset from text of any size, and say what is in one."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phalanx.cli._options import echo_json, json_option, refuse_unwritable
from phalanx.cli._terminal import one_line, printable
from phalanx.foundation import UsageError, size_in_words

if TYPE_CHECKING:
    from phalanx.data.build import BuildOptions, Built
    from phalanx.data.inspect import Inspection, SplitFacts

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
_STAGES = {
    "read": "reading and filtering",
    "exact": "finding equal documents",
    "sketch": "sketching documents",
    "candidates": "finding candidates for near duplicates",
    "verify": "comparing candidates",
    "near": "listing near duplicates",
    "layout": "dividing into shards",
    "learn": "learning the vocabulary",
    "tokenize": "tokenizing",
    "finish": "finishing",
    "checksums": "comparing checksums",
}
_SPLIT_NAMES = {"train": "for training", "held_out": "held out"}
_PLAIN_EVERY_S = 10.0
_WHOLE = 10**6
_BAR = 40
_SAMPLE_LINES = 6


class SizeType(click.ParamType[int]):
    """Bytes, such as `512MiB`, `2GB` or `1000000`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", str(value).strip().lower())
        if match is None:
            self.fail(f"{value!r} is no size; write it as 512MiB, 2GB or a number of bytes", param, ctx)
        return int(float(match[1]) * _UNITS[match[2] or ""])


@click.group()
def command() -> None:
    """Build datasets from text of any size, and look into them.

    \b
    Examples:
      phalanx data build texts/ --out dataset      build one
      phalanx data inspect dataset                 say what is in it
    """


@command.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Where the dataset goes.")
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A tokenizer.json, BERT's vocab.txt or GPT-2's vocab.json, or a directory that holds one.",
)
@click.option(
    "--train-tokenizer",
    type=click.Choice(["bpe", "wordpiece", "bytes"]),
    help="Learn one from a sample of the training text.  [default: bpe, without --tokenizer]",
)
@click.option(
    "--vocabulary-size", type=click.IntRange(256, 1 << 20), default=8192, show_default=True, help="Entries to learn."
)
@click.option(
    "--objective",
    type=click.Choice(["causal-lm", "masked-lm"]),
    help="Whose special tokens a learned vocabulary gets.  [default: masked-lm for wordpiece, else causal-lm]",
)
@click.option(
    "--sample-bytes", type=SizeType(), metavar="SIZE", help="To learn from.  [default: an eighth of --memory]"
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["auto", "text", "jsonl", "parquet"]),
    default="auto",
    show_default=True,
    help="auto: by the file's ending; .json is taken for JSON lines, what is unknown for text.",
)
@click.option(
    "--field", default="text", show_default=True, metavar="NAME", help="Of JSON lines and Parquet: where the text is."
)
@click.option(
    "--split",
    "cut",
    type=click.Choice(["file", "lines", "blank-lines"]),
    default="file",
    show_default=True,
    help="What a document is in a text file: all of it, each line, or what stands between blank lines.",
)
@click.option("--include", multiple=True, metavar="PATTERN", help="In directories, only files such as '*.txt'.")
@click.option("--min-characters", type=click.IntRange(1), help="Leave out shorter documents.")
@click.option("--max-characters", type=click.IntRange(1), help="Leave out longer documents.")
@click.option(
    "--max-non-text",
    type=click.FloatRange(0, 1),
    default=0.25,
    show_default=True,
    help="Leave out documents of which a larger share are controls, unassigned or replaced characters.",
)
@click.option("--max-word", type=click.IntRange(1), help="Leave out documents with a longer word (C4: 1000).")
@click.option(
    "--max-repeated-lines", type=click.FloatRange(0, 1), help="Leave out by share of repeated lines (Gopher: 0.3)."
)
@click.option(
    "--max-repeated-ngrams",
    type=click.FloatRange(0, 1),
    help="Leave out by share of words in repeated sequences of five (Gopher: 0.15).",
)
@click.option("--keep-duplicates", is_flag=True, help="Look for no duplicates, neither equal nor near.")
@click.option(
    "--near-duplicates",
    type=click.FloatRange(0, 1),
    default=0.8,
    show_default=True,
    metavar="SHARE",
    help="Leave out what is as similar as this (Jaccard, of five words) to a document before it; 0: only equal ones.",
)
@click.option(
    "--held-out",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.01,
    show_default=True,
    help="Share of documents kept for validation, chosen by the hash of their text.",
)
@click.option("--skip-bad", is_flag=True, help="Leave out what cannot be read, and count it, instead of ending.")
@click.option("--license", "licence", default="", metavar="TEXT", help="A note on what the sources allow, kept.")
@click.option(
    "--memory",
    type=SizeType(),
    default="512MiB",
    show_default=True,
    metavar="SIZE",
    help="The most that each process may hold, Python and its libraries (about 85 MiB) included.",
)
@click.option("--processes", type=click.IntRange(1), help="How many work at once.  [default: one a core]")
@click.option("--restart", is_flag=True, help="Forget what an earlier try of this build has done.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@json_option
def build(
    sources: tuple[str, ...],
    out: Path,
    tokenizer: Path | None,
    processes: int | None,
    restart: bool,
    quiet: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Build a dataset: filtered, without duplicates, tokenized, in shards.

    SOURCE is a file, a directory or a glob in quotes: text, JSON lines or Parquet, also packed (.gz, .zst). The same
    sources and options give the same bytes, however many processes work. Cut off at any moment, the same command goes
    on where it stopped; a dataset that is there is a whole one.

    \b
    Examples:
      phalanx data build texts/ --out dataset
      phalanx data build 'dump/*.jsonl.zst' --field content --out dataset --tokenizer gpt2/
      phalanx data build wiki.parquet --out dataset --train-tokenizer wordpiece --vocabulary-size 30522
      phalanx data build corpus.txt --split blank-lines --out dataset --memory 256MiB --license CC-BY-4.0
    """
    from phalanx.data.build import build as build_dataset
    from phalanx.data.build.worker import peak_bytes
    from phalanx.data.inspect import inspect_dataset
    from phalanx.data.vocabulary import Vocabulary

    options = _build_options(sources, tokenizer, given)
    options.check()
    vocabulary = None if tokenizer is None else Vocabulary.open(tokenizer.expanduser())
    with _Progress(quiet=quiet) as progress:
        built = build_dataset(
            options, out, vocabulary=vocabulary, processes=processes, restart=restart, progress=progress
        )
    peak = max(built.peak, peak_bytes())
    if as_json:
        found = inspect_dataset(out, samples=0).to_json()
        echo_json(found | {"peak_bytes": peak, "resumed_tasks": built.resumed, "was_there": built.was_there})
        return
    for line in _built(built, peak):
        click.echo(line)


def _build_options(sources: tuple[str, ...], tokenizer: Path | None, given: dict[str, Any]) -> BuildOptions:
    from phalanx.data.build import BuildOptions, Filters, TrainTokenizer

    learned: str | None = given["train_tokenizer"]
    if tokenizer is not None and learned is not None:
        raise UsageError(
            "name a tokenizer or have one learned, not both", where="--tokenizer, --train-tokenizer", remedy="drop one"
        )
    train = None
    if tokenizer is None:
        kind: Any = learned or "bpe"
        objective: Any = given["objective"] or ("masked-lm" if kind == "wordpiece" else "causal-lm")
        sample = given["sample_bytes"] or given["memory"] // 8
        train = TrainTokenizer(kind, 256 if kind == "bytes" else given["vocabulary_size"], objective, sample)
    near = None if given["keep_duplicates"] else given["near_duplicates"] or None
    return BuildOptions(
        sources=sources,
        train=train,
        format=given["form"],
        text_field=given["field"],
        cut=given["cut"],
        include=given["include"],
        filters=Filters(
            min_characters=given["min_characters"],
            max_characters=given["max_characters"],
            max_non_text=given["max_non_text"],
            max_word=given["max_word"],
            max_repeated_lines=given["max_repeated_lines"],
            max_repeated_ngrams=given["max_repeated_ngrams"],
        ),
        exact=not given["keep_duplicates"],
        near=near,
        held_out=given["held_out"],
        skip_bad=given["skip_bad"],
        licence=given["licence"],
        memory=given["memory"],
    )


@command.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--sequence-length",
    type=click.IntRange(8, 1 << 20),
    default=512,
    show_default=True,
    help="Of the rows whose padding is counted.",
)
@click.option("--samples", type=click.IntRange(0, 100), default=3, show_default=True, help="Documents to show.")
@click.option("--verify", is_flag=True, help="Read every byte and compare the checksums.")
@click.option("--sources", is_flag=True, help="Compare the sources with what they were; with --verify by their bytes.")
@click.option("--html", "page", type=click.Path(path_type=Path), metavar="FILE", help="Draw it all into one HTML file.")
@json_option
def inspect(
    directory: Path, sequence_length: int, samples: int, verify: bool, sources: bool, page: Path | None, as_json: bool
) -> None:
    """Say what a dataset holds, and whether it is whole.

    \b
    Examples:
      phalanx data inspect dataset
      phalanx data inspect dataset --sequence-length 128 --samples 0
      phalanx data inspect dataset --verify --sources
      phalanx data inspect dataset --html dataset.html
    """
    from phalanx.data.inspect import check_sources, inspect_dataset

    if page is not None:
        refuse_unwritable(page)
    with _Progress(quiet=not verify) as progress:
        found = inspect_dataset(
            directory,
            sequence_length=sequence_length,
            samples=samples,
            verify=verify,
            progress=lambda _, share: progress("checksums", round(share * _WHOLE), _WHOLE),
        )
    if sources:
        check_sources(found.manifest, hashes=verify)
    if page is not None:
        from phalanx.pages import write_dataset_page

        write_dataset_page(found.to_json(), page)
    if as_json:
        echo_json(found.to_json())
        return
    for line in _inspected(found):
        click.echo(line)
    if sources:
        click.echo(f"\nAll {len(found.manifest.sources):,} sources are what they were.")
    if page is not None:
        click.echo(f"\n{page}")


def _built(built: Built, peak: int) -> list[str]:
    manifest = built.manifest
    lines = []
    if built.was_there:
        lines.append(f"{built.directory} is there already, whole, of these sources and options: nothing was done.")
    lines += _counts(manifest.splits, manifest) + _left_out(manifest)
    read = manifest.made["read"]
    if read["cut"]:
        lines.append(
            f"  cut          {read['cut']:,} texts longer than "
            f"{size_in_words(manifest.made['options']['longest_document'])} into {read['parts']:,} documents"
        )
    if not built.was_there:
        lines.append(f"  memory       {size_in_words(peak)} in a process at the most")
    if built.resumed:
        lines.append(f"  taken up     {built.resumed:,} tasks were done before")
    lines.append(f"\nphalanx data inspect {built.directory}")
    return lines


def _counts(splits: Any, manifest: Any) -> list[str]:
    lines = []
    for name in splits:
        documents, tokens, size = manifest.documents(name), manifest.tokens(name), manifest.bytes(name)
        each = f", {size / tokens:.2f} bytes a token" if tokens else ""
        lines.append(
            f"  {_SPLIT_NAMES[name]:<12} {documents:,} documents, {tokens:,} tokens of {size_in_words(size)}{each}"
        )
    lines.append(f"  vocabulary   {manifest.vocabulary_kind}, {manifest.vocabulary_size:,} entries")
    if manifest.licence:
        lines.append(f"  licence      {one_line(manifest.licence)}")
    return lines


def _left_out(manifest: Any) -> list[str]:
    examples = manifest.made.get("examples", {})
    lines = []
    for number, (reason, (documents, size)) in enumerate(sorted(manifest.excluded.items())):
        such = f", such as {one_line(examples[reason][0])}" if examples.get(reason) else ""
        label = "" if number else "left out"
        lines.append(f"  {label:<12} {documents:,} documents, {size_in_words(size)}: {one_line(reason)}{such}")
    return lines


def _inspected(found: Inspection) -> list[str]:
    manifest = found.manifest
    lines = [f"{found.directory}: " + ("every byte is as it was written" if found.verified else "whole, by its sizes")]
    lines += _counts(found.splits, manifest)
    sources = sum(source.bytes for source in manifest.sources)
    lines.append(f"  sources      {len(manifest.sources):,} files, {size_in_words(sources)}")
    lines += _left_out(manifest)
    for name, facts in found.splits.items():
        if facts.lengths is not None:
            lines += ["", f"Tokens of a document, {_SPLIT_NAMES[name]}", *_histogram(facts)]
    train = found.splits["train"]
    if train.slots is not None:
        slots = train.slots
        lines += [
            "",
            f"Padding in rows of {slots.sequence_length:,} tokens",
            f"  one document a row   {slots.one_a_row:6.1%}   ({slots.cut:.1%} of the documents are longer than a row)",
            f"  packed (masked-lm)   {slots.packed:6.1%}",
            f"  joined (causal-lm)   {slots.joined:6.1%}",
        ]
    for sample in found.samples:
        shown = printable(sample.text).splitlines()[:_SAMPLE_LINES]
        lines += ["", f"Document {sample.number:,}, {sample.tokens:,} tokens", *(f"  │ {line[:110]}" for line in shown)]
    return lines


def _histogram(facts: SplitFacts) -> list[str]:
    assert facts.lengths is not None
    lengths = facts.lengths
    most = max(documents for _, _, documents, _ in lengths.bins)
    names = [f"{low:,} to {high:,}" if high > low else f"{low:,}" for low, high, _, _ in lengths.bins]
    width = max(map(len, names))
    lines = [
        f"  {name:>{width}}  {_bar(documents / most):<{_BAR}} {documents:,}"
        for name, (_, _, documents, _) in zip(names, lengths.bins, strict=True)
    ]
    summary = (
        f"  least {lengths.least:,}, a tenth up to {lengths.tenth:,}, half up to {lengths.median:,}, "
        f"nine tenths up to {lengths.ninetieth:,}, most {lengths.most:,}; mean {lengths.mean:,.1f}"
    )
    return [*lines, summary]


def _bar(share: float) -> str:
    """In eighths of a character; what is not nothing is seen."""
    eighths = max(round(share * _BAR * 8), 1 if share else 0)
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")


class _Progress:
    """On standard error: a bar with the time left on a terminal, a line now and then elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._quiet = quiet
        self._bar = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None)
        self._stage = ""
        self._began = self._said = 0.0

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._began, self._said = stage, now, now
            self._bar.remove_task(self._task)
            self._task = self._bar.add_task(_STAGES[stage], total=total or None)
            if not self._console.is_terminal:
                self._say(f"... {_STAGES[stage]}")
        self._bar.update(self._task, completed=done)
        if not self._console.is_terminal and now - self._said > _PLAIN_EVERY_S and 0 < done < total:
            self._said = now
            self._say(f"    {done / total:.0%}, {(now - self._began) * (total - done) / done:.0f} s left")

    def _say(self, line: str) -> None:
        if not self._quiet:
            self._console.print(line, markup=False)
