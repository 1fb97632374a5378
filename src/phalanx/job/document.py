"""YAML text into plain values, with the line of every key and value; nothing in it can cost much.

YAML 1.2 (`lr: 1e-3` is a number, `no` a text). Size, depth and count are bounded before anything is
built, and anchors, aliases, tags and repeated keys are refused, so that a small file stays small.
Knows nothing of jobs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, DocumentStartEvent, NodeEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from phalanx.foundation import UsageError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 10_000
MAX_NUMBER_LENGTH = 64

KeyPath = tuple[str | int, ...]
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a file: its line (from 1), its key path, and a sentence that says what is allowed."""

    line: int
    path: KeyPath
    message: str


class JobFileError(UsageError):
    """A job file that cannot be used; `problems` lists everything wrong in it, in the order of its lines."""

    def __init__(self, where: str, problems: list[Problem], *, remedy: str = "") -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        if len(self.problems) == 1:
            message = self.problems[0].message
            where_first = f"{where}:{self.problems[0].line}"
        else:
            message = f"{len(self.problems)} problems"
            message += "".join(f"\n  {where}:{problem.line}: {problem.message}" for problem in self.problems)
            where_first = where
        super().__init__(message, where=where_first, remedy=remedy)


@dataclass(frozen=True)
class Document:
    """`value`: dicts, lists, texts, numbers, true, false and None. `lines`: where each key path stands."""

    value: object
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def line(self, path: KeyPath) -> int:
        """Of the key path, or of the nearest parent that is in the file (1 when none is)."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def load(text: str, where: str) -> Document:
    """Read one YAML document. Raises JobFileError naming `where` and the lines."""
    size = len(text.encode(errors="surrogatepass"))
    if size > MAX_BYTES:
        raise _one(where, 1, f"the file has {size:,} bytes; a job file has at most {MAX_BYTES:,}")
    try:
        problem = _bound(text)
        node = None if problem else YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(str(word) for word in (error.context, error.problem) if word)
        raise _one(where, mark.line + 1 if mark else 1, f"this is not YAML: {said}") from error
    except YAMLError as error:  # the reader's: characters that YAML does not allow
        position = getattr(error, "position", 0)
        line = text.count("\n", 0, position if isinstance(position, int) else 0) + 1
        raise _one(where, line, f"this is not YAML text: {str(error).splitlines()[0]}") from error
    if problem:
        raise JobFileError(where, [problem])
    if node is None:
        raise _one(where, 1, "the file is empty")
    builder = _Builder()
    value = builder.build(node, ())
    if builder.problems:
        raise JobFileError(where, builder.problems)
    return Document(value, builder.lines)


def _one(where: str, line: int, message: str) -> JobFileError:
    return JobFileError(where, [Problem(line, (), message)])


def _bound(text: str) -> Problem | None:
    """What makes the document refused before it is built. Reads events one by one and stops at the first."""
    depth = nodes = documents = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        line = event.start_mark.line + 1
        name = type(event).__name__
        if isinstance(event, DocumentStartEvent):
            documents += 1
            if documents > 1:
                return Problem(line, (), "a second document begins here; a file holds one job")
            if event.version is not None and tuple(event.version) != (1, 2):
                return Problem(line, (), "only YAML 1.2 is read; remove the %YAML directive")
        if isinstance(event, AliasEvent):
            return Problem(line, (), f"the alias *{event.anchor} is refused: write the values out")
        if isinstance(event, NodeEvent):
            nodes += 1
            if event.anchor is not None:
                return Problem(line, (), f"the anchor &{event.anchor} is refused: write the values out")
            tag = getattr(event, "ctag", None)
            if tag is not None:
                return Problem(line, (), f"the tag {tag} is refused: write the plain value")
        depth += name.endswith("StartEvent") - name.endswith("EndEvent")
        if depth > MAX_DEPTH:
            return Problem(line, (), f"nested deeper than {MAX_DEPTH} levels")
        if nodes > MAX_NODES:
            return Problem(line, (), f"more than {MAX_NODES:,} values; a job has a few dozen")
    return None


class _Builder:
    """Plain values out of nodes; collects every problem instead of stopping at the first."""

    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[Problem] = []

    def build(self, node: Node, path: KeyPath) -> object:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, ScalarNode)
        return self._scalar(node, path)

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, object]:
        result: dict[str, object] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                self.problems.append(Problem(line, path, "a key must be a word"))
                continue
            key = str(key_node.value)
            if key in result:
                first = self.lines[(*path, key)]
                self.problems.append(Problem(line, (*path, key), f"`{key}` is given twice (first in line {first})"))
                continue
            self.lines[(*path, key)] = line
            result[key] = self.build(value_node, (*path, key))
        return result

    def _scalar(self, node: ScalarNode, path: KeyPath) -> object:
        text = str(node.value)
        kind = str(node.tag).removeprefix(_TAG)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind in ("int", "float") and len(text) > MAX_NUMBER_LENGTH:
            return self._refuse(node, path, f"a number of {len(text)} characters; at most {MAX_NUMBER_LENGTH} are read")
        if kind == "int":
            return _integer(text.replace("_", ""))
        if kind == "float":
            number = _float(text.replace("_", "").lower())
            if not math.isfinite(number):
                return self._refuse(node, path, f"{text} is not a finite number")
            return number
        if any("\ud800" <= character <= "\udfff" for character in text):
            return self._refuse(node, path, "half a character (a lone surrogate) in the text")
        return text

    def _refuse(self, node: Node, path: KeyPath, message: str) -> object:
        self.problems.append(Problem(node.start_mark.line + 1, path, message))
        return None


def _integer(text: str) -> int:
    """By the core schema of YAML 1.2: decimal even with leading zeros, 0o17 and 0x1f."""
    digits = text.lstrip("+-")
    base = {"0o": 8, "0x": 16, "0b": 2}.get(digits[:2].lower(), 10)
    number = int(digits[2:] if base != 10 else digits, base)
    return -number if text.startswith("-") else number


def _float(text: str) -> float:
    special = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}
    return float(special.get(text, text))
