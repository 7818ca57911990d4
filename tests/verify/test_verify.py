"""The certificate passes exact flows, fails each kind of inexact one, and says what it could not find out."""

import json
import math

import numpy as np
import pytest
from registry import build, condition, data

import npflows
from npflows import IAF, MAF, CouplingLayer, Glow, LULinear, MAFLayer, NormalizingFlow, Permutation, support
from npflows.distribution import cost
from npflows.verify import Check, VerificationReport, checks, verify

MODELS = ["RealNVP", "RealNVP, uniform", "MAF", "MAF, uniform, condition", "IAF, one order, condition", "NSF",
          "NSF, two features", "NSF, one feature, condition", "NSF, autoregressive", "MAF, ActNorm, condition",
          "flow of layers", "flow of Standardize alone", "NSF, circles", "NSF, a circle", "MAF, half-lines and intervals",
          "conditional flow of layers", "flow on a conditional mixture"]  # fmt: skip


JACOBIAN, INTEGRAL = "log-det = that of the Jacobian", "integral of the density"
THERE, BACK, CANCEL = "inverse(forward(x)) = x", "forward(inverse(z)) = z", "log-dets of both ways cancel"
PARTS, DRAWN, COPY = "log_prob = base + log-det", "log_prob of what was drawn", "float32 = float64 copy"


def failures(report):
    return {check.name for check in report.checks if check.verdict == "FAIL"}


@pytest.fixture
def flow():
    return build("MAF, two features")


@pytest.fixture
def x(flow):
    return data(flow, 300)


def shift_log_det(flow, monkeypatch, by):
    """A density that is off by a factor, in all that the flow says about it."""

    def shifted(function, by):
        def call(*arguments, **options):
            values, log_values = function(*arguments, **options)
            return values, log_values + by

        return call

    log_prob = flow.log_prob
    monkeypatch.setattr(flow, "log_prob", lambda *a: log_prob(*a) + by)
    for name, sign in (("forward", 1), ("inverse", -1), ("sample_and_log_prob", 1)):
        monkeypatch.setattr(flow, name, shifted(getattr(flow, name), sign * by))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_exact_flows_pass(name, dtype):
    flow = build(name, dtype)
    report = verify(flow, data(flow, 200), condition(flow, 200), rng=0)
    assert report.passed, str(report)
    verdicts = {check.name: check.verdict for check in report.checks}
    for wanted in (THERE, BACK, CANCEL, PARTS, DRAWN, JACOBIAN, INTEGRAL):
        assert verdicts[wanted] == "pass", str(report)
    assert (COPY in verdicts) == (dtype == "float32")


def test_images_pass():
    flow = build("RealNVP, image, channel-wise", "float32")
    report = verify(flow, data(flow, 50).reshape(50, *flow.input_shape), rng=0)
    assert report.passed, str(report)


def test_float64_finds_the_errors_of_float64(flow, x):
    report = verify(flow, x, rng=0)
    assert max(report[name].value for name in (THERE, BACK, CANCEL, PARTS, DRAWN)) < 1e-11
    assert report[JACOBIAN].value < 1e-6
    assert report[INTEGRAL].value < 1e-7


def test_same_seed_gives_the_same_report(flow, x):
    assert verify(flow, x, rng=3) == verify(flow, x, rng=3)


@pytest.mark.parametrize("scale", [1e-6, 1e-11])
def test_map_that_is_not_undone_fails(flow, x, scale, monkeypatch):
    inverse = flow.inverse
    monkeypatch.setattr(flow, "inverse", lambda *a: (inverse(*a)[0] + scale, inverse(*a)[1]))
    found = failures(verify(flow, x, rng=0))
    assert ({THERE, BACK} <= found) == (scale > 1e-8)


def test_log_dets_that_do_not_cancel_fail(flow, x, monkeypatch):
    inverse = flow.inverse
    monkeypatch.setattr(flow, "inverse", lambda *a: (inverse(*a)[0], inverse(*a)[1] * (1 + 1e-5)))
    assert CANCEL in failures(verify(flow, x, rng=0))


def test_consistently_wrong_log_det_is_found_by_jacobian_and_integral_alone(flow, x, monkeypatch):
    shift_log_det(flow, monkeypatch, 1e-3)
    report = verify(flow, x, rng=0)
    assert failures(report) == {JACOBIAN, INTEGRAL}
    assert report[JACOBIAN].value == pytest.approx(1e-3, rel=1e-3)
    assert report[INTEGRAL].value == pytest.approx(math.expm1(1e-3), rel=1e-3)


def test_wrong_normalization_of_many_columns_is_found(monkeypatch):
    flow = build("MAF")
    rows = data(flow, 100)
    shift_log_det(flow, monkeypatch, 0.1)
    assert INTEGRAL in failures(verify(flow, rows, rng=0))


def test_density_that_is_wrong_only_under_a_condition_is_found(monkeypatch):
    flow, n = build("NSF, one feature, condition"), 100
    rows, given = data(flow, n), condition(flow, n)
    given[:] = given[0]
    given[: n // 2, 0] = 2.0
    log_prob = flow.log_prob
    monkeypatch.setattr(flow, "log_prob", lambda x, c: log_prob(x, c) + 0.01 * (np.atleast_2d(c)[:, 0] == 2.0))
    report = verify(flow, rows, given, rng=0)
    assert INTEGRAL in failures(report)
    assert "worst of 2 conditions" in report[INTEGRAL].note


def test_log_prob_that_is_not_base_plus_log_det_fails(flow, x, monkeypatch):
    log_prob = flow.log_prob
    monkeypatch.setattr(flow, "log_prob", lambda *a: log_prob(*a) + 1e-6)
    assert {PARTS, DRAWN} <= failures(verify(flow, x, rng=0))


def test_sampler_with_another_density_fails(flow, x, monkeypatch):
    draw = flow.sample_and_log_prob

    def tempered(n, rng, condition=None):
        return draw(n, rng, 0.9, condition=condition)

    monkeypatch.setattr(flow, "sample_and_log_prob", tempered)
    assert failures(verify(flow, x, rng=0)) == {DRAWN}


def test_float32_flow_that_differs_from_its_float64_copy_fails(monkeypatch):
    flow = build("MAF", "float32")
    rows = data(flow, 100)
    assert verify(flow, rows, rng=0)[COPY].value < 1e-4
    shift_log_det(flow, monkeypatch, 0.02)  # too little for the integral, and the copy knows nothing of it
    assert failures(verify(flow, rows, rng=0)) == {COPY}


def test_flow_without_a_float64_copy_is_differentiated_in_float32(monkeypatch):
    flow = build("MAF", "float32")
    monkeypatch.setattr(checks, "float64_copy", lambda flow: (None, "no float64 copy (it is mine)"))
    report = verify(flow, data(flow, 100), rng=0)
    assert report.passed, str(report)
    assert COPY not in {check.name for check in report.checks}
    assert "in float32, so rough: no float64 copy (it is mine)" in report[JACOBIAN].note


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layer", [MAFLayer, CouplingLayer])
@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_dependence_that_a_layer_must_not_have_is_found(layer, dtype, way, monkeypatch):
    options = {"dtype": dtype, "rng": 0}
    first = MAFLayer(3, (8,), [2, 0, 1], **options) if layer is MAFLayer else CouplingLayer([1, 0, 1], (8,), **options)
    flow = NormalizingFlow([first, LULinear(3, **options), Permutation(3, **options)], dtype=dtype)
    rng = np.random.default_rng(1)
    flow.params = 0.3 * rng.normal(size=flow.num_params)
    rows, name = flow.sample(50, 1), f"dependence: 1 {layer.__name__}"
    report = verify(flow, rows, rng=0)
    assert report[name].value == 0
    assert report["dependence: 1 Permutation"].note.startswith("3 of 3 allowed dependences seen")
    assert report["dependence: 1 LULinear"].verdict == "not checked"
    part = flow.flow_layers[1]
    forward = getattr(part, way)

    def leaking(x, c=None):
        y, log_det = forward(x, c)
        y[:, 2] += 1e-3 * np.sin(x[:, 1])  # the first in the order, and unchanged by the mask
        return y, log_det

    monkeypatch.setattr(part, way, leaking)
    report = verify(flow, rows, rng=0)
    assert failures(report) == {name}
    assert "layer 1 of the flow" in report[name].note


def test_masked_weight_that_is_not_zero_is_found():
    flow = IAF(3, 2, (8,), dtype="float64", rng=0)
    flow.params = 0.3 * np.random.default_rng(1).normal(size=flow.num_params)
    rows = flow.sample(100, 1)
    assert verify(flow, rows, rng=0).passed
    part = flow.flow_layers[2]
    part.parameters.theta[~part.parameters.free] = 0.2
    found = failures(verify(flow, rows, rng=0))
    assert {"dependence: 2 IAFLayer", THERE, BACK} <= found


def test_promised_dependences_that_are_not_there_are_counted():
    flow = MAF(3, 1, (8,), dtype="float64", rng=0)  # starts as the identity
    assert verify(flow, flow.sample(50, 1), rng=0)["dependence: 1 MAFLayer"].note.startswith("3 of 6 allowed")


def test_nan_is_counted_and_fails(flow, x):
    flow.parameters.theta[flow.parameters.free] = np.nan
    report = verify(flow, x, rng=0)
    assert not report.passed
    assert report["rows that are not finite"].value == 600
    assert "300 of forward, 300 of inverse; 300 rows of x have density 0" in report["rows that are not finite"].note
    assert report[JACOBIAN].verdict == "not checked"
    assert report[INTEGRAL].verdict == "inconclusive"
    assert VerificationReport.from_dict(json.loads(json.dumps(report.to_dict()))).to_dict() == report.to_dict()


def test_rows_with_density_zero_are_counted_and_are_no_failure():
    flow = MAF(2, 1, (4,), base_distribution="uniform", dtype="float64")
    rows = flow.sample(100, 0)
    rows[:7] += 5
    report = verify(flow, rows, rng=0)
    assert report.passed, str(report)
    assert "7 rows of x have density 0" in report["rows that are not finite"].note
    everything_outside = verify(flow, rows + 9, rng=0)
    assert not everything_outside.passed
    assert everything_outside["rows that are not finite"].value == 100
    assert everything_outside[JACOBIAN].verdict == everything_outside[THERE].verdict == "not checked"


def test_a_conditional_flow_none_of_whose_rows_has_a_density_fails():
    flow = MAF(2, 1, (4,), base_distribution="uniform", condition_dim=1, rng=0)
    conditions = np.arange(60.0)[:, None] % 4
    report = verify(flow, np.full((60, 2), 99.0), conditions, rng=0)
    assert not report.passed
    assert report["rows that are not finite"].value == 60
    assert "worst of 3 conditions" in report[INTEGRAL].note


def test_rows_with_nan_are_left_out(flow, x):
    spoilt = np.concatenate([x, [[np.nan, 0.0], [np.inf, 0.0]]])
    assert verify(flow, spoilt, rng=0).flow.endswith("on 300 rows")
    with pytest.raises(ValueError, match="at least one row with no NaN or infinity, got 2 rows"):
        verify(flow, spoilt[-2:])
    with pytest.raises(ValueError, match="x must have shape"):
        verify(flow, np.zeros((5, 3)))
    with pytest.raises(ValueError, match="needs a condition"):
        verify(build("RealNVP, condition"), np.zeros((5, 3)))


def test_conditions_that_are_not_finite_are_named():
    flow = build("RealNVP, condition")
    with pytest.raises(ValueError, match="x must have at least one row with a finite condition, got 5 rows"):
        verify(flow, data(flow, 5), np.full((5, flow.condition_dim), np.nan), rng=0)


@pytest.mark.parametrize("column", [support.integer(0, 3), support.interval(-1, 3), support.positive()])
def test_a_density_that_ends_with_a_jump_passes(column):
    flow = MAF(2, 1, (4,), support=[column, support.real()], base_distribution="uniform", rng=0)
    report = verify(flow, flow.sample(200, 0), rng=0)
    assert report.passed, str(report)


@pytest.mark.parametrize("rows", [1, 2])
def test_few_rows_and_constant_columns_are_enough(flow, x, rows):
    assert verify(flow, np.repeat(x[:1], rows, axis=0), rng=0).passed


def test_no_more_rows_are_used_than_asked_for(flow, x):
    assert verify(flow, x, rng=0, max_rows=50).flow.endswith("on 50 rows")


def test_offset_that_eats_the_digits_of_x_is_no_error_of_the_flow():
    flow = build("MAF, two features")
    flow.standardize.set([1.7e9, 58000.0], [0.1, 0.003])  # the numbers themselves have 2e-7 and 7e-12
    report = verify(flow, flow.sample(200, 0), rng=0)
    assert report.passed, str(report)


@pytest.fixture
def counts():
    """A flow of whole numbers, a real column and one above 0, and rows of it."""
    columns = [support.integer(0, 5), support.real(), support.positive()]
    flow = MAF(3, 2, (8,), support=columns, dtype="float64", rng=0)
    flow.params = flow.params + 0.2 * np.random.default_rng(0).normal(size=flow.num_params)
    return flow, flow.sample(200, 0)


def test_whole_numbers_are_verified_as_intervals(counts):
    flow, rows = counts
    rows[:3, 0] = [9.0, 0.5, -1.0]
    report = verify(flow, rows, rng=0)
    assert report.passed, str(report)
    assert report["masses of whole numbers"].note.endswith("3 rows outside")
    assert {report[name].verdict for name in (THERE, BACK, JACOBIAN, INTEGRAL)} == {"pass"}
    assert report.flow.endswith("on 200 rows")
    assert report.matches(flow)


def test_wrong_masses_of_whole_numbers_are_found(counts, monkeypatch):
    flow, rows = counts
    log_prob = flow.log_prob
    monkeypatch.setattr(flow, "log_prob", lambda *a, **o: log_prob(*a, **o) + 0.3)
    assert failures(verify(flow, rows, rng=0)) == {"masses of whole numbers"}


@pytest.mark.parametrize("first", [support.integer(0, 3), support.positive()])
@pytest.mark.parametrize("condition_dim", [0, 1])
def test_a_flow_none_of_whose_rows_lies_in_its_support_fails(first, condition_dim):
    flow = MAF(2, 1, (4,), support=[first, support.real()], condition_dim=condition_dim, rng=0)
    rows, given = np.full((60, 2), -7.0), np.zeros((60, 1)) if condition_dim else None
    report = verify(flow, rows, given, rng=0)
    assert failures(report) == {"rows that are not finite"}
    assert report["rows that are not finite"].value == 60
    assert "60 rows of x have density 0; none has a density above 0" in report["rows that are not finite"].note
    for name in (THERE, PARTS, COPY, JACOBIAN, *(["masses of whole numbers"] if first.is_integer else [])):
        assert report[name].verdict == "not checked", str(report)
    assert report[BACK].value > 0  # of samples, which need no rows
    assert report[BACK].verdict == report[DRAWN].verdict == "pass"


def test_pixels_none_of_which_has_a_density_fail():
    flow = Glow((2, 2, 1), 1, 1, (4,), levels=4, rng=0)
    report = verify(flow, np.full((20, 2, 2, 1), 9), rng=0)
    assert failures(report) == {"rows that are not finite"}
    assert report["rows that are not finite"].value == 20
    assert verify(flow, np.full((20, 2, 2, 1), 3), rng=0).passed


def test_a_check_that_no_sample_reaches_is_not_passed(flow, x, monkeypatch):
    inverse = flow.inverse
    monkeypatch.setattr(flow, "inverse", lambda *a: (inverse(*a)[0] + np.nan, inverse(*a)[1]))
    report = verify(flow, x, rng=0)
    assert report[BACK].verdict == "not checked"
    assert not report.passed


def test_samples_that_come_without_a_finite_density_fail(flow, x, monkeypatch):
    draw = flow.sample_and_log_prob

    def half(n, rng, condition=None):
        values, log_prob = draw(n, rng, condition=condition)
        log_prob[::2] = np.nan
        return values, log_prob

    monkeypatch.setattr(flow, "sample_and_log_prob", half)
    report = verify(flow, x, rng=0)
    assert failures(report) == {DRAWN}
    assert report[DRAWN].note.endswith("150 came without a finite one")


def test_rows_outside_the_support_have_density_zero():
    flow = build("MAF, half-lines and intervals")
    rows = data(flow, 50)
    rows[:4, 0] = -3
    report = verify(flow, rows, rng=0)
    assert report.passed, str(report)
    assert "4 rows of x have density 0" in report["rows that are not finite"].note


def test_values_next_to_the_ends_of_an_interval_are_no_error_of_the_flow():
    flow = MAF(2, 1, (4,), support=[support.interval(0, 1), support.interval(-3, 7)], dtype="float64", rng=0)
    flow.standardize.set(0.0, 9.0)  # samples come as near to the ends as float64 goes
    rows = flow.sample(500, 0)
    assert (1 - rows[:, 0]).min() < 1e-8
    report = verify(flow, rows, rng=0)
    assert report.passed, str(report)


def test_a_slow_flow_is_announced(flow, x, monkeypatch):
    monkeypatch.setattr(cost, "SLOW", 0.0)
    with pytest.warns(UserWarning, match="^verify will take about .* s$"):
        assert verify(flow, x, rng=0).passed


def test_report_is_a_table_that_comes_back_from_json(flow, x):
    report = verify(flow, x, rng=0)
    again = VerificationReport.from_dict(json.loads(json.dumps(report.to_dict())))
    assert again == report
    lines = str(report).splitlines()
    assert "MAF: 2 columns" in lines[0]
    assert report.fingerprint in lines[1]
    start = lines[3].index("verdict")
    assert all(line[start:].startswith(("pass", "verdict")) for line in lines[3:-2])
    assert max(map(len, lines)) < 130
    assert lines[-1] == f"{len(report.checks)} passed"
    with pytest.raises(ValueError, match="no verification report"):
        VerificationReport.from_dict({"flow": "x"})
    with pytest.raises(KeyError, match="no check 'speed'"):
        report["speed"]


def test_report_counts_and_passes_what_did_not_fail():
    found = [Check(v, math.inf, None, v) for v in ("pass", "inconclusive", "not checked")]
    report = VerificationReport("a flow", "0", "1", tuple(found))
    assert report.passed
    assert str(report).endswith("1 passed, 1 inconclusive, 1 not checked")
    failed = VerificationReport("a flow", "0", "1", (*found, Check("broken", math.nan, 1.0, "FAIL")))
    assert not failed.passed
    assert "1 FAILED" in str(failed)
    assert json.loads(json.dumps(failed.to_dict(), allow_nan=False))["checks"][3]["value"] == "nan"
    assert math.isnan(VerificationReport.from_dict(failed.to_dict()).checks[3].value)


def test_report_belongs_to_the_parameters_it_was_made_for(flow, x, tmp_path):
    from npflows import load

    report = verify(flow, x, rng=0)
    flow.save(tmp_path / "flow.npz")
    assert report.matches(load(tmp_path / "flow.npz"))
    flow.params = flow.params + 1e-9
    assert not report.matches(flow)
    other = load(tmp_path / "flow.npz")
    other.standardize.set(other.standardize.loc, 2 * other.standardize.scale)
    assert not report.matches(other)


def test_report_is_kept_and_saved_with_the_flow(tmp_path):
    flow = npflows.MAF(2, 2, (8,), rng=0)
    report = flow.verify(flow.sample(200, rng=1), rng=2)
    assert flow.verification is report
    flow.save(tmp_path / "flow.npz")
    again = npflows.load(tmp_path / "flow.npz")
    assert again.verification == report
    assert again.verification.matches(again)
    again.params = again.params + 0.1
    assert not again.verification.matches(again)
