"""What arguments of layers are refused for, and what they need."""

import numpy as np
import pytest

from npflows import (
    Beta,
    CouplingLayer,
    Householder,
    IAFLayer,
    LULinear,
    MAFLayer,
    NormalizingFlow,
    QRLinear,
    SplineCouplingLayer,
    SplineLayer,
    SVDLinear,
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MAFLayer(3, (4,), residual_activations="inner"), "needs residual_blocks above 0"),
        (lambda: MAFLayer(3, (4,), residual_blocks=1, residual_activations="outer"), "residual_activations must be one of"),
        (
            lambda: MAFLayer(3, (4,), residual_blocks=1, gated=True),
            "gated=True needs residual_blocks and condition_dim above 0",
        ),
        (lambda: MAFLayer(3, (4,), condition_in="blocks", condition_dim=1), "condition_in='blocks' needs residual_blocks"),
        (lambda: MAFLayer(3, (4,), hidden_degrees=[[0, 1, 2]]), "one degree for each unit of the hidden layers"),
        (lambda: MAFLayer(3, (4,), hidden_degrees=[[0, 2, 1, 2]]), "must rise in each layer and lie below the number"),
        (lambda: MAFLayer(3, (4,), hidden_degrees=[[0, 1, 2, 3]]), "must rise in each layer and lie below the number"),
        (
            lambda: MAFLayer(3, (2,), residual_blocks=1, hidden_degrees=[[1, 2], [1, 2], [1, 1]]),
            "must not fall from the unit that enters a residual block",
        ),
        (lambda: CouplingLayer([0, 1], (4,), "soft_clip"), "'soft_clip' needs min_scale between 0 and 1"),
        (lambda: CouplingLayer([0, 1], (4,), "tanh", max_scale=3.0), "max_scale needs scale_activation='softplus'"),
        (lambda: IAFLayer(2, (4,), None, "softplus", min_scale=2.0, max_scale=1.0), "above min_scale=2.0"),
        (lambda: SplineLayer(2, least_slope=0.1), "least_slope must be below 1, and needs min_derivative=0"),
        (lambda: SplineLayer(2, least_slope=1.5, min_derivative=0.0), "least_slope must be below 1"),
        (lambda: SplineLayer(2, circular=[1, 0], free_ends=True), "splines of values on circles have no free_ends"),
        (lambda: SplineLayer(2, turned=2), "turned must be True"),
        (lambda: SplineCouplingLayer([0, 1], (4,), inverted=1.5), "inverted must be True"),
        (lambda: LULinear(3, signs=[1, 1]), "signs must be 1 or -1 for each of 3 values, got \\[1, 1\\]"),
        (lambda: LULinear(3, signs=[1, 0, -1]), "signs must be 1 or -1"),
        (lambda: LULinear(2, signs="+-"), "signs must be 1 or -1"),
        (lambda: Householder(3, 0), "num_reflections must be a whole number of at least 1"),
        (lambda: QRLinear(0), "input_dim must be a whole number of at least 1"),
        (lambda: SVDLinear(3, 1.5), "num_reflections must be a whole number"),
        (lambda: Beta(2, 0.0), "shape must be a finite number above 0"),
        (lambda: NormalizingFlow([SplineLayer(2)], embedding_activation="gelu"), "embedding_activation must be one of"),
    ],
)
def test_what_can_not_be_is_refused(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_beta_is_the_distribution_of_its_name():
    stats = pytest.importorskip("scipy.stats")
    base = Beta(2, 13.0, 5.0, dtype="float64")
    z = np.linspace(-4.9, 4.9, 50)[:, None].repeat(2, 1)
    own = stats.beta(13, 13, loc=-5, scale=10)
    np.testing.assert_allclose(base.log_prob(z), 2 * own.logpdf(z[:, 0]), rtol=1e-12)
    np.testing.assert_allclose(base.cdf(z), own.cdf(z), atol=1e-14)
    below = z[z[:, 0] < 0]
    np.testing.assert_allclose(base.ppf(base.cdf(below)), below, rtol=1e-12)
    np.testing.assert_allclose(base.ppf([[0.75, 0.5]]), -base.ppf([[0.25, 0.5]]), atol=1e-15)
    assert np.isneginf(base.log_prob([[5.0, 0.0], [0.0, 6.0]])).all()
    assert np.isnan(base.log_prob([[np.nan, 0.0]])).all()
    drawn = base.sample(20000, rng=1)
    assert stats.kstest(drawn.ravel(), own.cdf).pvalue > 1e-3
    np.testing.assert_array_equal(base.sample(10, rng=1), drawn[:10])
    assert np.isnan(base.ppf([[1.5, 0.5]])[0, 0])
