"""The races with other libraries, as far as they go without them: weights that are carried over, tables, the picture."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import npflows

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").exists(), reason="not in a checkout")


@pytest.fixture(autouse=True)
def checkout(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def softplus(r):
    return np.log1p(np.exp(r))


def masked_network(rng, degrees, n, m):
    """A peer's masked network, its hidden units in any order: weights, biases, and its outputs (rows, n, m)."""
    layers = [np.arange(1, n + 1), *degrees]
    weights = [rng.standard_normal((len(b), len(a))) * (a[None, :] <= b[:, None]) for a, b in itertools.pairwise(layers)]
    out = np.repeat(np.arange(1, n + 1), m)
    weights.append(rng.standard_normal((n * m, len(degrees[-1]))) * (degrees[-1][None, :] < out[:, None]))
    biases = [rng.standard_normal(len(w)) for w in weights]

    def network(x):
        for weight, bias in zip(weights[:-1], biases[:-1]):
            x = np.maximum(x @ weight.T + bias, 0)
        return (x @ weights[-1].T + biases[-1]).reshape(len(x), n, m)

    return weights, biases, network


def test_an_autoregressive_layer_of_a_peer():
    from benchmarks.peers.carry import flow_of

    rng, n = np.random.default_rng(0), 3
    degrees = [np.array([2, 1, 1, 2, 2]), np.array([1, 2, 1, 2])]
    weights, biases, network = masked_network(rng, degrees, n, 2)
    scalar_map = {"kind": "affine", "scale": "softplus", "offset": 0.5, "least": 0.1, "scale_row": 0}
    layer = {"kind": "autoregressive", "order": np.arange(n), "weights": weights, "biases": biases, "map": scalar_map}
    flow = flow_of([layer, {"kind": "permutation", "order": np.array([2, 0, 1])}], "float64")
    x = rng.standard_normal((20, n))
    raw = network(x)
    scale = softplus(raw[..., 0] + 0.5) + 0.1
    z, log_det = flow.forward(x)
    np.testing.assert_allclose(z, (x * scale + raw[..., 1])[:, [2, 0, 1]], rtol=1e-12)
    np.testing.assert_allclose(log_det, np.log(scale).sum(1), rtol=1e-12)
    np.testing.assert_allclose(flow.inverse(z)[0], x, atol=1e-9)


def test_a_coupling_of_a_peer():
    from benchmarks.peers.carry import flow_of

    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((5, 1)), rng.standard_normal((4, 5))]
    biases = [rng.standard_normal(5), rng.standard_normal(4)]
    scalar_map = {"kind": "affine", "scale": "sigmoid", "offset": 2.0, "least": 1e-3, "scale_row": 1}
    layer = {"kind": "coupling", "mask": np.array([0, 1, 0]), "rows": "by parameter", "weights": weights, "biases": biases,
             "map": scalar_map}  # fmt: skip
    flow = flow_of([layer], "float64")
    x = rng.standard_normal((20, 3))
    raw = np.maximum(x[:, [1]] @ weights[0].T + biases[0], 0) @ weights[1].T + biases[1]
    scale = 1 / (1 + np.exp(-raw[:, 2:] - 2)) + 1e-3
    z, log_det = flow.forward(x)
    np.testing.assert_allclose(z[:, [0, 2]], x[:, [0, 2]] * scale + raw[:, :2], rtol=1e-12)
    np.testing.assert_allclose(log_det, np.log(scale).sum(1), rtol=1e-10)


def test_a_spline_of_zuko():
    """Its bins are those that zuko/transforms.py makes of the same parameters; the spline between them is npflows'."""
    from benchmarks.peers.carry import flow_of

    rng, bins, bound, slope = np.random.default_rng(0), 4, 3.0, 1e-3
    weights, biases = [np.zeros((3 * bins - 1, 1))], [3 * rng.standard_normal(3 * bins - 1)]
    scalar_map = {"kind": "spline", "bins": bins, "bound": bound, "soft_clip": slope}
    layer = {"kind": "coupling", "mask": np.array([1, 0]), "weights": weights, "biases": biases, "map": scalar_map}
    flow = flow_of([layer], "float64")
    widths, heights, slopes = np.split(biases[0], [bins, 2 * bins])
    widths, heights = (v / (1 + np.abs(2 * v / np.log(slope))) for v in (widths, heights))
    slopes = np.exp(slopes / (1 + np.abs(slopes / np.log(slope))))
    x = np.linspace(-4, 4, 81)
    softmax = [2 * bound * np.exp(v) / np.exp(v).sum() for v in (widths, heights)]
    spline = npflows.RationalQuadraticSplineTransform(bins, bound)
    given = (np.broadcast_to(v, (len(x), 1, len(v))) for v in (*softmax, np.concatenate([[1], slopes, [1]])))
    y, log_det = spline.apply_spline(x[:, None], *given)
    both = np.stack([np.zeros_like(x), x], axis=1)
    z, found = flow.forward(both)
    np.testing.assert_allclose(z[:, 1], y[:, 0], atol=1e-12)
    np.testing.assert_allclose(found, log_det, atol=1e-10)
    np.testing.assert_allclose(flow.inverse(z)[0], both, atol=1e-9)


def test_what_masks_forbid_is_refused():
    from benchmarks.peers.carry import flow_of

    rng = np.random.default_rng(0)
    weights, biases, _ = masked_network(rng, [np.array([1, 2])], 3, 2)
    weights[-1][0] = 1.0  # the first feature depends on others
    scalar_map = {"kind": "affine", "scale": "exp", "offset": 0.0, "least": 0.0, "scale_row": 1}
    layer = {"kind": "autoregressive", "order": np.arange(3), "weights": weights, "biases": biases, "map": scalar_map}
    with pytest.raises(ValueError, match="mask forbids"):
        flow_of([layer], "float64")


def found():
    """A results file of two tasks, one fit and one agreement."""
    from benchmarks.peers.contenders import OWN, PEERS

    names = [OWN, *PEERS]
    built = {name: {"used": 10, "stored": 20, "versions": {name: "1.0"}, "threads": 2} for name in names}
    seconds = {name: [(i + 1) * 1e-3, (i + 1) * 1.2e-3] for i, name in enumerate(names)}
    seconds["zuko"] = [30.0]  # called once
    task = {"model": "MAF", "size": "D=8, 64x64", "built": built, "seconds": seconds, "first": {}}
    curve = {name: {"seconds": [1.0, 2.0], "reached": [-9.0, -8.0]} for name in PEERS}
    curve[OWN] = {"seconds": [0.1, 0.2, 0.3], "reached": [-10.0, -8.5, -7.5]}
    difference = {"log_prob": 1e-7, "inverse": 2e-7}
    ours = {"between": difference, "parameters": 10, "npflows": difference, "peer": difference}
    return {
        "conditions": {"date": "2026-01-01", "machine": "a machine", "threads": 2, "rounds": 2},
        "tasks": {
            "a": {"work": "log_prob", "batch": 1, **task},
            "b": {"work": "train step", "batch": 256, **task},
            "c": {"work": "sampling", "batch": 4096, **task},
        },
        "galaxies": {"MAF": {"built": built, "curves": [curve], "epochs": 2, "batch": 512, "units": 0.5}},
        "agreement": {f"zuko, MAF, D=8, 64x64, {dtype}": ours for dtype in ("float32", "float64")},
        "memory": {name: 50.0 if name == OWN else 500.0 for name in names},
        "glow": {
            "date": "2026-01-01", "machine": "a machine", "data": "digits", "steps": 10, "batch": 32, "held_out": 5,
            "size": 32, "scales": 3, "blocks": 4, "width": 64,
            "contenders": {"normflows": {"parameters": 7, "versions": {"torch": "2"}, "memory": 100.0, "bits_per_dim": 3.5,
                                         "step": [0.1, 0.2, 0.3]}},
        },
    }  # fmt: skip


def test_the_tables_and_the_picture(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from benchmarks.peers import report

    sample, results, plot = tmp_path / "found.json", tmp_path / "RESULTS.md", tmp_path / "speed.png"
    sample.write_text(json.dumps(found()))
    results.write_text("# Measured\n\n## Speeds\n\nfast\n\n## Galaxies\n\nfar\n")
    monkeypatch.setattr(sys, "argv", ["report.py", str(sample), "--results", str(results), "--plot", str(plot)])
    report.main()
    text = results.read_text()
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles == ["## Speeds", f"## {report.RACES}", f"## {report.GLOW}", "## Galaxies"]
    assert "| log_prob, MAF, D=8, 64x64, B=1 | 1.10 ms | 2.20 ms | 30.0 s |" in text
    assert "2.0 (2 to 2) | **8, missed** |" in text
    assert "| MAF, nflows | -7.500 | 2.00 s | 300 ms | 6.7 |" in text
    assert "10.0 times\nnpflows' (aim: 10)" in text
    assert "| 50 MB | 500 MB | 500 MB |" in text
    assert "| normflows | 7 | 200 ms (100 ms to 300 ms) | 3.500 | 100 MB |" in text
    assert plot.read_bytes().startswith(b"\x89PNG")
    report.main()
    assert results.read_text() == text  # a section is replaced, not added again


def test_a_results_file_is_added_to(tmp_path):
    from benchmarks.peers import store

    path = tmp_path / "found.json"
    assert store.read(path) == {}
    store.update(path, {"a": 1})
    store.update(path, {"b": [2]})
    assert store.read(path) == {"a": 1, "b": [2]}


def test_layers_travel_in_a_file(tmp_path):
    from benchmarks.peers.layers_file import load_layers, save_layers

    path = str(tmp_path / "layers.npz")
    save_layers(path, [{"kind": "x", "weights": [np.ones(2), np.zeros(1)], "map": {"least": None, "flag": True}}])
    (layer,) = load_layers(path)
    assert layer["kind"] == "x"
    assert layer["map"] == {"least": None, "flag": True}
    np.testing.assert_array_equal(layer["weights"][0], np.ones(2))


def test_images_of_idx_files(tmp_path):
    import gzip

    from benchmarks.peers import images

    pixels = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    header = b"\0\0\x08\x03" + np.array([2, 28, 28], ">u4").tobytes()
    for name in ("train", "t10k"):
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + pixels.tobytes()))
    train, test, what = images.load(str(tmp_path), np.random.default_rng(0))
    np.testing.assert_array_equal(train[:, 2:30, 2:30], pixels)
    assert train.shape == test.shape == (2, 32, 32)
    assert train.sum() == pixels.sum(dtype=np.int64)
    assert "padded" in what


def test_a_worker_answers_and_reports_errors(tmp_path):
    from benchmarks.peers import protocol

    script = tmp_path / "worker.py"
    script.write_text(
        "from benchmarks.peers.protocol import serve\n"
        "print('not an answer')\n"
        "serve({'double': lambda x: print('nor this') or 2 * x, 'fail': lambda: 1 / 0})\n"
    )
    with protocol.Worker(sys.executable, str(script)) as worker:
        assert worker("double", x=21) == 42
        with pytest.raises(protocol.PeerError, match="ZeroDivisionError"):
            worker("fail")
        assert worker("double", x=1) == 2


def test_every_task_has_a_known_size():
    from benchmarks.peers import tasks

    assert len({str(task) for task in tasks.TASKS}) == len(tasks.TASKS)
    for task in tasks.TASKS:
        assert task.size in tasks.SIZES
        assert task.model in tasks.NUM_LAYERS
        assert tasks.aim(task) is None or tasks.aim(task) > 1
