"""Weights and log-densities of samplers are told by their names through every door, and never fitted without a word."""

import warnings

import numpy as np
import pytest

import npflows
from npflows.files.tables import read_table, write_table

X = np.random.default_rng(0).normal(size=(30, 2))
W = np.random.default_rng(1).uniform(1, 2, 30)


def text(path, **columns):
    np.savetxt(path, np.column_stack(list(columns.values())), header=" ".join(columns))
    return path


def csv(path, **columns):
    write_table(path.with_suffix(".csv"), np.column_stack(list(columns.values())), list(columns))
    return path.with_suffix(".csv")


def npz(path, **columns):
    np.savez(path.with_suffix(".npz"), **columns)
    return path.with_suffix(".npz")


def npz_of_a_matrix(path, **columns):
    np.savez(path.with_suffix(".npz"), x=np.column_stack(list(columns.values())), columns=np.array(list(columns)))
    return path.with_suffix(".npz")


def mapping(path, **columns):
    return columns


DOORS = [text, csv, npz, npz_of_a_matrix, mapping]
a, b = X.T


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("names", [("weight", "loglike"), ("weights", "logl"), ("weight", "-2*loglike")])
def test_columns_that_begin_as_chains_do_have_their_weights(door, names, tmp_path):
    table = door(tmp_path / "t.txt", **dict(zip(names, (W, -W))), a=a, b=b)
    with pytest.warns(UserWarning, match=r"left out .* \(a log-density of the sampler\)"):
        read = read_table(table)
    assert read.columns == ["a", "b"]
    np.testing.assert_array_equal(read.sample_weight, W)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("name", "option"), [("weights", "weights"), ("logwt", "log_weights")])
def test_weights_of_an_ordinary_table_are_left_out_with_how_to_take_them(door, name, option, tmp_path):
    table = door(tmp_path / "t.txt", a=a, b=b, **{name: W})
    with pytest.warns(UserWarning, match=rf"{name} \(named as .*\); pass {option}='{name}' .*; ask for them by col"):
        read = read_table(table)
    assert (read.columns, read.sample_weight, list(read.left_out)) == (["a", "b"], None, [name])
    read = read_table(table, **{option: name})
    np.testing.assert_array_equal(read.sample_weight if option == "weights" else read.log_weight, W)
    assert read.columns == ["a", "b"]
    assert read_table(table, ["a", name]).columns == ["a", name]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", ["log_prob", "lnprobability", "-2*loglike", "log_likelihood"])
def test_no_log_density_is_fitted(door, name, tmp_path):
    with pytest.warns(UserWarning, match=r"left out .* \(a log-density of the sampler\)"):
        assert read_table(door(tmp_path / "t.txt", a=a, b=b, **{name: W})).columns == ["a", "b"]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", ["weight", "chi2", "logP", "lp"])
def test_names_of_values_as_well_are_values_with_a_warning(door, name, tmp_path):
    table = door(tmp_path / "t.txt", a=a, **{name: W})
    with pytest.warns(UserWarning, match=f"{name} is taken for a value like the others, and may be (the|a) "):
        assert read_table(table).columns == ["a", name]
    assert read_table(table, ["a", name]).columns == ["a", name]
    with pytest.warns(UserWarning, match="left out"):
        assert read_table(door(tmp_path / "t.txt", a=a, loglike=b, weight=W)).columns == ["a"]


def test_a_table_of_log_densities_alone_is_what_it_is(tmp_path):
    write_table(tmp_path / "score.csv", W, ["log_prob"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_table(tmp_path / "score.csv").x[:, 0], W)
    flow = npflows.MAF(2, 1, (8,), columns=["a", "weight"], rng=0)
    assert flow.log_prob({"weight": W, "a": a}).shape == (30,)


@pytest.mark.parametrize("name", ["r_equal_weights.txt", "r.1.txt", "r_1.txt", "r.txt"])
def test_a_chain_has_the_names_of_the_file_of_its_root(name, tmp_path):
    (tmp_path / "r.paramnames").write_text("omega \\Omega\nh h_0\n")
    np.savetxt(tmp_path / name, np.column_stack([W, W, X]))
    with pytest.warns(UserWarning, match=r"left out -logl \(a log-density of the sampler\)"):
        read = read_table(tmp_path / name)
    assert read.columns == ["omega", "h"]
    np.testing.assert_array_equal(read.sample_weight, W)


def test_samples_of_polychord_without_their_names_are_told_of(tmp_path):
    np.savetxt(tmp_path / "r_equal_weights.txt", np.column_stack([W, W, X]))
    with pytest.warns(UserWarning, match="begin with the weight and -log of the density, but has no file of .paramnames"):
        read_table(tmp_path / "r_equal_weights.txt")
