"""`{verbs}`: the help of every verb of the table, as the commands themselves print it."""

from __future__ import annotations

import importlib

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from phalanx.cli.table import VERBS

WIDTH = 92


def help_texts(command: click.Command, name: str) -> list[tuple[str, str]]:
    """(name, help) of `command` and of each command below it."""
    context = click.Context(command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
    texts = [(name, command.get_help(context))]
    if isinstance(command, click.Group):
        for below, child in command.commands.items():
            texts += help_texts(child, f"{name} {below}")
    return texts


class Verbs(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        sections: list[nodes.Node] = []
        for verb, (target, summary) in VERBS.items():
            module_name, _, attribute = target.partition(":")
            command = getattr(importlib.import_module(module_name), attribute)
            section = nodes.section(ids=[f"phalanx-{verb}"])
            section += nodes.title(text=f"phalanx {verb}")
            section += nodes.paragraph(text=f"{summary}.")
            for _, text in help_texts(command, f"phalanx {verb}"):
                section += nodes.literal_block(text, text, language="text")
            sections.append(section)
        return sections


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("verbs", Verbs)
    return {"parallel_read_safe": True}
