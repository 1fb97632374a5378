from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phalanx.foundation import PhalanxError, StorageError
from phalanx.job import Condition, Finding
from phalanx.pages import write_report
from phalanx.pages.frame import clean
from phalanx.pages.report import render
from phalanx.pages.rows import History
from phalanx.pages.run_files import RunFiles, read_run
from tests.pages.engine import open_rows
from tests.pages.made import (
    HOSTILE,
    Clock,
    causal_evaluation,
    causal_job,
    decisions,
    emitter,
    failed_run,
    masked_evaluation,
    masked_job,
    plan,
    train,
    whole_run,
    write_files,
)

VOID = {"meta", "br", "img", "hr", "input", "link"}


class Page(HTMLParser):
    """What a browser would build: elements, attributes, texts; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        {"script": self.scripts, "style": self.styles}.get(inside, self.words).append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def check_page(text: str) -> Page:
    """A page of ours: one script and one style, both named by the policy; nothing else could run or load."""
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert len(page.scripts) == len(page.styles) == 1
    policy = next(a["content"] or "" for tag, a in page.elements if tag == "meta" and "http-equiv" in a)
    for kind, content in (("script", page.scripts[0]), ("style", page.styles[0])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    for tag, attributes in page.elements:
        assert tag not in {"img", "iframe", "object", "embed", "link", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in {"style", "src", "action", "srcdoc"}
            if name == "href":
                assert value is not None
                assert value.startswith("#")
    return page


def test_a_run_that_succeeded_is_told_in_full(tmp_path: Path, clock: Clock) -> None:
    run = whole_run(tmp_path, clock, causal_job(), causal_evaluation())
    out = write_report(run.job, run.run_dir, run.rows, run.run_dir / "report.html")
    assert out == run.run_dir / "report.html"
    page = check_page(out.read_text(encoding="utf-8"))
    for expected in (
        "It beats its strongest table by 9.7\u00a0%",
        "this model",
        "6-gram",
        "Return the lines of a file.",
        "micro-batch 32: the largest that leaves half of the memory free",
        "isolation: auto (no room enforces it yet)",
        "crashed by signal 9",
        "generation 2 goes on at 101",
        "Intel Xeon Platinum 8481C",
        "3.1 GiB are free",
        "reading batch 143",
        "No row is known to be lost.",
        "sequenceLength:",
    ):
        assert re.sub(r"\s+", " ", expected) in page.text, expected
    ids = {a["id"] for _, a in page.elements if "id" in a}
    links = {(a["href"] or "").removeprefix("#") for tag, a in page.elements if tag == "a"}
    assert links <= ids
    assert out.stat().st_size < 150_000
    assert os.stat(out).st_mode & 0o077 == 0


def test_the_curves_are_in_the_page_as_numbers(tmp_path: Path, clock: Clock) -> None:
    job, spool = causal_job(steps=20), tmp_path / "spool"
    train(spool, job, clock, 1, range(1, 21), loss=lambda step: 10.0 - step / 4)
    page = check_page(_written(tmp_path, job, open_rows(spool)))
    paths = [a.get("d") or "" for tag, a in page.elements if tag == "path"]
    assert "".join(f"{'M' if i == 1 else 'L'}{i} {-(10 - i / 4):.6g}" for i in range(1, 21)) in paths


def test_the_masked_sentence_its_guesses_and_the_truth_are_shown(tmp_path: Path, clock: Clock) -> None:
    run = whole_run(tmp_path, clock, masked_job(), masked_evaluation(), crash=False)
    text = _written(tmp_path, run.job, run.rows, run.run_dir)
    page = check_page(text)
    assert "It stays 5.9 points behind its strongest table" in page.text
    assert "Return a list of the ? in the given directory, sorted by name." in page.text.replace("the ?", "the ?")
    assert text.count('<code class="right">argument</code>') == 2
    assert "41.0" in page.text


def test_a_job_that_failed_at_once_says_why_first(tmp_path: Path, clock: Clock) -> None:
    run = failed_run(tmp_path, clock)
    text = _written(tmp_path, run.job, run.rows, run.run_dir)
    page = check_page(text)
    assert "The job failed" in page.text
    assert page.text.index("data/corpus: no file with text") < page.text.index("What was asked")
    assert "No plan was made: the job ended before." in page.text
    assert "name a directory that has some" in page.text
    assert 'class="plot"' not in text


def test_a_job_without_any_row_or_file_still_has_a_page(tmp_path: Path) -> None:
    page = check_page(_written(tmp_path, causal_job(phase="Failed"), open_rows(tmp_path / "no-spool")))
    assert "No step was trained." in page.text


def test_an_unreadable_store_and_damaged_files_are_said_on_the_page(tmp_path: Path) -> None:
    def rows(sql: str) -> Sequence[dict[str, Any]]:
        raise PhalanxError("part 7 is gone")

    run_dir = tmp_path / "run"
    write_files(run_dir)
    (run_dir / "plan.json").write_text("{")
    page = check_page(_written(tmp_path, causal_job(), rows, run_dir))
    assert "The store could not be read in full: part 7 is gone" in page.text
    assert "plan.json in the run directory is damaged" in page.text
    assert "No row is known to be lost." not in page.text


def test_hostile_text_from_every_side_stays_text(tmp_path: Path, clock: Clock) -> None:
    spool, run_dir = tmp_path / "spool", tmp_path / "run"
    condition = Condition(type=HOSTILE, status="False", reason=HOSTILE, message=HOSTILE, time_ns=1)
    job = causal_job(phase="Failed", conditions=[condition.model_dump()])
    data = job.spec.data.model_copy(update={"source": HOSTILE})
    model = job.spec.model.model_copy(update={"name": HOSTILE})
    job = job.model_copy(
        update={
            "spec": job.spec.model_copy(update={"data": data, "model": model}),
            "metadata": job.metadata.model_copy(update={"uid": HOSTILE}),
        }
    )
    hostile_plan = plan().model_copy(update={"reasons": (HOSTILE,), "not_enforced": (HOSTILE,)})
    finding = Finding(
        id=HOSTILE,
        rule=HOSTILE,
        severity="high",
        subject=HOSTILE,
        location=HOSTILE,
        evidence=HOSTILE,
        remedy=HOSTILE,
        source=HOSTILE,
    )
    evaluation = masked_evaluation()
    evaluation["baselines"][0]["name"] = HOSTILE
    evaluation["examples"] = [
        {"masked": f"{HOSTILE} [MASK] {HOSTILE}", "text": HOSTILE, "truth": HOSTILE, "guesses": [[HOSTILE, 0.5]]},
        {"prompt": HOSTILE, "generated": HOSTILE},
    ]
    write_files(run_dir, hostile_plan, [decisions()[0].model_copy(update={"findings": (finding,)})], evaluation)
    train(spool, job, clock, 1, range(1, 60))
    sink = emitter(spool, job, HOSTILE)
    sink.emit("states", dict.fromkeys(("kind", "name", "phase", "condition", "status", "reason", "message"), HOSTILE))
    sink.emit("workers", {"event": "started", "pid": 1}, generation=1, rank=0)
    sink.emit("workers", {"event": "exited", "pid": 1, "exit_kind": HOSTILE, "message": HOSTILE}, generation=1, rank=0)
    sink.emit("host_facts", {"fact": HOSTILE, "value": HOSTILE, "evidence": HOSTILE})
    sink.emit("checkpoints", {"event": HOSTILE, "step": 1, "message": HOSTILE, "bytes": 1, "seconds": 0.1})
    sink.emit("validations", {"step": 5, "split": HOSTILE, "loss": 1.0})
    sink.emit("losses", {"lost_source": sink.source, "first_seq": 1, "last_seq": 2, "rows": 2, "reason": HOSTILE})
    log = run_dir / "logs" / "generation-1" / "rank-0.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"{HOSTILE}\n")
    page = check_page(_written(tmp_path, job, open_rows(spool), run_dir))
    assert len([word for word in page.words if "alert('x')" in word]) >= 20


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(), max_size=40))
def test_any_text_at_all_gives_a_page_that_can_be_written(tmp_path: Path, text: str) -> None:
    evaluation = causal_evaluation() | {"examples": [{"prompt": text, "generated": text}]}
    write_files(tmp_path / "run", None, None, evaluation)
    job = causal_job(phase="Succeeded")
    page = render(job, read_run(tmp_path / "run"), History())
    check_page(page)
    assert page.encode("utf-8")


def test_characters_that_deceive_become_visible() -> None:
    assert clean("a\u202eb") == "a⟨U+202E⟩b"
    assert clean("\x1b[31m\0") == "␛[31m␀"
    assert clean("\ud800") == "⟨U+D800⟩"
    assert clean("tab\tline\nüñ 🙂") == "tab\tline\nüñ 🙂"
    assert clean(3) == 3


def test_a_page_says_which_fallback_was_carried_out(tmp_path: Path) -> None:
    job = causal_job(fallback=0)
    text = render(job, RunFiles(plan(), (), None, ()), History(), now_ns=0)
    assert "Memory ran out" in text
    assert "This one was carried out." in text
    assert "70.0 MiB" in check_page(text).text
    assert "If memory had run out" in render(causal_job(), RunFiles(plan(), (), None, ()), History())


def test_the_same_input_gives_the_same_page(tmp_path: Path, clock: Clock) -> None:
    run = whole_run(tmp_path, clock, causal_job(), causal_evaluation())
    assert _written(tmp_path, run.job, run.rows, run.run_dir) == _written(tmp_path, run.job, run.rows, run.run_dir)


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        write_report(causal_job(), tmp_path, open_rows(tmp_path), tmp_path / "no" / "such" / "report.html")


def _written(tmp_path: Path, job: Any, rows: Any, run_dir: Path | None = None) -> str:
    return write_report(job, run_dir or tmp_path, rows, tmp_path / "out.html").read_text(encoding="utf-8")
