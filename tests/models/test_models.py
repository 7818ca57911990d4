"""Every flow does more than map samples: densities of anything, any number of threads and rows, parameters."""

import inspect
import itertools
import tracemalloc

import numpy as np
import pytest
from registry import (
    MODELS,
    both_dtypes,
    build,
    condition,
    data,
    flat,
    for_every_model,
    for_everything,
    fresh,
    latent,
    randomize,
)
from scipy.optimize import minimize

import npflows
from npflows import MAF, RealNVP
from npflows.backends.cpu.program import CHUNK
from npflows.flow import NormalizingFlow


@for_every_model
def test_calling_a_flow_gives_its_parts(name):
    flow = build(name)
    x, context = data(flow, 17), condition(flow, 17)
    outputs = flow(x, context)
    z, log_det = flow.forward(x, context)
    assert sorted(outputs) == ["log_prob", "log_prob_x", "logdet", "z"]
    np.testing.assert_array_equal(outputs["z"], z)
    np.testing.assert_array_equal(outputs["logdet"], log_det)
    np.testing.assert_allclose(outputs["log_prob"], flow.base_under(context).log_prob(flat(z)), rtol=1e-14)
    np.testing.assert_allclose(outputs["log_prob_x"], flow.log_prob(x, context), rtol=1e-13)
    loss = flow.loss_fn(x, outputs)
    assert sorted(loss) == ["avg_log_prob", "log_prob", "loss", "nll_loss"]
    np.testing.assert_array_equal(loss["log_prob"], outputs["log_prob_x"])
    assert loss["loss"] == loss["nll_loss"] == -loss["avg_log_prob"] == -outputs["log_prob_x"].mean()
    bits = -flow.log_prob(x, context).mean() / np.log(2) / flow.input_dim
    assert flow.bits_per_dim(x, context) == pytest.approx(bits, rel=1e-14)


def test_loss_of_another_batch_is_refused():
    flow = MAF(2, 1, (8,))
    with pytest.raises(ValueError, match="outputs are of 3 samples, the batch has 4"):
        flow.loss_fn(np.zeros((4, 2)), flow(np.zeros((3, 2))))


@for_every_model
def test_samples_have_the_shape_of_data(name):
    flow = build(name, "float32")
    for n in (0, 1, 17):
        samples = flow.sample(n, 0, condition=condition(flow, n))
        assert samples.shape == (n, *flow.input_shape)
        assert samples.dtype == np.float64
        assert flow.log_prob(samples, condition(flow, n)).shape == (n,)
        assert flow.log_prob_and_grad(samples, condition(flow, n))[1].shape == samples.shape
        drawn = flow.sample_and_log_prob(n, 0, condition=condition(flow, n))
        np.testing.assert_array_equal(drawn.x, samples)
        assert drawn.log_prob.shape == (n,)


@for_every_model
def test_one_row_gives_a_number(name):
    flow = build(name)
    x, context = data(flow, 1), condition(flow, 1)
    one = None if context is None else context[0]
    log_prob, gradient = flow.log_prob_and_grad(x, context)
    assert np.ndim(flow.log_prob(x[0], one)) == 0
    assert flow.log_prob(x[0], one) == flow.log_prob(x, context)[0] == log_prob[0]
    one_log_prob, one_gradient = flow.log_prob_and_grad(x[0], one)
    assert one_log_prob == log_prob[0]
    np.testing.assert_array_equal(one_gradient, gradient[0])
    assert np.ndim(flow(x[0], one)["log_prob_x"]) == 0


@for_every_model
@both_dtypes
def test_a_row_alone_gets_the_bits_of_the_same_row_among_others(name, dtype):
    """It goes through blocks of one lane."""
    flow = build(name, dtype)
    x, context = data(flow, 20), condition(flow, 20)
    z, log_det = flow.forward(x, context)
    back, log_prob = flow.inverse(z, context)[0], flow.log_prob(x, context)
    for i in range(20):
        one = None if context is None else context[i]
        np.testing.assert_array_equal(flow.forward(x[i], one)[0], z[i])
        np.testing.assert_array_equal(flow.forward(x[i], one)[1], log_det[i])
        np.testing.assert_array_equal(flow.inverse(z[i], one)[0], back[i])
        np.testing.assert_array_equal(flow.log_prob(x[i], one), log_prob[i])


@for_every_model
@both_dtypes
def test_gradients_of_a_row_alone_have_the_bits_of_the_same_row_among_others(name, dtype):
    flow = build(name, dtype)
    x, context = data(flow, 20), condition(flow, 20)
    rng = np.random.default_rng(3)
    dy, dlog = rng.normal(size=x.shape), rng.normal(size=20)
    for kind in (flow.pullback, lambda *args, **options: flow.pullback(*args, inverse=True, **options)):
        for with_base in (False,) if kind is not flow.pullback else (False, True):
            given = {"input": True, "gradient": False, "with_base": with_base}
            every = kind(x, context, dlog=dlog, dy=None if with_base else dy, **given)
            for i in (0, 13):
                row, one = slice(i, i + 1), None if context is None else context[i : i + 1]
                alone = kind(x[row], one, dlog=dlog[row], dy=None if with_base else dy[row], **given)
                np.testing.assert_array_equal(alone.dx[0], every.dx[i])
                np.testing.assert_array_equal(alone.dcondition[:1], every.dcondition[row])


@for_every_model
def test_seed_decides_the_samples(name):
    flow = build(name, "float32")
    context = condition(flow, 50)
    first = flow.sample(50, 7, condition=context)
    np.testing.assert_array_equal(flow.generate(50, 7, condition=context), first)
    np.testing.assert_array_equal(flow.sample(50, np.random.default_rng(7), condition=context), first)
    assert not np.array_equal(flow.sample(50, 8, condition=context), first)
    assert not np.array_equal(flow.sample(50, condition=context), flow.sample(50, condition=context))


EXTREME = [1e30, -1e30, np.inf, -np.inf, 1e300, 3e38, 1e-300, 1e15]


def spoil(x):
    """A copy of x (40, d) whose first 30 rows have extreme values, and the next two NaN."""
    x, rng = x.copy(), np.random.default_rng(0)
    x[:8] = np.array(EXTREME)[:, None]
    x[8:16, 0] = EXTREME
    x[16:24, -1] = EXTREME
    x[24:30] = rng.choice(EXTREME, (6, x.shape[1]))
    x[30, rng.integers(x.shape[1])] = np.nan
    x[31] = np.nan
    return x


@both_dtypes
@for_every_model
def test_log_prob_of_extreme_rows_is_finite_or_minus_infinity(name, dtype):
    flow = build(name, dtype)
    x, context = data(flow, 40), condition(flow, 40)
    log_prob = flow.log_prob(spoil(x), context)
    assert np.isnan(log_prob[30:32]).all()
    assert not np.isnan(log_prob[:30]).any()
    assert (log_prob[:30] < np.inf).all()
    assert (log_prob[[2, 3]] == -np.inf).all()
    np.testing.assert_array_equal(log_prob[32:], flow.log_prob(x, context)[32:])


@both_dtypes
@for_every_model
def test_sampler_meets_no_nan_gradient(name, dtype):
    flow = build(name, dtype)
    x, context = data(flow, 40), condition(flow, 40)
    log_prob, gradient = flow.log_prob_and_grad(spoil(x), context)
    np.testing.assert_array_equal(log_prob, flow.log_prob(spoil(x), context))
    np.testing.assert_array_equal(gradient[32:], flow.log_prob_and_grad(x, context)[1][32:])
    assert not np.isnan(gradient[:30]).any()
    assert not flat(gradient[:30])[log_prob[:30] == -np.inf].any()


@for_every_model
def test_same_bits_for_any_number_of_threads(name):
    flow, n = build(name, "float32"), 3001
    x, context = data(flow, n), condition(flow, n)
    a = np.random.default_rng(0).normal(size=(n, flow.input_dim))
    results = []
    for threads in (1, 2, 5):
        npflows.set_num_threads(threads)
        results.append([
            flow.log_prob(x, context),
            flow.sample(n, 3, condition=context),
            *flow.nll_and_grad(x, condition=context),
            *flow.log_prob_and_grad(x, context),
            *flow.forward_vjp(x, a, 1.0, context)[:2],
            *flow.inverse_vjp(latent(flow, n), a, 1.0, context)[:2],
        ])  # fmt: skip
    for other in results[1:]:
        for actual, expected in zip(other, results[0]):
            np.testing.assert_array_equal(actual, expected)


@for_every_model
def test_weight_of_two_counts_like_the_row_twice(name):
    flow = build(name)
    x, context = data(flow, 10), condition(flow, 10)
    often = np.repeat(np.arange(10), [2, 0, 1, 3, 1, 1, 0, 1, 1, 1])
    weighted = flow.nll_and_grad(x, 5.0 * np.bincount(often, minlength=10), context)
    repeated = flow.nll_and_grad(x[often], condition=None if context is None else context[often])
    assert weighted[0] == pytest.approx(repeated[0], rel=1e-13)
    np.testing.assert_allclose(weighted[1], repeated[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in MODELS if fresh(name).num_params and fresh(name).base.support is None])
def test_scipy_can_train_it(name):
    flow, other = fresh(name), build(name)
    x, context = data(other, 200), condition(other, 200)

    def nll(params):
        flow.params = params
        return flow.nll_and_grad(x, condition=context)

    before = nll(flow.params)[0]
    result = minimize(nll, flow.params, jac=True, method="L-BFGS-B", options={"maxiter": 5})
    assert result.fun < before - 0.01


TINY = {
    "float32": lambda: RealNVP(2, 2, (4,), condition_dim=1, dtype="float32", rng=0),
    "float64": lambda: MAF(2, 1, (4,), condition_dim=1, dtype="float64", rng=0),
}


@pytest.mark.parametrize("dtype", TINY)
def test_more_rows_than_fit_in_a_chunk_give_what_the_pieces_give(dtype):
    flow, n = randomize(TINY[dtype]()), CHUNK + 1234
    x, context = data(flow, n), condition(flow, n)
    rows = [slice(0, 1000), slice(1000, CHUNK + 400), slice(CHUNK + 400, n)]

    def assert_pieces_agree(method, *inputs):
        each = [method(*(v[part] for v in inputs), condition=context[part]) for part in rows]
        for result, pieces in zip(method(*inputs, condition=context), zip(*each)):
            expected = sum(pieces) if np.shape(result) == (flow.num_params,) else np.concatenate(pieces)
            tolerance = {"float32": 1e-5, "float64": 1e-12}[dtype] * np.abs(expected).max()
            np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance)

    assert_pieces_agree(flow.forward, x)
    assert_pieces_agree(flow.inverse, x)
    assert_pieces_agree(flow.log_prob_and_grad, x)
    assert_pieces_agree(flow.forward_vjp, x, np.cos(x), np.sin(x[:, 0]))
    assert_pieces_agree(flow.inverse_vjp, x, np.cos(x), np.sin(x[:, 0]))
    np.testing.assert_array_equal(flow.log_prob(x, context), flow.log_prob_and_grad(x, context)[0])
    nll, gradient = flow.nll_and_grad(x, condition=context)
    assert nll == pytest.approx(-flow.log_prob(x, context).mean(), rel=1e-12)
    expected = flow.forward_vjp(x, -flow.forward(x, context)[0], 1.0, context).params / -n
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    z = flow.base.sample(n, 5)
    np.testing.assert_array_equal(flow.sample(n, 5, condition=context), flow.inverse(z, context)[0])


def test_memory_mapped_table_is_never_copied_whole(tmp_path):
    flow, rows = MAF(6, 1, (8,), rng=0), 1_000_000
    table = np.memmap(tmp_path / "table", np.float32, "w+", shape=(rows, 6))
    table[:] = np.random.default_rng(0).normal(size=table.shape)
    table.flush()
    table = np.memmap(tmp_path / "table", np.float32, "r", shape=(rows, 6))
    flow.log_prob(table[:10])
    tracemalloc.start()
    try:
        log_prob = flow.log_prob(table)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < log_prob.nbytes + 20e6 < table.size * 8 / 1.5  # bytes; some chunks of 3 MB wait for their threads
    np.testing.assert_array_equal(log_prob[-100:], flow.log_prob(table[-CHUNK - 100 :])[-100:])


@both_dtypes
@for_everything
def test_params_are_read_as_a_copy_and_checked_when_set(name, dtype):
    obj = fresh(name, dtype)
    views, before = obj.named_params(), {key: value.copy() for key, value in obj.named_params().items()}
    mine = obj.params
    mine[:] = 7
    assert not (obj.params == 7).any()
    assert mine.shape == (obj.num_params,)
    values = 10 + np.arange(obj.num_params) / 8.0
    obj.params = values.tolist()
    np.testing.assert_array_equal(obj.params, values)
    moved = np.concatenate([np.zeros(0), *(value[value != before[key]] for key, value in views.items())])
    np.testing.assert_array_equal(moved, values)  # in the order of named_params; all else stayed as it was
    for key, value in views.items():
        assert not value.flags.writeable
        assert "weight" not in key or not (value[value == before[key]]).any()
    bad = [np.zeros(obj.num_params + 1), np.zeros((1, obj.num_params)), 0.0]
    bad += [np.full(obj.num_params, value) for value in (np.nan, np.inf, 1e300)[: 3 if dtype == "float32" else 2]]
    for wrong in bad[: None if obj.num_params else 3]:
        with pytest.raises(ValueError, match="params of"):
            obj.params = wrong
    np.testing.assert_array_equal(obj.params, values)


@for_everything
def test_masked_weights_get_no_gradient_and_stay_zero(name):
    obj = build(name, "float32")
    free = sum(np.count_nonzero(value) for key, value in obj.named_params().items() if not key.startswith("base."))
    own = obj.num_params - (obj.base.num_params if isinstance(obj, NormalizingFlow) else 0)
    assert free == own
    x = data(obj, 50)
    obj.params = obj.params - 0.1 * obj.forward_vjp(x, x, 1.0, condition(obj, 50)).params
    assert own == sum(np.count_nonzero(v) for key, v in obj.named_params().items() if not key.startswith("base."))


@for_everything
def test_repr_says_what_it_is(name):
    obj = build(name, "float32")
    text = repr(obj)
    assert text.startswith(type(obj).__name__ + "(")
    if isinstance(obj, NormalizingFlow):
        assert f"{obj.num_params} parameters" in text
        assert type(obj.base).__name__ in text
        for layer in obj.flow_layers:
            assert type(layer).__name__ in text
    assert len(text) < 300 * (1 + text.count("\n"))


def test_layers_of_a_flow_are_its_own():
    layer = npflows.MAFLayer(3, (8,), rng=0)
    flow = NormalizingFlow([layer, layer])
    flow.params = np.ones(flow.num_params)
    assert not (layer.params == 1).all()
    np.testing.assert_array_equal(flow.flow_layers[1].params, np.ones(layer.num_params))
    flow.flow_layers[2].params = np.full(layer.num_params, 2.0)
    np.testing.assert_array_equal(flow.params, np.repeat([1.0, 2.0], layer.num_params))


@pytest.mark.parametrize("mask_type", ["checkerboard", "channel-wise", "half"])
@pytest.mark.parametrize("input_dim", [2, 5, (4, 4, 2), (3, 2, 3)])
def test_masks_complement_on_every_other_layer(input_dim, mask_type):
    flow = RealNVP(input_dim, 4, (4,), mask_type)
    masks = [layer.mask for layer in flow.flow_layers[1:-1]]
    for first, second in itertools.pairwise(masks):
        np.testing.assert_array_equal(first + second, 1)
    mask = masks[0].reshape(flow.input_shape)
    if mask_type == "checkerboard":
        index = np.indices(flow.input_shape)
        expected = (index[0] if mask.ndim == 1 else index[0] + index[1]) % 2 == 0
    elif mask_type == "channel-wise" and mask.ndim == 3:
        expected = np.broadcast_to(np.arange(mask.shape[2]) < mask.shape[2] // 2, mask.shape)
    else:
        expected = (np.arange(mask.size) < mask.size // 2).reshape(mask.shape)
    np.testing.assert_array_equal(mask, expected)


def test_nan_in_the_condition_is_nan_in_log_prob():
    flow = MAF(2, 1, (4,), condition_dim=1, rng=0)
    flow.params = flow.params + 0.1
    log_prob = flow.log_prob(np.zeros((3, 2)), [[0.0], [np.nan], [1.0]])
    np.testing.assert_array_equal(np.isnan(log_prob), [False, True, False])


def test_calling_a_flow_gives_the_density_that_log_prob_gives():
    flow, x = build("RealNVP"), np.random.default_rng(0).normal(size=(4, 5))
    x[1, 2], x[2, 0] = np.inf, 1e300
    np.testing.assert_array_equal(flow(x)["log_prob_x"], flow.log_prob(x))


def test_names_of_columns_are_strings_and_as_many_as_values():
    flow = MAF(2, 1, (4,), rng=0)
    flow.columns = np.array(["a", "b"])
    assert flow.columns == ["a", "b"]
    with pytest.raises(ValueError, match="columns must be 2 names"):
        flow.columns = ["a"]
    assert flow.columns == ["a", "b"]


def test_fit_shows_its_options():
    options = inspect.signature(MAF(2, rng=0).fit).parameters
    assert {"sample_weight", "validation_fraction", "max_epochs", "learning_rate", "checkpoint", "rng"} <= set(options)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_a_reversal_does_not_undo_the_alternation_of_the_masks(n):
    flow, seen = npflows.NeuralSplineFlow(n, 2, (8,), linear="reverse", affine_ends=False, rng=0), np.zeros(n, bool)
    columns = np.arange(n)
    for layer in flow.flow_layers[1:-1]:
        if isinstance(layer, npflows.Permutation):
            columns = columns[layer.order]
        else:
            seen[columns[layer.mask == 0]] = True
    assert seen.all()
