"""What gradient-based samplers are told of densities that they can't walk on."""

import numpy as np
import pytest

import npflows
from npflows.hosts.bounded import check_unbounded
from npflows.support import positive, real


def test_only_densities_are_taken_and_bounds_are_a_matter_of_yes_or_no():
    flow = npflows.MAF(2, num_layers=1, hidden_dims=(8,), support=[positive(), real()], rng=0)
    density = npflows.embed(flow)
    check_unbounded(density, True)
    check_unbounded(density, np.True_)
    with pytest.raises(ValueError, match=r"column 0 \(positive\): the logarithm of x - lower"):
        check_unbounded(density, False)
    with pytest.raises(TypeError, match="bounded must be True or False, got 'no'"):
        check_unbounded(density, "no")
    with pytest.raises(TypeError, match=r"log_prob takes a density, npflows\.embed\(flow\), got MAF"):
        check_unbounded(flow, True)
