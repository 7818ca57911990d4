"""Flows on Dask arrays and data frames, in this process and on a cluster of two processes one of which is killed."""

import os
import signal

import numpy as np
import pytest
import registry

import npflows
import npflows.dask
from npflows.cli import main

da = pytest.importorskip("dask.array")
pd, dd = pytest.importorskip("pandas"), pytest.importorskip("dask.dataframe")
distributed = pytest.importorskip("distributed")

X = np.random.default_rng(0).normal(size=(1000, 3))
C = np.random.default_rng(1).normal(size=(1000, 2))
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Dask and what it is made of
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def made(condition_dim=0, **options):
    return registry.randomize(npflows.MAF(3, 2, (8,), condition_dim=condition_dim, rng=0, **options), strength=0.4)


def test_an_array_chunk_by_chunk():
    flow, x = made(), da.from_array(X, chunks=(300, 2))  # cut along columns too
    found = npflows.dask.log_prob(flow, x)
    assert found.chunks == ((300, 300, 300, 100),)
    np.testing.assert_array_equal(found.compute(scheduler="synchronous"), flow.log_prob(X))


def test_the_flow_is_that_of_the_call_and_one_node_of_the_graph():
    flow = made()
    expected, found = flow.log_prob(X), npflows.dask.log_prob(flow, da.from_array(X, chunks=(100, 3)))
    names = [key for key in found.__dask_graph__() if isinstance(key, str) and key.startswith("npflows-")]
    assert len(names) == 1
    flow.params = 1.1 * flow.params
    np.testing.assert_array_equal(found.compute(scheduler="synchronous"), expected)


def test_chunks_whose_sizes_are_unknown_and_empty_ones():
    flow, x = made(), da.from_array(X, chunks=(300, 3))
    chosen = x[x[:, 0] > 3.2]
    np.testing.assert_array_equal(
        npflows.dask.log_prob(flow, chosen).compute(scheduler="synchronous"), flow.log_prob(X[X[:, 0] > 3.2])
    )
    assert npflows.dask.log_prob(flow, x[:0]).compute(scheduler="synchronous").shape == (0,)


@pytest.mark.parametrize("condition", [C[0], C, da.from_array(C, chunks=(170, 1))], ids=["one", "an array", "of Dask"])
def test_conditions(condition):
    flow, x = made(2), da.from_array(X, chunks=(300, 3))
    found = npflows.dask.log_prob(flow, x, condition).compute(scheduler="synchronous")
    np.testing.assert_array_equal(found, flow.log_prob(X, np.asarray(condition)))


def test_conditions_of_chunks_whose_sizes_are_unknown():
    flow, x, condition = made(2), da.from_array(X, chunks=(300, 3)), da.from_array(C, chunks=(300, 2))
    chosen = x[:, 0] > 1
    found = npflows.dask.log_prob(flow, x[chosen], condition[chosen]).compute(scheduler="synchronous")
    np.testing.assert_array_equal(found, flow.log_prob(X[X[:, 0] > 1], C[X[:, 0] > 1]))
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        npflows.dask.log_prob(flow, x[chosen], C)


def masked(x=X):
    """The same table masked, in Dask and in NumPy, where its values stand for what is missing."""
    table = np.ma.masked_array(np.where(x > 1, -999.0, x), x > 1)
    return da.from_array(table, chunks=(300, 2)), table


def test_masked_entries_are_missing():
    x, same = masked()
    flow, density = made(), npflows.dask.log_prob(made(), x).compute(scheduler="synchronous")
    np.testing.assert_array_equal(np.isnan(density), same.mask.any(axis=1))
    np.testing.assert_array_equal(flow.log_prob(x), density)
    np.testing.assert_array_equal(npflows.read_table(x).x, same.filled(np.nan))
    np.testing.assert_array_equal(npflows.stream_table(x).table().x, same.filled(np.nan))
    with pytest.raises(ValueError, match="x has NaN or infinite values in"):
        made().fit(x, progress=False)
    with pytest.warns(UserWarning, match="which have missing entries"):
        fitted = made().fit(x, missing="nan", max_epochs=0, progress=False, rng=0)
    assert (fitted.standardize.loc > -2).all()
    assert np.isnan(npflows.dask.score(flow, x).compute(scheduler="synchronous"))


def test_masked_entries_of_conditions_and_weights_are_missing():
    flow, x, (condition, same) = made(2), da.from_array(X, chunks=(300, 3)), masked(C)
    for given in (condition, same):
        found = npflows.dask.log_prob(flow, x, given).compute(scheduler="synchronous")
        np.testing.assert_array_equal(np.isnan(found), same.mask.any(axis=1))
    row = int(np.flatnonzero(same.mask[:, 0])[0])
    for given in (condition[row], same[row]):
        assert np.isnan(npflows.dask.log_prob(flow, x, given).compute(scheduler="synchronous")).all()
    for given in (abs(condition[:, 0]), abs(same[:, 0])):
        assert np.isnan(npflows.dask.score(made(), x, sample_weight=given).compute(scheduler="synchronous"))


def test_a_score_is_not_that_of_the_complete_rows_alone():
    table = pd.DataFrame(X, columns=["a", "b", "c"]).assign(w=1.0)
    table.loc[3, "b"] = np.nan
    frame = dd.from_pandas(table, npartitions=3)
    assert np.isnan(npflows.dask.score(made(), frame, sample_weight="w").compute(scheduler="synchronous"))
    assert np.isnan(npflows.dask.score(made(), frame[["a", "b", "c"]]).compute(scheduler="synchronous"))


def test_estimators_refuse_masked_entries():
    estimators = pytest.importorskip("npflows.sklearn")
    x, _ = masked()
    with pytest.raises(ValueError, match="NaN"):
        estimators.FlowDensity(max_epochs=1).fit(x)
    with pytest.raises(ValueError, match="NaN"):
        estimators.FlowDensity(max_epochs=1, random_state=0).fit(X).score_samples(x)


def test_records_are_columns_by_name():
    records = np.zeros(10, [("a", "f8"), ("b", "f8")])
    records["b"] = np.arange(10)
    x = da.from_array(records, chunks=4)
    for table in (npflows.read_table(x), npflows.stream_table(x).table()):
        assert table.columns == ["a", "b"]
        np.testing.assert_array_equal(table.x[:, 1], records["b"])


def test_a_data_frame_by_name_with_its_index():
    flow = made(2, columns=["a", "b", "c"])
    flow.condition_columns = ["u", "v"]
    table = pd.DataFrame({"c": X[:, 2], "v": C[:, 1], "a": X[:, 0], "u": C[:, 0], "b": X[:, 1]}, index=np.arange(1000) * 7)
    frame = dd.from_pandas(table, npartitions=4)
    found = npflows.dask.log_prob(flow, frame, ["v", "u"])
    assert found.npartitions == 4
    assert found.name == "log_prob"
    values = found.compute(scheduler="synchronous")
    np.testing.assert_array_equal(values, flow.log_prob(X, C))
    np.testing.assert_array_equal(values.index, table.index)
    few = frame[frame.a > 2.5]  # some partitions are empty
    assert len(npflows.dask.log_prob(flow, few, ["u", "v"]).compute(scheduler="synchronous")) == (X[:, 0] > 2.5).sum()


def test_scores_with_weights():
    flow, weight = made(), np.random.default_rng(2).random(1000)
    expected = np.average(flow.log_prob(X), weights=weight)
    x, w = da.from_array(X, chunks=(300, 3)), da.from_array(weight, chunks=300)
    assert float(npflows.dask.score(flow, x, sample_weight=w)) == pytest.approx(expected, rel=1e-12)
    assert float(npflows.dask.score(flow, x)) == pytest.approx(flow.log_prob(X).mean(), rel=1e-12)
    frame = dd.from_pandas(pd.DataFrame(X, columns=["a", "b", "c"]).assign(w=weight), npartitions=3)
    assert float(npflows.dask.score(flow, frame, sample_weight="w").compute()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("base", ["normal", "student_t"])
def test_samples_are_those_of_one_call_whatever_the_chunks(base):
    flow = made(1, base_distribution=base)
    expected = flow.sample(1000, 3, condition=[0.4])
    for chunks in (1000, 333, 1):
        found = npflows.dask.sample(flow, 1000 if chunks > 1 else 7, chunks, 3, condition=[0.4])
        np.testing.assert_array_equal(found.compute(scheduler="synchronous"), expected[: len(found)])
    first, second = np.random.default_rng(5), np.random.default_rng(5)
    npflows.dask.sample(flow, 10, rng=first, condition=[0.4])
    flow.sample(10, second, condition=[0.4])
    assert first.random() == second.random()  # the generator goes on as after flow.sample
    assert npflows.dask.sample(flow, 0, condition=[0.4]).shape == (0, 3)


def test_samples_on_circles():
    flow = registry.randomize(
        npflows.NeuralSplineFlow(2, 2, (8,), support=[npflows.support.periodic(0, 1), npflows.support.real()], rng=0)
    )
    found = npflows.dask.sample(flow, 500, 77, 1).compute(scheduler="synchronous")
    np.testing.assert_array_equal(found, flow.sample(500, 1))


def test_on_a_cluster_that_loses_a_worker(tmp_path):
    flow, x = made(), da.from_array(np.tile(X, (40, 1)), chunks=(500, 3))
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path), silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        log_prob = npflows.dask.log_prob(flow, x).persist()
        distributed.wait(log_prob)
        pids = client.run(os.getpid)
        os.kill(next(iter(pids.values())), signal.SIGKILL)
        np.testing.assert_array_equal(log_prob.compute(), np.tile(flow.log_prob(X), 40))
        threads = client.submit(_threads_of_a_task, flow).result()
    assert threads == 1


def _threads_of_a_task(flow):
    """How many threads npflows may use where `log_prob` is called in a task."""
    found = []

    class Probe(type(flow)):
        def log_prob(self, x, *args, **options):
            found.append(npflows.get_num_threads())
            return super().log_prob(x, *args, **options)

    flow.__class__ = Probe
    npflows.dask._log_probs(np.zeros((2, 3)), flow=flow, options={})
    return found[0]


def test_xarray_through_apply_ufunc():
    xr = pytest.importorskip("xarray")
    flow = made()
    posterior = xr.DataArray(X.reshape(250, 4, 3), dims=["draw", "chain", "parameter"])

    def density(x):
        return flow.log_prob(x.reshape(-1, x.shape[-1])).reshape(x.shape[:-1])

    for blocks in (posterior, posterior.chunk({"draw": 60})):
        found = xr.apply_ufunc(density, blocks, input_core_dims=[["parameter"]], dask="parallelized", output_dtypes=[float])
        np.testing.assert_array_equal(np.asarray(found).ravel(), flow.log_prob(X))


def test_wrong_input_is_refused_at_once():
    flow = made(2)
    with pytest.raises(TypeError, match="x must be a Dask array or data frame, got ndarray"):
        npflows.dask.log_prob(flow, X)
    with pytest.raises(ValueError, match=r"x must have shape \(n, 3\), got \(1000, 2\)"):
        npflows.dask.log_prob(flow, da.from_array(C))
    with pytest.raises(ValueError, match="one row for each of the 1000"):
        npflows.dask.log_prob(flow, da.from_array(X), C[:10])
    with pytest.raises(ValueError, match="x has no column z"):
        npflows.dask.log_prob(flow, dd.from_pandas(pd.DataFrame(X, columns=list("abc")), npartitions=1), ["z"])
    with pytest.raises(ValueError, match="one for all samples"):
        npflows.dask.sample(flow, 3, condition=C)


def test_the_command_scores_files_by_their_row_groups(tmp_path, capsys):
    parquet, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    flow = made()
    flow.columns = ["a", "b", "c"]
    flow.save(tmp_path / "flow.npz")
    for i in range(2):
        part = {name: X[i::2, d] for d, name in enumerate("abc")}
        parquet.write_table(pa.table(part), tmp_path / f"part-{i}.parquet", row_group_size=120)
    expected = flow.log_prob(np.concatenate([X[::2], X[1::2]]))
    pattern, out = str(tmp_path / "*.parquet"), tmp_path / "scores.npy"
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        command = ["score", str(tmp_path / "flow.npz"), pattern, "-o", str(out), "--dask", cluster.scheduler_address]
        assert main(command) == 0
        np.testing.assert_array_equal(np.load(out).ravel(), expected)
        assert main([*command, "--columns", "a,b,nothing"]) == 2
        assert "nothing" in capsys.readouterr().err
    assert main(["score", str(tmp_path / "flow.npz"), pattern, "-o", str(out)]) == 0
    np.testing.assert_array_equal(np.load(out).ravel(), expected)


def test_a_scheduler_that_does_not_answer_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("npflows.cli.clusters.SECONDS", 1)
    made().save(tmp_path / "flow.npz")
    np.save(tmp_path / "x.npy", X)
    assert main(["score", str(tmp_path / "flow.npz"), str(tmp_path / "x.npy"), "--dask", "tcp://127.0.0.1:9"]) == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err
