"""Flows as ONNX models in onnxruntime: the same numbers, NaN and infinity.  Runs where both packages are installed."""

import json
import sys

import numpy as np
import pytest
from export_cases import WHATS, assert_close, awkward, cases, evaluate, every_support, expected, far
from registry import NOT_EXPORTED, build, for_every_model

import npflows
from npflows import MAF
from npflows.cli import main
from npflows.export.layers import NotExportableError
from npflows.export.onnx_file import _metadata
from npflows.export.tracing import trace

TOLERANCE = {"float64": 1e-11, "float32": 2e-4}
"""Relative to 1 or the value; gradients of the strongest models of the registry lose most in float32."""


def session(flow, path, what, **options):
    """A session of onnxruntime."""
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    flow.to_onnx(path, what, **options)
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run(of, given):
    names = [output.name for output in of.get_outputs()]
    return dict(zip(names, of.run(None, {i.name: np.asarray(given[i.name], float) for i in of.get_inputs()})))


@for_every_model
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_model(name, dtype, tmp_path):
    flow = build(name, dtype)
    x, c = cases(flow)
    for what in ("forward", "inverse") if name in NOT_EXPORTED else WHATS[:4]:
        given, wanted = expected(flow, what, x, c)
        found = run(session(flow, tmp_path / "flow.onnx", what), given)
        assert {name: values.shape for name, values in found.items()} == {n: v.shape for n, v in wanted.items()}
        assert_close(found, wanted, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_without_a_density(dtype, tmp_path):
    flow, x, c = awkward(dtype)
    for what in WHATS[:2]:
        given, wanted = expected(flow, what, x, c)
        assert_close(run(session(flow, tmp_path / "flow.onnx", what), given), wanted, 10 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_beyond_the_range(dtype, tmp_path):
    if dtype == "float32" and npflows.backend() == "reference":
        pytest.skip("the reference computes in float64, where these numbers stay within the range")
    flow, x = far(dtype)
    given, wanted = expected(flow, "log_prob_and_grad", x, None)
    assert_close(run(session(flow, tmp_path / "flow.onnx", "log_prob_and_grad"), given), wanted, 10 * TOLERANCE[dtype])


@pytest.mark.parametrize("n", [0, 1, 7])
def test_any_number_of_rows(n, tmp_path):
    flow = every_support()
    c = np.random.default_rng(3).normal(size=(n, 2))
    x = flow.sample(n, 4, condition=c).reshape(n, 10)
    found = run(session(flow, tmp_path / "flow.onnx", "log_prob"), {"x": x, "condition": c})
    np.testing.assert_allclose(found["log_prob"], flow.log_prob(x, c), rtol=1e-11)


@pytest.mark.parametrize("name", ["MAF", "MAF, uniform, condition", "NSF, circles", "Glow"])
def test_samples(name, tmp_path):
    flow = build(name)
    given, _ = expected(flow, "sample", *cases(flow))
    given["normals"] = np.concatenate([given["normals"], np.full_like(given["normals"], 9.0), -3 * given["normals"]])
    if "condition" in given:
        given["condition"] = np.tile(given["condition"], (3, 1))
    found = run(session(flow, tmp_path / "flow.onnx", "sample"), given)
    assert_close(found, evaluate(trace(flow, "sample"), given), 1e-11)


def test_what_the_file_says(tmp_path):
    flow = every_support()
    flow.condition_columns = ["z", "e"]
    flow.units = ["km / s", *[None] * 9]
    flow.condition_units = [None, "mag"]
    model = session(flow, tmp_path / "flow.onnx", "log_prob")
    about = model.get_modelmeta().custom_metadata_map
    assert json.loads(about["columns"]) == list("abcdefghij")
    assert json.loads(about["condition_columns"]) == ["z", "e"]
    assert json.loads(about["units"]) == ["km / s", *[None] * 9]
    assert json.loads(about["condition_units"]) == [None, "mag"]
    assert about["what"] == "log_prob"
    assert "Positive(lower=2.0)" in json.loads(about["support"])[0]
    import onnx

    written = onnx.load(tmp_path / "flow.onnx")
    assert {node.domain for node in written.graph.node} == {""}
    assert [(o.domain, o.version) for o in written.opset_import] == [("", 17)]
    assert model.get_inputs()[0].shape == ["batch", 10]


def test_metadata_needs_no_package():
    flow = MAF(2, 1, (4,), condition_dim=1, rng=0, columns=["v", "m"])
    assert "units" not in _metadata(flow, "log_prob")
    flow.units, flow.condition_units = ["km / s", None], ["mag"]
    about = _metadata(flow, "log_prob")
    assert [json.loads(about[name]) for name in ("columns", "units", "condition_units")] == [
        ["v", "m"],
        ["km / s", None],
        ["mag"],
    ]


def test_command(tmp_path):
    pytest.importorskip("onnx")
    MAF(2, 1, (4,), rng=0).save(tmp_path / "flow.npz")
    assert main(["export", str(tmp_path / "flow.npz"), "-o", str(tmp_path / "f.onnx"), "--what", "sample", "--quiet"]) == 0
    assert (tmp_path / "f.onnx").stat().st_size > 0


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"to_onnx needs onnx: pip install 'npflows\[onnx\]'"):
        MAF(2, 1, (4,), rng=0).to_onnx(tmp_path / "flow.onnx")


def test_what_is_refused(tmp_path):
    pytest.importorskip("onnx")
    with pytest.raises(NotExportableError, match="StudentT"):
        build("MAF, random orders").to_onnx(tmp_path / "flow.onnx", "sample")
    assert not (tmp_path / "flow.onnx").exists()
