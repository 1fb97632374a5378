"""The first file that a person gets."""

from __future__ import annotations

import pytest

from phalanx.job import parse_job, schema, template


def test_it_is_a_valid_job_of_the_given_name() -> None:
    assert parse_job(template("my-job")).metadata.name == "my-job"


def test_its_commented_keys_are_valid_too() -> None:
    text = template().replace("# dropout:", "dropout:").replace("# size:", "size:")
    job = parse_job(text)
    assert job.spec.model.dropout == 0.1


def test_it_mentions_every_key_of_the_specification_that_most_people_need() -> None:
    text = template()
    rare = {"suspend", "maskProbability", "decay", "betas", "momentum", "embeddingLr"}
    rare |= {"weights", "columns", "labels", "heldOutSource"}  # of fine-tuning
    rare |= {"mix", "crossDocuments"}  # of built datasets
    for part in ((), ("model",), ("data",), ("training",), ("workers",), ("security",)):
        for key in set(schema.keys(("spec", *part))) - rare:
            assert f"{key}:" in text, key


def test_every_value_has_a_comment_or_a_name_that_says_it() -> None:
    assert sum("#" in line for line in template().splitlines()) > 20


@pytest.mark.parametrize("name", ["../x", "A", "", "a" * 64])
def test_a_name_that_is_no_label_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a usable name"):
        template(name)
