"""What the documentation shows is what happens: its examples are executed, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from phalanx.cli.table import VERBS
from phalanx.job import JobFileError, parse_job
from tests.documents import Example, as_process, commands, examples, run_console, run_python

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#]+)(?:#[^)]*)?\)")

every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def blocks(path: Path) -> list[Example]:
    return examples(path.read_text(encoding="utf-8"))


def play(path: Path, directory: Path, *, slow: bool) -> None:
    """Do in `directory`, from top to bottom, what the document tells its reader to do."""
    for block in blocks(path):
        if block.file is not None:
            (directory / block.file).write_text(block.text, encoding="utf-8")
        if block.language == "console" and block.runs and (slow or not block.slow):
            run_console(block, directory)
        if block.language == "python" and not block.skipped and (slow or not block.slow):
            run_python(block, directory)


@every_document
def test_the_examples_of_a_document_work_in_order(path: Path, tmp_path: Path) -> None:
    play(path, tmp_path, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in DOCUMENTS if any(block.slow for block in blocks(path))])
def test_the_long_examples_of_a_document_work_too(path: Path, tmp_path: Path) -> None:
    play(path, tmp_path, slow=True)


@every_document
def test_a_job_shown_is_valid_unless_it_says_that_it_is_not(path: Path) -> None:
    for block in blocks(path):
        if block.language != "yaml" or "kind: TrainingJob" not in block.text or block.skipped:
            continue
        if "not valid" in block.note:
            with pytest.raises(JobFileError):
                parse_job(block.text, path.name)
        else:
            parse_job(block.text, f"{path.name}:{block.line}")


@every_document
def test_a_command_shown_names_a_verb_that_exists(path: Path) -> None:
    for block in blocks(path):
        if block.language == "console":
            for command in commands(block.text):
                if command.words[0] == "phalanx":
                    assert {*VERBS, "--help", "--version"} & set(command.words[1:]), command.words


@every_document
def test_a_link_to_a_file_leads_to_one(path: Path) -> None:
    for target in LINK.findall(path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


@every_document
def test_a_picture_needs_no_network_to_be_seen(path: Path) -> None:
    assert not re.search(r"!\[[^]]*\]\(https?:|<img[^>]+src=.https?:", path.read_text(encoding="utf-8"))


def test_the_readme_leads_to_every_room() -> None:
    linked = set(re.findall(r"\]\(src/phalanx/(\w+)\)", (ROOT / "README.md").read_text()))
    assert linked == {path.parent.name for path in (ROOT / "src" / "phalanx").glob("*/__init__.py")}


SAMPLE = """
# A page

<!-- run -->
```console
$ phalanx version \\
    --json
{
...
$ phalanx --version
phalanx, version ...
```

<!-- file: a.yaml, not valid -->
```yaml
kind: TrainingJob
```

```python
print("hello")
```

<!-- run: fails -->
```console
$ phalanx nothing
```
"""


class TestTheReaderOfExamples:
    def test_finds_every_block_with_its_language_note_and_line(self) -> None:
        found = examples(SAMPLE)
        assert [(block.language, block.note, block.line) for block in found] == [
            ("console", "run", 5),
            ("yaml", "file: a.yaml, not valid", 15),
            ("python", "", 19),
            ("console", "run: fails", 24),
        ]
        assert [block.file for block in found] == [None, "a.yaml", None, None]

    def test_takes_a_command_over_two_lines_and_its_output(self) -> None:
        first, second = commands(examples(SAMPLE)[0].text)
        assert first.words == ("phalanx", "version", "--json")
        assert first.output == "{\n..."
        assert second.words == ("phalanx", "--version")

    def test_runs_a_block_and_compares_what_it_prints(self, tmp_path: Path) -> None:
        run_console(examples(SAMPLE)[0], tmp_path)
        run_console(examples(SAMPLE)[3], tmp_path)

    @pytest.mark.parametrize(
        ("text", "note", "complaint"),
        [
            ("$ phalanx --version\nsomething else\n", "run", "something else"),
            ("$ phalanx nothing\n", "run", "exit 2"),
            ("$ phalanx --version\n", "run: fails", "exit 0"),
        ],
    )
    def test_says_what_did_not_happen(self, text: str, note: str, complaint: str, tmp_path: Path) -> None:
        with pytest.raises(AssertionError, match=complaint):
            run_console(Example("console", text, 1, note), tmp_path)

    def test_reports_a_python_block_that_fails(self, tmp_path: Path) -> None:
        with pytest.raises(AssertionError, match="ZeroDivisionError"):
            run_python(Example("python", "1 / 0", 3), tmp_path)

    def test_gives_a_document_a_home_directory_of_its_own(self, tmp_path: Path) -> None:
        (tmp_path / "there.txt").write_text("found")
        run_console(Example("console", "$ cat ~/there.txt\nfound\n", 1, "run"), tmp_path)
        run_python(
            Example("python", "from pathlib import Path; assert (Path.home() / 'there.txt').exists()", 1), tmp_path
        )

    def test_runs_nothing_but_our_own_command(self) -> None:
        with pytest.raises(ValueError, match="rm"):
            as_process(("rm", "-rf", "/"))
