import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phalanx.data import DataChanged
from phalanx.evaluation import Evaluation, EvaluationError, NotACheckpoint, evaluate, open_checkpoint
from phalanx.evaluation.evaluator import find_answers
from phalanx.events.tables import TABLES
from phalanx.pages.run_files import parse_evaluation
from phalanx.training import CheckpointDamaged, TrainingError
from tests.evaluation.runs import Trained, make_job, spoil, train, write_text


@pytest.fixture(scope="module")
def of_decoder(decoder: Trained) -> Evaluation:
    return evaluate(decoder.directory, decoder.cache)


@pytest.fixture(scope="module")
def of_encoder(encoder: Trained) -> Evaluation:
    return evaluate(encoder.directory, encoder.cache)


@pytest.mark.parametrize("which", ["of_decoder", "of_encoder"])
def test_the_report_reads_every_part_of_the_document(which: str, request: pytest.FixtureRequest) -> None:
    evaluation: Evaluation = request.getfixturevalue(which)
    document = json.loads(evaluation.to_json())
    read = parse_evaluation(document)
    assert read is not None
    assert read.metric == evaluation.scores.metric
    assert read.model.value == evaluation.scores.model.value
    assert read.loss == evaluation.scores.loss
    assert [(score.name, score.value) for score in read.scores[1:]] == [
        (score.name, score.value) for score in evaluation.scores.baselines
    ]
    assert read.beats_strongest == (document["margin"] > 0)
    assert read.split["files"] == evaluation.scores.split["files"] > 0
    assert read.split["tokens"] > 0
    assert read.seconds > 0
    assert len(read.examples) == len(document["examples"]) > 0
    for example in read.examples:
        assert example.generated or len(example.guesses) == 5


def test_the_document_says_which_checkpoint_of_which_job_it_was(of_decoder: Evaluation, decoder: Trained) -> None:
    document = of_decoder.to_dict()
    assert document["checkpoint"] == {"path": str(decoder.directory / "checkpoints" / "step-00000060"), "step": 60}
    assert document["job"]["uid"] == decoder.job.metadata.uid
    assert document["objective"] == "causal-lm"


def test_the_model_has_learned_and_does_not_beat_the_tables_yet(of_decoder: Evaluation) -> None:
    """60 steps: better than knowing which bytes are frequent, worse than knowing six in a row."""
    document = of_decoder.to_dict()
    frequencies, *_, strongest = document["baselines"]
    assert strongest["value"] < document["model"]["value"] < frequencies["value"] < math.log2(257)
    assert document["strongest"] == "6-gram"
    assert document["margin"] == pytest.approx(strongest["value"] - document["model"]["value"])
    assert not document["beats_strongest"]


@pytest.mark.parametrize("which", ["of_decoder", "of_encoder"])
def test_rows_are_those_of_the_declared_table(which: str, request: pytest.FixtureRequest) -> None:
    evaluation: Evaluation = request.getfixturevalue(which)
    columns = {column.name for column in TABLES["scores"].columns}
    rows = list(evaluation.rows())
    assert all(row.keys() == columns for row in rows)
    own = [row for row in rows if not row["is_baseline"]]
    guesses = evaluation.to_dict()["guesses"]
    others = [name for name in ("top1", "top5") if name != evaluation.scores.metric]
    assert [(row["metric"], row["value"]) for row in own] == [
        (evaluation.scores.metric, evaluation.scores.model.value),
        ("loss", evaluation.scores.loss),
        *((name, guesses[name]["value"]) for name in others),
        ("expected_calibration_error", guesses["expected_error"]),
    ]
    assert sum(each["examples"] for each in guesses["bins"]) == evaluation.scores.tokens
    if evaluation.scores.metric == "top1":
        assert guesses["top1"]["value"] == evaluation.scores.model.value
        assert guesses["top1"]["standard_error"] == pytest.approx(evaluation.scores.model.standard_error)
    assert {row["model"] for row in own} == {evaluation.loaded.job.spec.model.name}
    assert [row["model"] for row in rows[len(own) :]] == [score.name for score in evaluation.scores.baselines]
    assert {row["tokens"] for row in rows} == {evaluation.scores.tokens}


@pytest.mark.parametrize(("which", "other"), [("of_decoder", "decoder"), ("of_encoder", "encoder")])
def test_two_ranks_find_what_one_does(which: str, other: str, request: pytest.FixtureRequest) -> None:
    alone: Evaluation = request.getfixturevalue(which)
    trained: Trained = request.getfixturevalue(other)
    told: list[tuple[str, float]] = []
    two = evaluate(trained.directory, trained.cache, lambda stage, share: told.append((stage, share)), ranks=2)
    assert two.scores.model.value == pytest.approx(alone.scores.model.value, rel=1e-6)
    assert two.scores.model.standard_error == pytest.approx(alone.scores.model.standard_error, rel=1e-5)
    assert two.scores.baselines == alone.scores.baselines
    assert two.to_dict()["guesses"]["top5"]["value"] == pytest.approx(alone.to_dict()["guesses"]["top5"]["value"])
    whole = find_answers(trained.directory, trained.cache, 0, 1)
    parts = [find_answers(trained.directory, trained.cache, part, 2) for part in (0, 1)]
    assert [len(part) for part in parts] == [len(whole) - len(whole) // 2, len(whole) // 2]
    assert [len(each[-2]) for each in parts[1]] == [len(each[-2]) for each in whole[1::2]]
    assert parts[1], "the second has something to do"
    assert {("scoring", 0.0), ("scoring", 0.5), ("scoring", 1.0)} <= set(told)


@pytest.mark.parametrize("place", ["", "checkpoints", "checkpoints/step-00000060"])
def test_a_checkpoint_is_found_from_each_place_that_leads_to_it(decoder: Trained, place: str) -> None:
    assert open_checkpoint(decoder.directory / place).path == decoder.directory / "checkpoints" / "step-00000060"


@pytest.fixture
def copied(decoder: Trained, tmp_path: Path) -> Path:
    """The decoder's run with a second, newer checkpoint, to be spoilt."""
    directory = tmp_path / "run"
    shutil.copytree(decoder.directory, directory)
    mine = Trained(directory, decoder.cache, decoder.job, decoder.corpus, decoder.module, decoder.config)
    mine.save(70)
    return directory


def test_a_damaged_newest_checkpoint_is_named_and_the_previous_one_used(
    copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(copied / "checkpoints" / "step-00000070")
    assert open_checkpoint(copied).manifest.step == 60
    assert "step-00000070" in caplog.text
    assert "altered" in caplog.text


def test_a_damaged_checkpoint_named_by_itself_is_refused(copied: Path) -> None:
    spoil(copied / "checkpoints" / "step-00000070")
    with pytest.raises(CheckpointDamaged, match="altered"):
        open_checkpoint(copied / "checkpoints" / "step-00000070")


def test_a_place_without_checkpoints_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no usable checkpoint") as caught:
        open_checkpoint(tmp_path)
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(NotACheckpoint, match="no such directory") as absent:
        open_checkpoint(Path("my-job"))
    assert "phalanx get" in absent.value.remedy
    (tmp_path / "file").write_text("")
    with pytest.raises(NotACheckpoint, match="is a file"):
        open_checkpoint(tmp_path / "file")


def test_text_that_changed_since_the_training_is_not_evaluated_on(tmp_path: Path) -> None:
    """Its held-out part may be what the model was trained on."""
    text = write_text(tmp_path / "text")
    run = train(tmp_path / "run", make_job(text), tmp_path / "cache")
    (text / "text-00.txt").write_text("something else altogether\n" * 50)
    assert evaluate(run.directory, run.cache).scores.tokens > 0, "the prepared corpus is still there"
    shutil.rmtree(run.cache)
    with pytest.raises(DataChanged, match="the text has changed") as caught:
        evaluate(run.directory, run.cache)
    assert caught.value.remedy


def test_a_checkpoint_away_from_its_run_is_not_evaluated_with_another_vocabulary(tmp_path: Path) -> None:
    text = write_text(tmp_path / "text")
    run = train(tmp_path / "run", make_job(text, kind="bpe"), tmp_path / "cache")
    alone = tmp_path / "taken" / "alone"
    shutil.copytree(run.directory / "checkpoints" / "step-00000001", alone)
    assert evaluate(alone, run.cache).scores.tokens > 0
    for number in range(12):
        (text / f"text-{number:02}.txt").write_text(f"quite another text {number} " * 400)
    with pytest.raises(DataChanged, match="another vocabulary"):
        evaluate(alone, run.cache)


def test_weights_that_are_no_numbers_are_named(decoder: Trained, tmp_path: Path) -> None:
    run = train(tmp_path / "run", decoder.job, decoder.cache)
    run.module.head.weight.data[3] = math.nan
    run.save(2)
    with pytest.raises(EvaluationError, match="no numbers"):
        evaluate(run.directory, run.cache)


def test_a_fresh_model_guesses_uniformly(decoder: Trained, tmp_path: Path) -> None:
    """257 symbols at log2(257) bits each, end marks among them."""
    run = train(tmp_path / "run", decoder.job, decoder.cache)
    scores = evaluate(run.directory, run.cache).scores
    assert scores.model.value == pytest.approx(math.log2(257) * scores.tokens / scores.split["bytes"], rel=1e-6)


def test_progress_names_the_stages_in_order(encoder: Trained) -> None:
    told: list[tuple[str, float]] = []
    evaluate(encoder.directory, encoder.cache, lambda stage, share: told.append((stage, share)))
    assert list(dict.fromkeys(stage for stage, _ in told))[-2:] == ["scoring", "writing"]
    assert all(0 <= share <= 1 for _, share in told)


def test_the_room_is_light_until_it_is_used() -> None:
    script = "import sys, phalanx.evaluation; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    import phalanx.evaluation as room

    assert all(hasattr(room, name) for name in room.__all__)
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = room.nothing_such
