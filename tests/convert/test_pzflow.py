"""Flows of pzflow give the numbers that pzflow printed; see tests/fixtures/make_pzflow.py."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

import npflows
from npflows import convert
from npflows.cli import main
from npflows.convert import pzflow

FILES = Path(__file__).parents[1] / "fixtures" / "pzflow"
PRINTED = np.load(FILES / "printed.npz")
NAMES = ("usual", "conditional", "list", "one_column")


def printed(name):
    return PRINTED[f"{name}.x"], PRINTED[f"{name}.log_prob"], PRINTED.get(f"{name}.condition")


def check_numbers(name):
    """Compare a flow from its file with what was printed."""
    flow, (x, wanted, c) = convert.from_pzflow(FILES / f"{name}.pkl"), printed(name)
    assert flow.dtype == "float64"
    np.testing.assert_allclose(flow.log_prob(x, c), wanted, rtol=1e-11, atol=1e-11)
    z, _ = flow.forward(x, c)
    np.testing.assert_allclose(flow.inverse(z, c)[0], x, atol=1e-9)
    narrow = convert.from_pzflow(FILES / f"{name}.pkl", dtype="float32")
    np.testing.assert_allclose(narrow.log_prob(x, c), wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["conditional", "list"])  # every_number.py has all
def test_numbers(name):
    check_numbers(name)


def test_names_of_columns():
    flow = convert.from_pzflow(FILES / "conditional.pkl")
    assert flow.columns == ["x", "y"]
    assert flow.condition_columns == ["c", "d"]
    np.testing.assert_array_equal(flow.condition_loc, [0.5, -1.0])


def test_is_a_flow_like_any_other(tmp_path):
    flow, (x, _, c) = convert.from_pzflow(FILES / "usual.pkl", dtype="float32"), printed("usual")
    flow.save(tmp_path / "flow.npz")
    np.testing.assert_array_equal(npflows.load(tmp_path / "flow.npz").log_prob(x, c), flow.log_prob(x, c))
    rows = flow.sample(300, rng=1)
    before = flow.log_prob(rows).mean()
    flow.fit(rows, max_epochs=2, learning_rate=1e-4, rng=1, progress=False)
    assert abs(flow.log_prob(rows).mean() - before) < 0.3


class Object:
    """A flow of pzflow, as far as it is asked for what it is."""

    def __init__(self, **changed):
        self.state = {**pzflow.read_pickle(FILES / "usual.pkl"), **changed}

    def __getstate__(self):
        return self.state


REFUSED = {
    "a shuffle": (lambda: FILES / "shuffled.pkl", "does not tell the permutation of Shuffle"),
    "a latent distribution": (
        lambda: Object(latent_info=("Tdist", (3,))),
        "the latent distribution Tdist is not taken over",
    ),
    "no bijector": (lambda: Object(bijector_info=None), "without a bijector"),
    "an ensemble": (lambda: Object(**{"class": "FlowEnsemble"}), "of several flows"),
    "a dequantizer": (lambda: Object(bijector_info=("UniformDequantizer", (0,))), "the bijector UniformDequantizer is not"),
    "circles": (
        lambda: Object(bijector_info=("NeuralSplineCoupling", (4, 5, 2, 6, None, 0, True))),
        "periodic=True is not taken over",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what):
    make, message = REFUSED[what]
    with pytest.raises(convert.ConversionError, match=message):
        convert.from_pzflow(make())


class Harmful:
    """What pickle would execute."""

    def __reduce__(self):
        return os.mkdir, (str(Path(os.environ["PZFLOW_TARGET"])),)


def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.setenv("PZFLOW_TARGET", str(tmp_path / "made"))
    (tmp_path / "harm.pkl").write_bytes(pickle.dumps({"class": "Flow", "params": Harmful(), "bijector_info": Harmful()}))
    with pytest.raises(convert.ConversionError):
        convert.from_pzflow(tmp_path / "harm.pkl")
    assert not (tmp_path / "made").exists()


def test_files_of_other_kinds(tmp_path):
    (tmp_path / "text").write_text("no pickle")
    with pytest.raises(convert.ConversionError, match="is no pickle of pzflow"):
        convert.from_pzflow(tmp_path / "text")
    (tmp_path / "other.pkl").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(convert.ConversionError, match="is a pickle, but of no flow of pzflow"):
        convert.from_pzflow(tmp_path / "other.pkl")
    (tmp_path / "objects.pkl").write_bytes(pickle.dumps(np.array([{}, {}])))
    with pytest.raises(convert.ConversionError, match="is no pickle of pzflow"):
        convert.from_pzflow(tmp_path / "objects.pkl")


def test_load_names_what_it_is():
    with pytest.raises(npflows.FlowFileError, match=r"a pickle.*npflows\.convert\.from_pzflow takes flows of pzflow over"):
        npflows.load(FILES / "usual.pkl")
    leaves = FILES.parent / "flowjax" / "maf.eqx"
    with pytest.raises(npflows.FlowFileError, match=r"the leaves of flows.*npflows\.convert\.from_flowjax takes those"):
        npflows.load(leaves)


def test_command(tmp_path):
    source, target = str(FILES / "conditional.pkl"), str(tmp_path / "flow.npz")
    assert main(["convert", "pzflow", source, "-o", target, "--quiet"]) == 0
    x, wanted, c = printed("conditional")
    np.testing.assert_allclose(npflows.load(target).log_prob(x, c), wanted, atol=1e-11)


def test_a_flow_without_numbers_is_one_of_float32():
    whole = Object(bijector_info=("Reverse", ()), params=((), ()), latent_info=("Normal", (3,)))
    flow, x = convert.from_pzflow(whole), np.array([[1.0, 2.0, 3.0]])
    assert flow.dtype == "float32"
    np.testing.assert_allclose(flow.forward(x)[0], x[:, ::-1])


def damaged(**arguments):
    """A flow of one coupling some of whose arguments are others."""
    state = pzflow.read_pickle(FILES / "one_column.pkl")
    return Object(**{**state, **arguments})


DAMAGED = {
    "hidden layers": (
        ("NeuralSplineCoupling", (4, 5, 1, 6, None, 1, False)),
        r"must have \[6, 11\] outputs, got \[6, 6, 11\]",
    ),
    "conditions": (("NeuralSplineCoupling", (4, 5, 2, 6, None, 0, False)), r"layer 0\.weight has shape \(6, 1\), where"),
    "bins": (("NeuralSplineCoupling", (5, 5, 2, 6, None, 1, False)), r"layer 2\.bias has shape \(11,\), where"),
    "no arguments": (("NeuralSplineCoupling", ()), "the bijector 'NeuralSplineCoupling' has other arguments or numbers"),
    "a chain": (("Chain", (("Reverse", ()),)), "a Chain of 1 bijectors has numbers of"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_arguments_and_numbers_that_do_not_fit(what):
    info, message = DAMAGED[what]
    with pytest.raises(convert.ConversionError, match=message):
        convert.from_pzflow(damaged(bijector_info=info))


def test_what_a_damaged_file_lacks():
    with pytest.raises(convert.ConversionError, match="has no data_columns: it is damaged"):
        convert.from_pzflow(damaged(data_columns=()))
    with pytest.raises(convert.ConversionError, match="latent_info must be the name of a distribution of 1 columns"):
        convert.from_pzflow(damaged(latent_info=("Normal", (2,))))
    with pytest.raises(convert.ConversionError, match="condition_means must be 1 finite numbers, got None"):
        convert.from_pzflow(damaged(condition_means=None))
