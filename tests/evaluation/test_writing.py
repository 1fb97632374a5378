import pytest

from phalanx.evaluation import NotADecoder, Sampling, UnusablePrompt, write_text
from phalanx.evaluation.evaluator import open_checkpoint
from phalanx.models import generate
from phalanx.training import LoadedModel
from tests.evaluation.runs import SEQUENCE, Trained


@pytest.fixture(scope="module")
def loaded(decoder: Trained) -> LoadedModel:
    return open_checkpoint(decoder.directory)


def test_the_pieces_are_the_text_of_the_tokens(loaded: LoadedModel) -> None:
    sampling = Sampling(max_tokens=120, temperature=0.9, top_k=20, seed=5)
    pieces = list(write_text(loaded, "the worker ", sampling))
    tokens = list(
        generate(
            loaded.module,
            list(b"the worker "),
            max_tokens=120,
            temperature=0.9,
            top_k=20,
            seed=5,
            stop=loaded.vocabulary.eos_id,
        )
    )
    assert "".join(pieces) == bytes(tokens).decode(errors="replace")
    assert len(pieces) > 60, "given out as it is written"


def test_the_same_seed_writes_the_same_and_another_seed_something_else(loaded: LoadedModel) -> None:
    first, again, other = (
        "".join(write_text(loaded, "the ", Sampling(60, temperature=1.0, seed=seed))) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_without_a_prompt_a_document_begins(loaded: LoadedModel) -> None:
    eos = loaded.vocabulary.eos_id
    tokens = list(generate(loaded.module, [eos], max_tokens=40, temperature=0, stop=eos))
    assert "".join(write_text(loaded, "", Sampling(40, temperature=0))) == loaded.vocabulary.decode(tokens)


def test_characters_come_whole_even_where_a_token_is_a_part_of_one(loaded: LoadedModel, monkeypatch) -> None:
    spelled = "naïve → 中".encode()
    monkeypatch.setattr("phalanx.evaluation.writing.generate", lambda *_, **__: iter(spelled + b"\xff!" + b"\xe4\xb8"))
    pieces = list(write_text(loaded, "a", Sampling()))
    assert "".join(pieces) == "naïve → 中\ufffd!", "what is no UTF-8 is marked, what stays unfinished is left out"
    assert "→" in pieces
    assert all(pieces)


def test_an_encoder_cannot_write(encoder: Trained) -> None:
    with pytest.raises(NotADecoder, match="bert-tiny fills in masked words") as caught:
        write_text(open_checkpoint(encoder.directory), "", Sampling())
    assert caught.value.exit_code == 2
    assert "causal-lm" in caught.value.remedy


def test_a_prompt_longer_than_the_model_reads_is_refused_with_both_numbers(loaded: LoadedModel) -> None:
    with pytest.raises(UnusablePrompt, match=rf"{SEQUENCE + 1} tokens, and the model reads {SEQUENCE} at once"):
        write_text(loaded, "x" * (SEQUENCE + 1), Sampling())
    assert "".join(write_text(loaded, "x" * SEQUENCE, Sampling(3)))


def test_a_prompt_that_is_no_text_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(UnusablePrompt, match="not UTF-8"):
        write_text(loaded, b"\xff".decode(errors="surrogateescape"), Sampling())
