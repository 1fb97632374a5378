"""The table that `--help` prints, compared with the commands themselves."""

import importlib

import click
import pytest

from phalanx.cli.main import main
from phalanx.cli.table import VERBS


def command_of(verb: str) -> click.Command:
    module_name, _, attribute = VERBS[verb][0].partition(":")
    command = getattr(importlib.import_module(module_name), attribute)
    assert isinstance(command, click.Command)
    return command


def leaves(command: click.Command, path: list[str]) -> list[tuple[list[str], click.Command]]:
    """`command`, or the commands below it when it is a group."""
    if not isinstance(command, click.Group):
        return [(path, command)]
    return [leaf for name, below in command.commands.items() for leaf in leaves(below, [*path, name])]


@pytest.mark.parametrize("verb", VERBS)
def test_the_summary_is_the_first_line_of_the_command(verb: str) -> None:
    help_text = command_of(verb).help
    assert help_text is not None
    assert help_text.strip().splitlines()[0].rstrip(".") == VERBS[verb][1]


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_command_has_examples_that_begin_with_its_name(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, _ in leaves(command_of(verb), [verb]):
        assert main([*path, "--help"]) == 0
        shown = capsys.readouterr().out
        assert "Examples:" in shown
        assert f"phalanx {' '.join(path)}" in shown.partition("Examples:")[2]


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_says_what_it_does(verb: str) -> None:
    for path, command in leaves(command_of(verb), [verb]):
        for param in command.params:
            if isinstance(param, click.Option):
                assert param.help, f"{' '.join(path)} {param.opts[0]} has no help"


def test_every_verb_is_a_module_of_its_own() -> None:
    modules = [target.partition(":")[0] for target, _ in VERBS.values()]
    assert modules == [f"phalanx.cli.{verb}" for verb in VERBS]
