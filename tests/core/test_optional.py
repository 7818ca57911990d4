"""Functions that need SciPy say so in a sentence where SciPy is missing."""

import re
import sys

import numpy as np
import pytest

from npflows import MAF, diagnostics
from npflows.core.optional import scipy
from npflows.demo import demo
from npflows.plotting import uniformity

TABLE = np.random.default_rng(0).normal(size=(60, 2))
INCOMPLETE = np.where(np.arange(120).reshape(60, 2) % 7, TABLE, np.nan)
WITHOUT = {
    "flow.mode": lambda flow: flow.mode(),
    "a marginal or conditional density": lambda flow: flow.marginal(0),
    'on_missing="impute"': lambda flow: flow.fit(INCOMPLETE, missing="nan", on_missing="impute", progress=False),
    "the cumulative distribution of Normal": lambda flow: flow.to_unit_cube(TABLE),
    "a Kolmogorov-Smirnov test": lambda flow: diagnostics.latent.ks_uniform(TABLE[:, 0]),
    "diagnostics.coverage": lambda flow: diagnostics.coverage(flow, TABLE),
    "diagnostics.memorization": lambda flow: diagnostics.memorization(flow, TABLE, TABLE),
    "diagnostics.sbc_ranks": lambda flow: diagnostics.sbc_ranks(flow, TABLE),
    "diagnostics.tarp_coverage": lambda flow: diagnostics.tarp_coverage(flow, TABLE),
    "plotting.latent": lambda flow: uniformity._content(TABLE),
    "the expected band of a picture": lambda flow: uniformity._binomial(10, TABLE),
    "npflows demo": lambda flow: demo(quick=True),
}


@pytest.mark.parametrize("purpose", WITHOUT)
@pytest.mark.filterwarnings("ignore:x. .* entries are missing")
def test_what_needs_scipy_says_so(purpose, monkeypatch):
    flow = MAF(2, 1, (4,), rng=0)
    before = flow.params
    for module in ("optimize", "spatial", "special", "stats"):
        monkeypatch.setitem(sys.modules, f"scipy.{module}", None)
    with pytest.raises(ImportError, match=f"^{re.escape(purpose)} needs SciPy: pip install scipy$"):
        WITHOUT[purpose](flow)
    np.testing.assert_array_equal(flow.params, before)


def test_a_module_that_is_there():
    assert scipy("special", "this test").ndtr(0.0) == 0.5
