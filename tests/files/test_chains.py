"""Chains and results of samplers, in files of their documented layouts and as the real packages make them.

The samplers run in an environment of their own, `.ci/chains`; where one is missing, what needs it is not tried, unless
NPFLOWS_TEST_SAMPLERS says that all are to be there.
"""

import json
import os

import numpy as np
import pytest

import npflows
from npflows.files.tables import TableError, read_table

MEAN, SPREAD = np.array([1.0, -2.0]), np.array([0.5, 0.2])
X = np.random.default_rng(0).normal(MEAN, SPREAD, (500, 2))


def package(name):
    """A sampler, or none of what needs it."""
    return __import__(name) if os.environ.get("NPFLOWS_TEST_SAMPLERS") else pytest.importorskip(name)


def log_likelihood(x):
    return -0.5 * (((np.asarray(x) - MEAN) / SPREAD) ** 2).sum()


def from_unit_cube(u):
    return 10 * np.asarray(u) - 5


def check(table, names, *, weighted):
    """The table is the posterior, with its weights."""
    logs = table.log_weight if table.sample_weight is None else np.log(np.maximum(table.sample_weight, 1e-300))
    assert (logs is not None) == weighted
    weight = None if logs is None else np.exp(logs - logs.max())
    mean = np.average(table.x, axis=0, weights=weight)
    assert table.columns == names
    np.testing.assert_allclose(mean, MEAN, atol=0.2)
    np.testing.assert_allclose(np.sqrt(np.average((table.x - mean) ** 2, axis=0, weights=weight)), SPREAD, rtol=0.4)


@pytest.mark.filterwarnings("ignore")
def test_dynesty():
    dynesty = package("dynesty")
    sampler = dynesty.NestedSampler(log_likelihood, from_unit_cube, 2, nlive=100, rstate=np.random.default_rng(0))
    sampler.run_nested(print_progress=False)
    for given in (sampler.results, sampler, sampler.results.asdict()):
        check(read_table(given), None, weighted=True)


@pytest.mark.filterwarnings("ignore")
def test_nautilus(tmp_path):
    nautilus = package("nautilus")
    prior = nautilus.Prior()
    for name in "ab":
        prior.add_parameter(name, dist=(-5, 5))
    file = tmp_path / "n.hdf5"
    sampler = nautilus.Sampler(
        prior, lambda p: log_likelihood([p["a"], p["b"]]), n_live=100, n_networks=0, filepath=file, seed=0
    )
    sampler.run(n_eff=200)
    check(read_table(sampler), ["a", "b"], weighted=True)
    for table in (None, "sampler/points_0"):
        with pytest.raises(npflows.TableError, match=r"a checkpoint of nautilus, .* unit cube: read_table\(sampler\)"):
            read_table(file, table=table)


@pytest.mark.filterwarnings("ignore")
def test_ultranest(tmp_path):
    ultranest = package("ultranest")
    sampler = ultranest.ReactiveNestedSampler(
        ["a", "b"], log_likelihood, from_unit_cube, log_dir=str(tmp_path / "run"), resume="overwrite"
    )
    result = sampler.run(show_status=False, viz_callback=False, max_ncalls=5000, min_num_live_points=50)
    for given in (result, sampler, tmp_path / "run", tmp_path / "run/chains/weighted_post.txt"):
        check(read_table(given), ["a", "b"], weighted=True)
    check(read_table(tmp_path / "run/chains/equal_weighted_post.txt"), ["a", "b"], weighted=False)
    for name, sentence in (
        ("chains/run.txt", "UltraNest's record of a run, without its points: read weighted_post.txt"),
        ("info/results.json", "a summary of UltraNest's, without samples"),
        ("results/points.hdf5", "the point store of UltraNest"),
    ):
        with pytest.raises(npflows.TableError, match=sentence):
            read_table(tmp_path / "run" / name)
    with pytest.raises(npflows.TableError, match="the point store of UltraNest"):
        read_table(tmp_path / "run/results/points.hdf5", table="points")
    with pytest.warns(UserWarning, match="holds points of the unit cube"):
        read_table(tmp_path / "run/chains/weighted_post_untransformed.txt")


@pytest.mark.filterwarnings("ignore")
def test_bilby(tmp_path):
    bilby, pandas = package("bilby"), package("pandas")
    posterior = pandas.DataFrame({"a": X[:, 0], "b": X[:, 1], "total": X.sum(axis=1), "log_likelihood": X[:, 0]})
    prior = bilby.core.prior.PriorDict({name: bilby.core.prior.Uniform(-5, 5) for name in "ab"})
    result = bilby.core.result.Result(
        label="r", outdir=str(tmp_path), search_parameter_keys=["a", "b"], parameter_labels=["a", "b"], posterior=posterior,
        priors=prior, nested_samples=posterior,
    )  # fmt: skip
    result.save_to_file(filename=str(tmp_path / "r.json"), extension="json")
    result.save_to_file(filename=str(tmp_path / "r.hdf5"), extension="hdf5")
    result.save_to_file(filename=str(tmp_path / "r.json.gz"), extension="json", gzip=True)
    for given in (result, tmp_path / "r.json", tmp_path / "r.hdf5", tmp_path / "r.json.gz"):
        check(read_table(given), ["a", "b"], weighted=False)
    assert read_table(tmp_path / "r.hdf5").left_out["total"] == "no parameter that was searched"
    check(read_table(tmp_path / "r.hdf5", table="posterior"), ["a", "b"], weighted=False)
    with pytest.raises(npflows.TableError, match="burn_in is for chains of samplers"):
        read_table(tmp_path / "r.hdf5", burn_in=0.5)


@pytest.mark.filterwarnings("ignore")
def test_trees_of_arviz(tmp_path):
    xarray = package("xarray")
    c = X.reshape(4, 125, 2)
    posterior = xarray.Dataset({"v": (("chain", "draw", "k"), c)}, {"chain": range(4), "draw": range(125)})
    stats = xarray.Dataset({"energy": (("chain", "draw"), c[..., 0])}, {"chain": range(4), "draw": range(125)})
    given = [posterior]
    if hasattr(xarray, "DataTree"):
        tree = xarray.DataTree.from_dict({"posterior": posterior, "sample_stats": stats})
        given += [tree, tree["posterior"]]
        package("h5netcdf")
        tree.to_netcdf(tmp_path / "t.nc", engine="h5netcdf")
        posterior.to_netcdf(tmp_path / "p.nc", engine="h5netcdf")
        given += [tmp_path / "p.nc", tmp_path / "t.nc"]
        for table in ("posterior", "posterior/v"):
            check(read_table(tmp_path / "t.nc", table=table), ["v[0]", "v[1]"], weighted=False)
        assert len(read_table(tmp_path / "t.nc", table="posterior", burn_in=25)) == 400
        assert read_table(tmp_path / "t.nc", table="sample_stats").columns == ["energy"]
    for table in map(read_table, given):
        check(table, ["v[0]", "v[1]"], weighted=False)
    assert len(read_table(given[-1], burn_in=25)) == 400


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("taken", [slice(None), [3, 499, 7]], ids=["all", "some"])
def test_draws_taken_out_of_chains_by_arviz_extract(taken):
    xarray = package("xarray")
    c = X.reshape(4, 125, 2)
    posterior = xarray.Dataset({"v": (("chain", "draw", "k"), c), "w": (("chain", "draw"), c[..., 0])},
                               {"chain": range(4), "draw": range(125)})  # fmt: skip
    draws = posterior.stack(sample=("chain", "draw")).isel(sample=taken)
    table = read_table(draws)
    assert table.columns == ["v[0]", "v[1]", "w"]
    np.testing.assert_array_equal(table.x, np.column_stack([X, X[:, 0]])[taken])
    with pytest.raises(TableError, match="taken out of chains"):
        read_table(draws, burn_in=25)
    for given in (posterior, draws):
        with pytest.raises(TypeError, match=r"a Dataset of chains is no table by itself: pass npflows\.read_table of it"):
            npflows.MAF(3, 1, (8,)).log_prob(given)


@pytest.mark.filterwarnings("ignore")
def test_getdist(tmp_path):
    getdist = package("getdist")
    made = getdist.MCSamples(samples=X, weights=np.ones(500), loglikes=np.ones(500), names=["a", "b"])
    made.saveAsText(str(tmp_path / "c"))
    for given in (made, tmp_path / "c", tmp_path / "c.txt"):
        check(read_table(given), ["a", "b"], weighted=True)


def test_a_result_of_bilby_in_hdf5_gives_the_parameters_that_were_searched(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "r.hdf5", "w") as file:
        for group in ("posterior", "nested_samples"):
            for name, values in (("a", X[:, 0]), ("b", X[:, 1]), ("total", X.sum(axis=1)), ("log_likelihood", X[:, 0])):
                file[f"{group}/{name}"] = values
        file["search_parameter_keys"] = [b"a", b"b"]
    with pytest.warns(UserWarning, match=r"left out .*total \(no parameter that was searched\)"):
        table = read_table(tmp_path / "r.hdf5")
    check(table, ["a", "b"], weighted=False)


def test_results_of_dynesty_as_a_mapping_have_weights():
    table = read_table({"samples": X, "logwt": np.zeros(500), "logz": np.array([1.0, 2.0]), "proposal_stats": {}})
    np.testing.assert_array_equal(table.log_weight, -2.0)


def test_summaries_are_no_samples(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"posterior": {"mean": [1.0, 2.0], "stdev": [1.0, 2.0]}}))
    with pytest.raises(npflows.TableError, match="is JSON, but no result of bilby with a posterior"):
        read_table(path)


def test_arrays_of_chains_are_refused_with_how_to_reshape_them(tmp_path):
    chains = X.reshape(125, 4, 2)
    np.save(tmp_path / "c.npy", chains)
    np.savez(tmp_path / "c.npz", chain=chains)
    given = [chains, tmp_path / "c.npy", tmp_path / "c.npz"]
    try:
        import h5py
    except ImportError:
        pass
    else:
        with h5py.File(tmp_path / "c.h5", "w") as file:
            file["chain"] = chains
        given.append(tmp_path / "c.h5")
    for source in given:
        with pytest.raises(npflows.TableError, match=r"reshape chains \(draw, chain, 2\) to \(-1, 2\)"):
            read_table(source)
