"""The ratio of gamma functions of CUDA kernels beside Python's own, for all degrees of freedom of Student's t."""

import math

import numpy as np
import pytest

from npflows.backends.cuda.gamma import log_gamma_ratio


@pytest.mark.parametrize("v", [*np.geomspace(0.1, 1e3, 60), 19.999, 20.0, 20.001])
def test_log_gamma_ratio_is_that_of_the_standard_library(v):
    exact = math.lgamma(0.5 * (v + 1)) - math.lgamma(0.5 * v)
    assert abs(log_gamma_ratio(v) - exact) <= 2e-15 * max(1.0, abs(math.lgamma(0.5 * v)))


@pytest.mark.parametrize("v", np.geomspace(1e3, 1e6, 10))
def test_log_gamma_ratio_where_the_two_would_cancel(v):
    exact = 0.5 * math.log(0.5 * v) - 0.25 / v + 1 / (24 * v**3)
    assert abs(log_gamma_ratio(v) - exact) <= 2e-15 * exact
