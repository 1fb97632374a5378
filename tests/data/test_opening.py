"""Which data a job trains on, and what an evaluation is made on: text, datasets, and runs that began with either."""

from pathlib import Path

import numpy as np
import pytest

from phalanx.data import (
    DataChanged,
    DatasetDamaged,
    Loader,
    StreamLoader,
    TextTooSmall,
    check_datasets,
    open_corpus,
    open_data,
)
from phalanx.data.sampling import sample
from phalanx.job import Job, JobSpec
from tests.data.conftest import sentences
from tests.data.streams import SPECIAL, make, vocabulary

EOS = SPECIAL.index("<eos>")


def spec(source: Path, objective: str = "causal-lm", **data: object) -> JobSpec:
    values = {
        "model": {"name": "gpt-tiny", "objective": objective},
        "data": {"source": str(source), "sequence_length": 16, **data},
        "training": {"steps": 3, "global_batch": 4},
    }
    return Job.model_validate({"metadata": {"name": "small"}, "spec": values}).spec


@pytest.fixture
def source(tmp_path: Path) -> Path:
    make(tmp_path / "data", [30] * 20)
    return tmp_path / "data"


def test_a_finished_dataset_is_streamed_and_anything_else_prepared(tmp_path: Path, source: Path) -> None:
    assert isinstance(open_data(spec(source), tmp_path / "cache"), StreamLoader)
    (tmp_path / "text.txt").write_text(sentences(3000, seed=1))
    assert isinstance(open_data(spec(tmp_path / "text.txt"), tmp_path / "cache"), Loader)


def test_a_mix_is_streamed_and_says_its_shares(tmp_path: Path, source: Path) -> None:
    make(tmp_path / "other", [25] * 20, first=1000)
    mix = [{"source": str(source), "weight": 3}, {"source": str(tmp_path / "other"), "weight": 1}]
    data = open_data(spec("", mix=mix), tmp_path / "cache")  # type: ignore[arg-type]
    assert isinstance(data, StreamLoader)
    (note,) = data.notes
    assert f"75.0% from {source}" in note
    with pytest.raises(DatasetDamaged, match="manifest cannot be read"):
        open_data(spec("", mix=[{"source": str(tmp_path)}]), tmp_path / "cache")  # type: ignore[arg-type]


def test_a_run_goes_on_with_what_it_began_with(tmp_path: Path, source: Path) -> None:
    record = tmp_path / "run"
    data = open_data(spec(source), tmp_path / "cache", record=record)
    data.describe_into(record)
    assert isinstance(open_data(spec(source), tmp_path / "cache", record=record), StreamLoader)
    for file in source.iterdir():
        file.unlink()
    make(source, [31] * 20)
    for again in (open_data, open_corpus):
        with pytest.raises(DataChanged, match="built again"):
            again(spec(source), tmp_path / "cache", record=record)


def test_a_run_on_text_goes_on_with_it_though_a_dataset_was_built_there(tmp_path: Path) -> None:
    text, record = tmp_path / "texts", tmp_path / "run"
    text.mkdir()
    (text / "a.txt").write_text(sentences(3000, seed=1))
    open_data(spec(text), tmp_path / "cache", record=record).describe_into(record)
    make(text, [30] * 20)
    assert isinstance(open_data(spec(text), tmp_path / "cache", record=record), Loader)
    assert isinstance(open_data(spec(text), tmp_path / "cache"), StreamLoader)


def test_an_evaluation_is_made_on_whole_documents_each_once_and_always_the_same(tmp_path: Path) -> None:
    data, documents = make(tmp_path / "data", [30] * 20, held_out=100)
    corpus = open_corpus(spec(tmp_path / "data"), tmp_path / "cache")
    train = corpus.train
    found = [train.tokens[a:b].tolist() for a, b in zip(train.offsets[:-1], train.offsets[1:], strict=True)]
    assert sorted(found) == sorted([*document, EOS] for document in documents)
    assert (corpus.manifest.train.documents, corpus.manifest.train.tokens) == (20, 620)
    assert len(corpus.names("held_out")) == corpus.held_out.documents == len(data.held_out) == 20
    again = open_corpus(spec(tmp_path / "data"), tmp_path / "cache")
    assert (again.held_out.tokens == corpus.held_out.tokens).all()
    bare = open_corpus(spec(tmp_path / "data", "masked-lm"), tmp_path / "cache")
    assert EOS not in bare.train.tokens


def test_a_sample_is_no_longer_than_asked_but_for_its_last_document(tmp_path: Path) -> None:
    small, _ = make(tmp_path / "a", [30] * 3)
    large, _ = make(tmp_path / "b", [30] * 60, first=1000)
    sources = [small.train, large.train]
    found = sample(sources, [1.0, 1.0], vocabulary(), "masked-lm", 500, seed=2)
    assert 500 <= len(found.tokens) < 530
    whole = sample(sources, [1.0, 1.0], vocabulary(), "masked-lm", 10**9, seed=2)
    assert len(np.unique(whole.tokens)) == len(whole.tokens) == 63 * 30
    with pytest.raises(TextTooSmall):
        sample([make(tmp_path / "c", [30], held_out=0)[0].held_out], [1.0], vocabulary(), "masked-lm", 5, 0)


def test_admission_looks_at_the_files_of_a_dataset(source: Path) -> None:
    report = check_datasets(spec(source))
    assert (report.problems, report.bytes) == ((), 2 * 600 + 40)
    assert report.files == len(list(source.iterdir())) - 2
    file = source / "train-00002.index"
    file.unlink()
    (problem,) = check_datasets(spec(source)).problems
    assert (problem.severity, problem.location) == ("high", str(file))
    (problem,) = check_datasets(spec(source, "classify")).problems
    assert problem.remedy
