"""The unit cube and back: what samplers ask of a flow."""

import numpy as np
import pytest
import scipy.stats
from query_cases import curved, gaussian
from registry import randomize

from npflows import MAF, NeuralSplineFlow, NormalizingFlow, RealNVP, Standardize, StudentT, Uniform, support
from npflows.inference.unit_cube import from_unit_cube, to_unit_cube


class TestUnitCube:
    FLOWS = {
        "normal": lambda dtype: gaussian(3, dtype)[0],
        "student_t": lambda dtype: curved(3, base_distribution=StudentT(3, [1.5, 3.0, 30.0], dtype=dtype), dtype=dtype),
        "uniform": lambda dtype: curved(3, base_distribution=Uniform(3, -1.0, [1.0, 2.0, 3.0], dtype=dtype), dtype=dtype),
        "splines": lambda dtype: randomize(NeuralSplineFlow(3, 2, (8,), 4, activation="tanh", dtype=dtype, rng=0)),
    }
    for_every_flow = pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS)

    @for_every_flow
    def test_there_and_back_is_where_it_was(self, make):
        flow = make("float64")
        x = flow.sample(200, 0)
        u = to_unit_cube(flow, x)
        assert u.shape == x.shape
        assert u.dtype == np.float64
        assert ((u > 0) & (u < 1)).all()
        np.testing.assert_allclose(from_unit_cube(flow, u), x, rtol=1e-9, atol=1e-9)
        random = np.random.default_rng(1).random((200, 3))
        np.testing.assert_allclose(to_unit_cube(flow, from_unit_cube(flow, random)), random, rtol=1e-9, atol=1e-12)

    @for_every_flow
    def test_its_volume_element_is_the_density(self, make):
        flow = make("float64")
        x, step = flow.sample(20, 3), 1e-5
        shifts = step * np.eye(3)
        ends = [to_unit_cube(flow, (x[:, None] + sign * shifts).reshape(-1, 3)).reshape(20, 3, 3) for sign in (1, -1)]
        log_det = np.linalg.slogdet((ends[0] - ends[1]) / (2 * step))[1]
        np.testing.assert_allclose(log_det, flow.log_prob(x), rtol=1e-4, atol=1e-4)

    def test_samples_are_uniform_and_the_uniform_becomes_samples(self):
        flow = curved(2)
        for u in to_unit_cube(flow, flow.sample(5000, 0)).T:
            assert scipy.stats.kstest(u, "uniform").pvalue > 1e-3
        x = from_unit_cube(flow, np.random.default_rng(1).random((5000, 2)))
        for ours, theirs in zip(x.T, flow.sample(5000, 2).T):
            assert scipy.stats.ks_2samp(ours, theirs).pvalue > 1e-3

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @for_every_flow
    def test_edges_of_the_cube_are_finite_points_with_density(self, make, dtype):
        flow = make(dtype)
        ends = [0.0, 1e-300, 1e-30, 1e-9, 0.5, 1 - 1e-9, 1 - 2**-53, 1.0]
        u = np.stack(np.meshgrid(ends, ends, ends), -1).reshape(-1, 3)
        x = from_unit_cube(flow, u)
        assert np.isfinite(x).all()
        assert np.isfinite(flow.log_prob(x)).all()
        if flow.base.support is None:
            alone = from_unit_cube(
                NormalizingFlow([Standardize(3, dtype=dtype)], flow.base, dtype=dtype), np.c_[ends, ends, ends]
            )
            assert (np.diff(alone, axis=0) >= 0).all()

    def test_one_row_comes_without_its_axis(self):
        flow = curved(2)
        u = np.array([0.2, 0.9])
        x = from_unit_cube(flow, u)
        assert x.shape == (2,)
        np.testing.assert_array_equal(x, from_unit_cube(flow, [u, u])[0])
        np.testing.assert_allclose(to_unit_cube(flow, x), u, rtol=1e-10)
        np.testing.assert_array_equal(u, [0.2, 0.9])
        assert from_unit_cube(flow, np.empty((0, 2))).shape == (0, 2)

    def test_conditions_and_shapes_of_samples_are_those_of_the_flow(self):
        flow = curved(2, condition_dim=1)
        condition = np.array([[0.5], [-1.0], [2.0]])
        x = flow.sample(3, 0, condition=condition)
        u = to_unit_cube(flow, x, condition)
        np.testing.assert_allclose(from_unit_cube(flow, u, condition), x, rtol=1e-9)
        np.testing.assert_allclose(from_unit_cube(flow, u[0], condition[0]), x[0], rtol=1e-9)
        assert np.isfinite(from_unit_cube(flow, [[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]], condition)).all()
        image = RealNVP((2, 2, 1), 2, (8,), dtype="float64", rng=0)
        u = to_unit_cube(image, image.sample(3, 0))
        assert u.shape == (3, 2, 2, 1)
        assert from_unit_cube(image, u.reshape(3, 4)).shape == (3, 2, 2, 1)
        assert from_unit_cube(image, u[0]).shape == (2, 2, 1)

    @pytest.mark.parametrize("bad", [-1e-9, 1 + 1e-9, np.nan])
    def test_outside_the_cube_is_refused(self, bad):
        with pytest.raises(ValueError, match="u must lie between 0 and 1, got"):
            from_unit_cube(curved(2), [[0.5, bad]])


def test_x_has_a_density_for_whole_numbers_under_a_uniform_base():
    columns = [support.integer(0, 9), support.real()]
    flow = NeuralSplineFlow(2, 2, (8,), base_distribution=Uniform(2, -3.0, 3.0), support=columns, rng=0)
    flow.params = np.random.default_rng(1).normal(0, 0.5, flow.num_params)
    u = np.random.default_rng(0).random((2000, 2))
    u[:100, 0], u[100:200, 1] = 0.0, 1.0
    x = flow.from_unit_cube(u)
    assert np.isfinite(x).all()
    assert np.isfinite(flow.log_prob(x)).all()


def test_x_is_finite_and_has_a_density_or_is_refused_where_scales_are_unbounded():
    flow = MAF(3, 3, (8,), scale_activation="none", rng=0)
    u, refused = np.random.default_rng(0).random((500, 3)), 0
    for size in (0.3, 0.5, 1.0, 3.0):
        flow.params = np.random.default_rng(2).normal(0, size, flow.num_params)
        try:
            x = flow.from_unit_cube(u)
        except ValueError:
            refused += 1
        else:
            assert np.isfinite(x).all()
            assert np.isfinite(flow.log_prob(x)).all()
    assert refused < 4


def test_a_flow_without_any_density_is_refused():
    flow = MAF(2, 2, (4,), rng=0)
    flow.parameters.theta[flow.parameters.free] = np.nan
    with pytest.raises(ValueError, match="no x of finite density for 3 of 3 rows of u, the center of its base included"):
        flow.from_unit_cube(np.full((3, 2), 0.5))
