"""`warmup` compiles all that a model needs, so that nothing is left to compile when it is used."""

import numpy as np
import pytest

from npflows import MAF, NeuralSplineFlow
from npflows.backends.cpu.compiler import folders
from npflows.models.table import MODELS, TABLE_MODELS
from npflows.warmup import warmup

cached = pytest.mark.skipif(folders.cache_directory() is None, reason="nothing can be written")


@cached
@pytest.mark.parametrize(
    ("name", "flow"), [("maf", MAF(5, 3, (24, 16), rng=0)), ("spline", NeuralSplineFlow(4, 3, (16,), rng=0))]
)
def test_nothing_is_left_to_compile(name, flow):
    done = warmup(name)
    assert list(done.seconds) == [name]
    assert done.folder == folders.cache_directory()
    before = set(done.folder.iterdir())
    assert before
    x = np.random.default_rng(0).normal(size=(200, flow.input_dim))
    flow.fit(x, max_epochs=1, rng=0, progress=False)
    flow.log_prob_and_grad(x)
    flow.sample_and_log_prob(3, 0)
    flow.inverse_vjp(x, x)
    assert set(done.folder.iterdir()) == before


def test_unknown_model_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="models must be one of 'maf', 'spline', 'realnvp', 'iaf', 'glow', got 'nsf'"):
        warmup(["maf", "nsf"])


def test_there_is_one_for_every_kind_of_model():
    assert list(MODELS) == ["maf", "spline", "realnvp", "iaf", "glow"]
    assert list(TABLE_MODELS) == ["maf", "spline", "realnvp", "iaf"]
    for model in MODELS.values():
        assert model.model_class(**model.small, condition_dim=1, rng=0).condition_dim == 1
    for model in TABLE_MODELS.values():
        assert getattr(model.model_class(3, **{model.depth: 1}, rng=0), model.depth) == 1
