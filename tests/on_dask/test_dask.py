"""Flows on Dask arrays and data frames, in this process and on a cluster of two processes one of which is killed."""

import gc
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
    with pytest.raises(ValueError, match="x has masked or empty entries"):
        made().fit(x, progress=False)
    with pytest.warns(UserWarning, match="which have missing entries"):
        fitted = made().fit(x, missing="nan", max_epochs=0, progress=False, rng=0)
    assert (fitted.standardize.loc > -2).all()
    assert np.isnan(npflows.dask.score(flow, x).compute(scheduler="synchronous"))


def test_masked_entries_of_conditions_are_missing_and_of_weights_refused():
    flow, x, (condition, same) = made(2), da.from_array(X, chunks=(300, 3)), masked(C)
    for given in (condition, same):
        found = npflows.dask.log_prob(flow, x, given).compute(scheduler="synchronous")
        np.testing.assert_array_equal(np.isnan(found), same.mask.any(axis=1))
    row = int(np.flatnonzero(same.mask[:, 0])[0])
    for given in (condition[row], same[row]):
        assert np.isnan(npflows.dask.log_prob(flow, x, given).compute(scheduler="synchronous")).all()
    for given in (abs(condition[:, 0]), abs(same[:, 0])):
        with pytest.raises(ValueError, match="sample_weight"):
            npflows.dask.score(made(), x, sample_weight=given).compute(scheduler="synchronous")


def test_a_score_is_not_that_of_the_complete_rows_alone():
    table = pd.DataFrame(X, columns=["a", "b", "c"]).assign(w=1.0)
    table.loc[3, "b"] = np.nan
    frame = dd.from_pandas(table, npartitions=3)
    assert np.isnan(npflows.dask.score(made(), frame, sample_weight="w").compute(scheduler="synchronous"))
    assert np.isnan(npflows.dask.score(made(), frame[["a", "b", "c"]]).compute(scheduler="synchronous"))


def test_estimators_refuse_masked_entries():
    estimators = pytest.importorskip("npflows.sklearn")
    x, _ = masked()
    with pytest.raises(ValueError, match="X contains masked entries"):
        estimators.FlowDensity(max_epochs=1).fit(x)
    with pytest.raises(ValueError, match="X contains masked entries"):
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


def computed(collection):
    return collection.compute(scheduler="synchronous")


FRAME = pd.DataFrame(X, columns=list("abc")).assign(u=C[:, 0], v=C[:, 1])


def frame(columns="abc", npartitions=4):
    return dd.from_pandas(FRAME, npartitions=npartitions)[list(columns)]


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        (da.from_array(X, chunks=(300, 3)), lambda w: w),
        (da.from_array(X, chunks=(300, 3)), lambda w: w.tolist()),
        (da.from_array(X, chunks=(300, 3)), lambda w: da.from_array(1e-300 * w, chunks=170)),
        (frame(), lambda w: dd.from_pandas(pd.Series(w), npartitions=4)),
        (frame(), lambda w: da.from_array(1e300 * w, chunks=250)),
    ],
    ids=["array", "list", "small, of Dask", "frame and series", "frame and large, of Dask"],
)
def test_weights_of_every_kind_give_the_weighted_mean(x, weight):
    flow, w = made(), np.random.default_rng(2).random(1000)
    w[:300] = 0
    found = npflows.dask.score(flow, x, sample_weight=weight(w))
    assert float(computed(found)) == pytest.approx(np.average(flow.log_prob(X), weights=w), rel=1e-12)


def test_rows_of_weight_0_do_not_count():
    flow, x, w = made(), X.copy(), np.ones(1000)
    x[[3, 4]], w[[3, 4]] = [[np.inf], [np.nan]], 0
    found = npflows.dask.score(flow, da.from_array(x, chunks=(300, 3)), sample_weight=w)
    assert float(computed(found)) == pytest.approx(flow.log_prob(np.delete(X, [3, 4], axis=0)).mean(), rel=1e-12)
    assert np.isnan(computed(npflows.dask.score(flow, dd.from_pandas(pd.DataFrame(x, columns=list("abc")), npartitions=2))))


ONES = np.ones(1000)


@pytest.mark.parametrize(
    ("weight", "complaint"),
    [
        (ONES[:, None], r"sample_weight must have length 1000, one for each row, got shape \(1000, 1\)"),
        (da.from_array(ONES[:, None]), r"sample_weight must have shape \(n,\), .* got \(1000, 1\)"),
        (-ONES, "sample_weight must not be negative"),
        (da.from_array(-ONES), "sample_weight of a chunk must not be negative"),
        (0 * ONES, "sample_weight must not be all zero"),
        (da.from_array(0 * ONES, chunks=100), "sample_weight must not be all zero"),
        (da.from_array(np.nan * ONES), "sample_weight of a chunk must be finite"),
        (1.0, "got a single number"),
        (ONES[:7], r"must have length 1000, one for each row, got shape \(7,\)"),
        (da.from_array(ONES[:7]), "one row for each of the 1000 of x, got 7"),
        ("w", "names a column, and x is no data frame"),
    ],
    ids=str,
)
def test_what_are_no_weights_of_an_array(weight, complaint):
    with pytest.raises(ValueError, match=complaint):
        computed(npflows.dask.score(made(), da.from_array(X, chunks=(300, 3)), sample_weight=weight))


@pytest.mark.parametrize(
    ("weight", "complaint"),
    [
        (ONES, "must be the name of a column of it, or a series or array of Dask"),
        (da.from_array(ONES, chunks=500), "the 4 chunks of x, got 2"),
        (da.from_array(ONES, chunks=(100, 300, 300, 300)), "rows where x has 250"),
        (dd.from_pandas(pd.Series(ONES), npartitions=3), "the 4 partitions of x, got 3"),
        ("w", "x has no column w; it has a, b, c"),
        ("u", "sample_weight of a chunk must not be negative"),
    ],
    ids=str,
)
def test_what_are_no_weights_of_a_data_frame(weight, complaint):
    x = frame("abcu") if isinstance(weight, str) and weight == "u" else frame()
    with pytest.raises((ValueError, TypeError), match=complaint):
        computed(npflows.dask.score(made(), x, sample_weight=weight))


OTHERS = da.from_array(C[:, :1], chunks=(300, 1))[da.from_array(C[:, 1], chunks=300) > 1]
"""Rows of chunks whose sizes are unknown, and are others than those of x."""


@pytest.mark.parametrize(
    ("x", "condition", "complaint"),
    [
        ("array", da.from_array(C[:, 0]), r"condition must have shape \(n, 1\), got \(1000,\); condition\[:, None\]"),
        ("array", C[:, 0], r"condition must have shape \(n, 1\), got \(1000,\)"),
        ("array", da.from_array(C), r"condition must have shape \(n, 1\), got \(1000, 2\)"),
        ("array", ["u"], r"condition=\['u'\] names columns, and x is no data frame"),
        ("array", frame("u"), "condition of an array must be an array, got a Dask DataFrame"),
        ("array", None, "needs a condition of 1 values, and none was given"),
        ("unknown", OTHERS, "condition must have the chunks of x, and one has"),
        ("frame", frame("u", 3), "condition must have the 4 partitions of x, got 3"),
        ("frame", da.from_array(C[:, :1]), "must be one for all rows, a data frame, or names of columns"),
        ("frame", C[:, :1], "must be one for all rows, a data frame, or names of columns"),
        ("frame", ["a", "b"], "needs a condition of 1 values, and condition names 2 columns: a, b"),
        ("frame", None, "needs a condition of 1 values, and none was given"),
    ],
)  # fmt: skip
def test_conditions_that_do_not_fit(x, condition, complaint):
    array = da.from_array(X, chunks=(300, 3))
    given = {"array": array, "unknown": array[array[:, 0] > 0], "frame": frame()}[x]
    with pytest.raises((ValueError, TypeError), match=complaint):
        computed(npflows.dask.log_prob(made(1), given, condition))


def test_a_series_and_a_single_row_as_condition():
    flow = made(1)
    found = npflows.dask.log_prob(flow, frame(), dd.from_pandas(FRAME, npartitions=4).u)
    np.testing.assert_array_equal(computed(found), flow.log_prob(X, C[:, :1]))
    found = npflows.dask.log_prob(flow, da.from_array(X, chunks=(300, 3)), C[:1, :1])
    np.testing.assert_array_equal(computed(found), flow.log_prob(X, C[0, :1]))


def test_an_ensemble_is_a_density_too():
    ensemble = npflows.Ensemble([made(1), made(1)])
    ensemble.members[1].params = 1.2 * ensemble.members[1].params
    x, condition = da.from_array(X, chunks=(300, 3)), da.from_array(C[:, :1], chunks=(170, 1))
    expected = ensemble.log_prob(X, C[:, :1])
    np.testing.assert_array_equal(computed(npflows.dask.log_prob(ensemble, x, condition)), expected)
    assert float(npflows.dask.score(ensemble, x, condition)) == pytest.approx(expected.mean(), rel=1e-12)
    found = npflows.dask.sample(ensemble, 500, 77, 3, condition=[0.4])
    np.testing.assert_array_equal(computed(found), ensemble.sample(500, 3, condition=[0.4]))
    for ask in (npflows.dask.log_prob, npflows.dask.score):
        with pytest.raises(TypeError, match="flow must be a flow or an Ensemble, got int"):
            ask(7, x)


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
            n_workers=2, threads_per_worker=1, dashboard_address=":0", local_directory=str(tmp_path), silence_logs=50
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
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
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


@pytest.mark.parametrize("address", ["foo", "", "http://127.0.0.1:9", "tcp://127.0.0.1:nine"])
def test_what_is_no_address(tmp_path, capsys, address):
    made().save(tmp_path / "flow.npz")
    np.save(tmp_path / "x.npy", X)
    assert main(["score", str(tmp_path / "flow.npz"), str(tmp_path / "x.npy"), "--dask", address]) == 2
    gc.collect()
    said = capsys.readouterr().err
    assert f"--dask takes the address of a Dask scheduler, tcp://HOST:PORT, got {address!r}" in said
    assert said.count("\n") == 1


def test_a_scheduler_without_workers_is_waited_for_a_stated_while(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("npflows.cli.clusters.SECONDS_TO_WORKER", 1)
    made().save(tmp_path / "flow.npz")
    np.save(tmp_path / "x.npy", X)
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as cluster:
        address = cluster.scheduler_address
        assert main(["score", str(tmp_path / "flow.npz"), str(tmp_path / "x.npy"), "--dask", address]) == 2
    said = capsys.readouterr().err
    assert f"the Dask scheduler at {address} has no workers: waiting for one, 1 s at most" in said
    assert f"has got no worker in 1 s: start some by dask worker {address}" in said
