"""Densities in PyTensor."""

import pickle

import numpy as np
import pytest

import npflows
from npflows.support import positive, real

pytensor = pytest.importorskip("pytensor")
tensor = pytest.importorskip("pytensor.tensor")
host = pytest.importorskip("npflows.hosts.pytensor")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
X = np.random.default_rng(0).normal(size=(5, 3))
MODES = pytest.mark.parametrize("mode", ["NUMBA", "FAST_RUN", "FAST_COMPILE"])


def small(**options):
    flow = npflows.MAF(3, 2, (8,), rng=0, **options)
    flow.params = flow.params + 0.1 * np.random.default_rng(0).normal(size=flow.num_params)
    return flow


@MODES
def test_value_and_gradient_to_the_bit(mode):
    flow = small()
    x = tensor.dvector("x")
    y = host.log_prob(npflows.embed(flow))(x)
    function = pytensor.function([x], [y, pytensor.grad(y, x)], mode=mode)
    for row in X:
        for mine, expected in zip(function(row), flow.log_prob_and_grad(row)):
            np.testing.assert_array_equal(mine, expected)


@MODES
def test_conditions(mode):
    flow, c = small(condition_dim=2), np.array([0.3, -0.4])
    x, condition = tensor.dvector("x"), tensor.dvector("condition")
    y = host.log_prob(npflows.embed(flow))(x, condition)
    function = pytensor.function([x, condition], [y, *pytensor.grad(y, [x, condition])], mode=mode)
    for mine, expected in zip(function(X[0], c), flow.log_prob_and_grad(X[0], c, wrt="both")):
        np.testing.assert_array_equal(mine, expected)


def test_graph_has_no_handle_and_can_be_pickled():
    density = npflows.embed(small())
    operation = host.make_operation(density)
    again = pickle.loads(pickle.dumps(operation))
    assert again.density.handle != density.handle
    x = tensor.dvector("x")
    assert pytensor.function([x], again(x))(X[0]) == density.log_prob(X[0])


def test_errors():
    with pytest.raises(ValueError, match="takes no condition"):
        host.log_prob(npflows.embed(small()))(X[0], X[0])
    with pytest.raises(ValueError, match="takes a condition of 2 values"):
        host.log_prob(npflows.embed(small(condition_dim=2)))(X[0])
    with pytest.raises(ValueError, match="a density takes vectors"):
        host.log_prob(npflows.embed(small()))(X)
    flow = npflows.MAF(2, 2, (8,), support=[positive(), real()], rng=0)
    with pytest.raises(ValueError, match=r"column 0 \(positive\)"):
        host.log_prob(npflows.embed(flow))
    x = tensor.dvector("x")
    y = host.log_prob(npflows.embed(small()))(x)
    slopes = pytensor.grad(y, x)
    with pytest.raises(NotImplementedError, match="first derivatives alone"):
        pytensor.grad(slopes.sum(), x)
