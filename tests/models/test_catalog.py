"""The catalogue: names, configurations, and that it is light."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from phalanx.foundation import UsageError
from phalanx.models import MODELS, ModelConfig, UnknownModel, resolve


@pytest.mark.parametrize("module", ["phalanx.models", "phalanx.models.catalog"])
def test_the_catalogue_loads_no_torch(module):
    program = f"import sys, {module} as m; m.resolve('bert-tiny', 400, 64, None); print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "False"


def test_every_public_name_is_there():
    import phalanx.models

    for name in phalanx.models.__all__:
        assert getattr(phalanx.models, name) is not None
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = phalanx.models.no_such_thing


@pytest.mark.parametrize("name", MODELS)
def test_a_configuration_survives_json(name):
    config = resolve(name, 400, 64, None)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert (config.name, config.vocabulary_size, config.sequence_length) == (name, 400, 64)
    assert config.hidden % config.heads == 0


def test_dropout_is_the_jobs_or_the_models_own():
    assert resolve("bert-tiny", 400, 64, None).dropout == MODELS["bert-tiny"].dropout == 0.1
    assert resolve("bert-tiny", 400, 64, 0.0).dropout == 0.0
    assert resolve("decoder", 400, 64, 0.3).dropout == 0.3


def test_bert_tiny_has_the_published_shape():
    config = resolve("bert-tiny", 30_522, 128, None)
    assert (config.layers, config.hidden, config.heads) == (2, 128, 2)
    assert MODELS["bert-tiny"].objectives[0] == "masked-lm"


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(UnknownModel, match="did you mean 'bert-tiny'") as caught:
        resolve("bert-tinny", 400, 64, None)
    assert isinstance(caught.value, UsageError)
    assert "gpt-tiny" in caught.value.remedy
    with pytest.raises(UnknownModel) as caught:
        resolve("zzz", 400, 64, None)
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("change", [{"colour": 3}, {"family": "recurrent"}, {"hidden": None}])
def test_a_configuration_of_another_version_is_refused(change):
    values = {k: v for k, v in (resolve("decoder", 400, 64, None).to_dict() | change).items() if v is not None}
    with pytest.raises(UnknownModel, match=r"colour|recurrent|hidden"):
        ModelConfig.from_dict(values)
