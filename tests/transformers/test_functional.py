"""The arithmetic of couplings on plain arrays is that of the layers."""

import numpy as np
import pytest
import scipy.stats

from npflows import CouplingLayer, functional

RNG = np.random.default_rng(0)
X, SCALE, SHIFT = RNG.normal(size=(3, 6, 4))


def test_coupling_and_its_inverse_cancel():
    y = functional.affine_coupling(X, SCALE, SHIFT)
    np.testing.assert_allclose(y, X * np.exp(SCALE) + SHIFT)
    np.testing.assert_allclose(functional.inverse_affine_coupling(y, SCALE, SHIFT), X)


def test_it_is_what_a_coupling_layer_does():
    layer = CouplingLayer([1, 1, 0, 0], (), "none", dtype="float64", rng=0)
    layer.params = RNG.normal(size=layer.num_params)
    weight, bias = (layer.named_params()[f"network.{name}_0"] for name in ("weight", "bias"))
    raw = X[:, :2] @ weight.T + bias
    y, log_det = layer.forward(X)
    np.testing.assert_allclose(y[:, 2:], functional.affine_coupling(X[:, 2:], raw[:, 1::2], raw[:, ::2]))
    np.testing.assert_allclose(log_det, functional.log_det_jacobian(raw[:, 1::2]))


def test_shapes_and_values_of_the_densities():
    total = functional.total_log_det_jacobian([SCALE, SHIFT])
    np.testing.assert_allclose(total, SCALE.sum(1) + SHIFT.sum(1))
    log_prob = functional.log_probability(X, total)
    np.testing.assert_allclose(log_prob, scipy.stats.norm.logpdf(X).sum(1) + total)
    loss = functional.nll_loss(X, total)
    assert isinstance(loss, float)
    assert loss == pytest.approx(-log_prob.mean())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: functional.affine_coupling(X, SCALE[:, :2], SHIFT), r"scale must have the shape of x, \(6, 4\)"),
        (lambda: functional.log_det_jacobian(SCALE[0]), r"scale must have shape \(batch, half\)"),
        (lambda: functional.total_log_det_jacobian([]), "at least one coupling"),
        (lambda: functional.total_log_det_jacobian([SCALE, SCALE[:2]]), "same batch"),
        (lambda: functional.log_probability(X, np.zeros(3)), "one for each row of z"),
        (lambda: functional.nll_loss(X[:0], np.zeros(0)), "at least one row"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
