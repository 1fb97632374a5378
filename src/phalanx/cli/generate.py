"""`phalanx generate`: text from a trained decoder, shown as it is written."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phalanx.cli._options import json_option
from phalanx.cli._terminal import printable
from phalanx.foundation import UsageError

if TYPE_CHECKING:
    from phalanx.evaluation import Passage, Writing
    from phalanx.training import OpenedModel

MAX_TOKENS = 400
_DRAWING = ("temperature", "top_k", "top_p", "min_p", "seed", "stop")  # what a beam search has no use for
_SEARCHING = ("length_penalty", "early_stopping", "returned")


def _finite(_ctx: click.Context, _param: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number")
    return value


def _not_empty(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    if not all(values):
        raise click.BadParameter("an empty text is found everywhere")
    return values


@click.command()
@click.argument("checkpoint", metavar="PATH", type=click.Path(path_type=Path))
@click.option("--prompt", multiple=True, metavar="TEXT", help="Go on with this text; may be given several times.")
@click.option("--prompts", metavar="FILE", help="A prompt on each line that is not empty; - reads standard input.")
@click.option("--max-tokens", type=click.IntRange(1), default=MAX_TOKENS, show_default=True, help="Stop after so many.")
@click.option(
    "--temperature",
    type=click.FloatRange(0),
    callback=_finite,
    default=0.7,
    show_default=True,
    help="0: always the likeliest token; 1: as often as the model believes.",
)
@click.option("--top-k", type=click.IntRange(1), help="Draw among the K likeliest only.  [default: among all]")
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    help="Draw among the fewest tokens that have P of the probability.  [default: among all]",
)
@click.option(
    "--min-p",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Leave out tokens less likely than P times the likeliest.  [default: none]",
)
@click.option(
    "--repetition-penalty",
    type=click.FloatRange(0, min_open=True),
    callback=_finite,
    default=1.0,
    help="Above 1: weaken tokens that the text already holds.  [default: 1]",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of the draws.")
@click.option(
    "--stop", multiple=True, metavar="TEXT", callback=_not_empty, help="End before this text; may be repeated."
)
@click.option("--beams", type=click.IntRange(1), help="Look for the likeliest text, going on with N at once.")
@click.option(
    "--length-penalty",
    type=click.FloatRange(-5, 5),
    callback=_finite,
    default=1.0,
    help="With --beams: above 0 favours long texts, below 0 short ones.  [default: 1]",
)
@click.option("--early-stopping", is_flag=True, help="With --beams: end as soon as N texts have ended.")
@click.option("--returned", type=click.IntRange(1), default=1, help="With --beams: show the best N.  [default: 1]")
@click.option(
    "--batch", type=click.IntRange(1), default=8, show_default=True, help="With several prompts: so many at once."
)
@json_option
@click.pass_context
def command(ctx: click.Context, /, checkpoint: Path, as_json: bool, **given: Any) -> None:
    """Write text with a trained decoder.

    PATH is a run directory (its newest good checkpoint is used), one checkpoint, or a directory of Hugging Face's
    files. Without a prompt a new document begins. The same seed gives the same text; the n-th of several prompts
    is written as if alone with --seed raised by n - 1.

    \b
    Examples:
      phalanx generate RUN
      phalanx generate RUN --prompt 'def read_lines(path):' --stop $'\\n\\n'
      phalanx generate RUN/checkpoints/step-00000300 --temperature 0 --max-tokens 100
      phalanx generate RUN --prompt 'import ' --seed 7 --top-p 0.9 --json
      phalanx generate gpt2/ --prompts lines.txt --beams 4 --max-tokens 40
    """
    logging.basicConfig(level=logging.WARNING, format="! %(message)s")
    _refuse_contradictions(ctx, given)
    prompts = [*given["prompt"], *(_lines(given["prompts"]) if given["prompts"] else [])] or [""]
    from phalanx.evaluation import open_writer, prompt_ids

    batch = min(given["batch"], len(prompts))
    opened = open_writer(checkpoint, batch * (given["beams"] or 1))
    longest = max(len(prompt_ids(opened, prompt)) for prompt in prompts)  # one that cannot be used is refused here
    groups = [prompts[begin : begin + batch] for begin in range(0, len(prompts), batch)]
    screen = None if as_json else _Screen()
    if not given["beams"]:
        document = _draw(opened, groups, given, screen)
    else:
        if _is_default(ctx, "max_tokens"):  # as far as the model reads at once
            given["max_tokens"] = max(1, min(MAX_TOKENS, opened.config.sequence_length - longest))
        document = _search(opened, groups, given, screen)
    if as_json:
        echo_safe_json({"checkpoint": str(opened.path), "step": opened.step, **document})


def _draw(
    opened: OpenedModel, groups: list[list[str]], given: dict[str, Any], screen: _Screen | None
) -> dict[str, Any]:
    from phalanx.evaluation import Writing
    from phalanx.models import GenerationSettings

    names = ("max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
    chosen = {name: given[name] for name in names}
    passages: list[Passage] = []
    reading_s, writing_s, tokens = 0.0, 0.0, 0
    for group in groups:
        settings = GenerationSettings(**chosen | {"seed": given["seed"] + len(passages)})
        writing = Writing(opened, group, settings, given["stop"])
        if screen is None:
            for _piece in writing:
                pass
        else:
            screen.follow(group, writing)
        passages += writing.passages
        reading_s += writing.pace.reading_s
        writing_s += writing.pace.writing_s
        tokens += writing.pace.tokens
    pace = tokens / writing_s if tokens else None
    if screen is not None:
        many = sum(passage.tokens for passage in passages)
        rate = "" if pace is None else f", {pace:,.4g} tokens/s"
        click.secho(f"{many:,} tokens{rate}, the first after {reading_s:.2f} s", dim=True, err=True)
    return {
        "settings": chosen | {"stop": list(given["stop"])},
        "texts": [_as_json(passage) for passage in passages],
        "reading_s": reading_s,
        "writing_s": writing_s,
        "tokens_per_s": pace,
    }


def _search(
    opened: OpenedModel, groups: list[list[str]], given: dict[str, Any], screen: _Screen | None
) -> dict[str, Any]:
    from phalanx.evaluation import search_texts
    from phalanx.models import BeamSettings

    names = ("beams", "max_tokens", "length_penalty", "early_stopping", "returned", "repetition_penalty")
    settings = BeamSettings(**{name: given[name] for name in names})
    begun = time.perf_counter()
    passages: list[Passage] = []
    best = 0
    for group in groups:
        for found in search_texts(opened, group, settings):
            passages += found
            best += found[0].tokens
            if screen is not None:
                for passage in found:
                    screen.show(passage, with_score=len(found) > 1)
    writing_s = time.perf_counter() - begun
    if screen is not None:
        click.secho(
            f"{best:,} tokens in {writing_s:.2f} s, {best / writing_s:,.4g} tokens/s, {settings.beams} beams",
            dim=True,
            err=True,
        )
    return {
        "settings": {name: getattr(settings, name) for name in names},
        "texts": [_as_json(passage) for passage in passages],
        "writing_s": writing_s,
        "tokens_per_s": best / writing_s,
    }


class _Screen:
    """Texts on a terminal, one below the other in the order of their prompts, with an empty line between."""

    def __init__(self) -> None:
        self._is_first = True

    def follow(self, prompts: list[str], writing: Writing) -> None:
        """Show the first text that has not ended as it is written; the others wait for their turn."""
        waiting = ["" for _ in prompts]
        row, last = 0, self._begin(prompts[0])
        for at, piece in writing:
            waiting[at] += piece
            while True:
                last = self._go_on(waiting[row], last)
                waiting[row] = ""
                if not writing.has_ended(row) or row + 1 == len(prompts):
                    break
                self._end(last)
                row, last = row + 1, self._begin(prompts[row + 1])
        for later in range(row, len(prompts)):
            if later > row:
                self._end(last)
                last = self._begin(prompts[later])
            last = self._go_on(waiting[later], last)
        self._end(last)

    def show(self, passage: Passage, *, with_score: bool) -> None:
        if with_score:
            click.secho(f"{'' if self._is_first else chr(10)}{passage.score:.4f}", dim=True)
            self._is_first = True
        last = self._begin(passage.prompt)
        self._end(self._go_on(passage.text, last))

    def _begin(self, prompt: str) -> str:
        if not self._is_first:
            click.echo()
        self._is_first = False
        click.secho(printable(prompt), dim=True, nl=False)
        return prompt

    @staticmethod
    def _go_on(piece: str, last: str) -> str:
        if not piece:
            return last
        click.echo(printable(piece), nl=False)
        return piece

    @staticmethod
    def _end(last: str) -> None:
        if not last.endswith("\n"):
            click.echo()


def _is_default(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is click.core.ParameterSource.DEFAULT


def _refuse_contradictions(ctx: click.Context, given: dict[str, Any]) -> None:
    def named(names: tuple[str, ...]) -> str:
        return ", ".join(f"--{name.replace('_', '-')}" for name in names if not _is_default(ctx, name))

    if given["beams"]:
        if drawing := named(tuple(name for name in _DRAWING if name != "temperature" or given[name] > 0)):
            raise UsageError(
                f"--beams looks for the likeliest text and has no use for {drawing}",
                remedy="leave out one or the other",
            )
        if given["returned"] > given["beams"]:
            raise UsageError(
                f"--returned {given['returned']} texts of --beams {given['beams']}",
                remedy="take as many beams, or more",
            )
    elif searching := named(_SEARCHING):
        raise UsageError(f"{searching} without --beams", remedy="add --beams 4, or leave it out")


def _lines(file: str) -> list[str]:
    from phalanx.evaluation import UnusablePrompt

    where = "standard input" if file == "-" else file
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        prompts = [line.removesuffix("\r") for line in data.decode().split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UnusablePrompt("is not UTF-8 text", where=f"{where}:{line}", remedy="save it as UTF-8") from error
    except OSError as error:
        raise UnusablePrompt(f"cannot be read ({error.strerror})", where=where, remedy="name a text file") from error
    if not prompts:
        raise UnusablePrompt("holds no prompt", where=where, remedy="write a prompt on each line")
    return prompts


def _as_json(passage: Passage) -> dict[str, Any]:
    values = dataclasses.asdict(passage)
    values["generated"] = values.pop("text")
    return {name: value for name, value in values.items() if name != "score" or value is not None}


def echo_safe_json(document: dict[str, Any]) -> None:
    """Print JSON in ASCII: nothing that a model wrote reaches a terminal as it is, and a reader gets it exactly."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False))
