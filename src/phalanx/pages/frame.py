"""What all pages share: templates that escape every value, the style and script of this room, the content policy.

Everything that came from a person, a model or a log is hostile until escaped: Jinja2 escapes every value, `clean` makes
controls and direction marks visible, and the policy lets no script or style run but these two, named by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from importlib.resources import files as package_files
from typing import Any

import jinja2
from markupsafe import Markup

from phalanx.pages import quantities
from phalanx.pages.panels import guess_width

_TEMPLATES = package_files("phalanx.pages") / "templates"


def render_page(template: str, *, script_file: str = "report.js", images: bool = False, **values: Any) -> str:
    """The page as text, with `style`, `script` and `policy` for its head. `images`: it holds some, in itself."""
    style, script = asset("report.css"), asset(script_file)
    return (
        environment()
        .get_template(template)
        .render(
            **values,
            style=Markup(style),  # ours, from the package
            script=Markup(script),
            policy=f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
            + ("img-src data:; " if images else "")
            + "base-uri 'none'; form-action 'none'",
        )
    )


def clean(value: Any) -> Any:
    """`value` as text that shows what it holds: control and direction characters become visible, lone surrogates too.

    Markup and what is no text pass unchanged (Jinja2 escapes the result).
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    if value.isascii() and value.isprintable():
        return value
    return "".join(_visible(character) for character in value)


def _visible(character: str) -> str:
    if character in "\n\t\u00a0" or character.isprintable():
        return character
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # the control picture of the same number
    if unicodedata.category(character) in ("Zs", "Zl", "Zp"):
        return " "
    return f"\u27e8U+{code:04X}\u27e9"


def environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=clean,
    )
    for function in (quantities.number, quantities.count, quantities.size, quantities.duration, quantities.percent):
        environment.filters[function.__name__] = function
    environment.filters["guess_width"] = guess_width
    return environment


def asset(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
