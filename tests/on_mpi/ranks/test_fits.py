"""Fits on several ranks have the bits of one process.

Run by `mpiexec -n N python -m pytest tests/on_mpi/ranks`: every rank runs every test, fits all rows by itself, and then its
own with the others.
"""

import warnings

import numpy as np
import pytest

import npflows
from npflows.support import integer

mpi = pytest.importorskip("mpi4py.MPI")
WORLD = mpi.COMM_WORLD
N = 1501

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def table(seed: int = 5) -> np.ndarray:
    """Rows with copies among them."""
    x = np.random.default_rng(seed).standard_normal((N, 3))
    x[:, 1] += x[:, 0] ** 2
    x[100:130] = x[200:230]
    return x


def shard(values: np.ndarray | None, comm, seed: int = 0) -> np.ndarray | None:
    """The rows of this rank: shards of different sizes, of which one is empty where there are three or more."""
    if values is None:
        return None
    places = np.sort(np.random.default_rng([seed, comm.size]).choice(len(values), comm.size - 1, replace=False))
    places = [0, *places.tolist(), len(values)]
    if comm.size > 2:
        places[1] = 0
    return values[places[comm.rank] : places[comm.rank + 1]]


def same(one: npflows.NormalizingFlow, other: npflows.NormalizingFlow) -> None:
    """Two flows that were fitted alike, to the bit, history included."""
    np.testing.assert_array_equal(one.params, other.params)
    np.testing.assert_array_equal(one.standardize.loc, other.standardize.loc)
    np.testing.assert_array_equal(one.standardize.scale, other.standardize.scale)
    for name in one.history.keys() - {"seconds"}:
        np.testing.assert_array_equal(one.history[name], other.history[name], err_msg=name)
    assert one.effective_rows == other.effective_rows


def maf(**options) -> npflows.MAF:
    return npflows.MAF(3, num_layers=2, hidden_dims=(16,), rng=0, **options)


CASES = {
    "plain": {},
    "weights": {"sample_weight": True},
    "log weights": {"log_weight": True},
    "a condition": {"condition": True},
    "a large batch": {"batch_size": 2000},
    "nine blocks in eight buffers": {"batch_size": 1100},
    "dropout": {"dropout": 0.2, "batch_size": 700},
    "float32 rows": {"dtype": np.float32},
    "missing entries": {"missing": "nan", "on_missing": "impute"},
    "dropped rows": {"missing": "nan"},
    "no validation": {"validation_fraction": 0.0, "ema": None},
    "plateau": {"schedule": "plateau", "patience": 4},
    "given validation rows": {"validation": True},
    "outliers": {"outlier": True},
}


@pytest.mark.parametrize("case", CASES)
def test_bits_are_those_of_one_process_that_has_all_rows(case):
    options = {"rng": 3, "max_epochs": 3, "progress": False, **CASES[case]}
    x = table().astype(options.pop("dtype", np.float64))
    if "missing" in options:
        x[::7, 1] = np.nan
    if options.pop("outlier", False):
        x[N // 2] = 1e6
    random = np.random.default_rng(1)
    given = {}
    if options.pop("sample_weight", False):
        given["sample_weight"] = random.random(N) * (random.random(N) > 0.1)
    if options.pop("log_weight", False):
        given["log_weight"] = 100 * random.standard_normal(N) * (random.random(N) > 0.9)
    flow_options = options.pop("flow", {})
    if options.get("condition"):
        flow_options = {"condition_dim": 2}
        given["condition"] = np.column_stack([x[:, 0] > 0, random.standard_normal(N)])
        options.pop("condition")
    if options.pop("validation", False):
        given.update(validation_data=table(6)[:300], validation_weight=random.random(300))
    alone = maf(**flow_options).fit(x, **given, **options)
    parts = {name: shard(values, WORLD, len(values)) for name, values in given.items()}
    together = maf(**flow_options).fit(shard(x, WORLD, N), **parts, **options, comm=WORLD)
    same(alone, together)


def test_layers_that_start_from_the_data_see_the_whole_table():
    x = table()
    options = {"rng": 0, "max_epochs": 2, "progress": False}
    alone, together = (npflows.RealNVP(3, 2, (16,), actnorm=True, rng=0) for _ in range(2))
    same(alone.fit(x, **options), together.fit(shard(x, WORLD), **options, comm=WORLD))


def test_whole_numbers_are_scattered_alike():
    x = table()
    x[:, 2] = np.clip(np.round(20 * x[:, 2]), -50, 50)
    options = {"rng": 0, "max_epochs": 2, "progress": False}
    same(
        maf(support={2: integer(-50, 50)}).fit(x, **options),
        maf(support={2: integer(-50, 50)}).fit(shard(x, WORLD), **options, comm=WORLD),
    )


def test_a_second_fit_goes_on_from_the_first():
    x, options = table(), {"rng": 0, "max_epochs": 2, "progress": False}
    alone = maf().fit(x, **options).fit(x[::-1], **options)
    together = maf().fit(shard(x, WORLD), **options, comm=WORLD).fit(shard(x[::-1], WORLD), **options, comm=WORLD)
    same(alone, together)


def test_a_table_with_names_and_units_is_read_by_them():
    x = table()
    with warnings.catch_warnings():
        whole = npflows.Table(x, ["a", "b", "c"], ["mag", None, "km"], sample_weight=np.arange(N) + 1.0)
        part = npflows.Table(shard(x, WORLD), ["a", "b", "c"], ["mag", None, "km"],
                             sample_weight=shard(np.arange(N) + 1.0, WORLD))  # fmt: skip
    options = {"rng": 0, "max_epochs": 1, "progress": False}
    alone, together = maf().fit(whole, **options), maf().fit(part, **options, comm=WORLD)
    same(alone, together)
    assert together.columns == ["a", "b", "c"]
    assert together.units == ["mag", None, "km"]


def test_a_checkpoint_is_resumed_by_another_number_of_ranks(tmp_path):
    path = WORLD.bcast(tmp_path / "run.npz")
    x, options = table(), {"rng": 0, "checkpoint": path, "schedule": "constant", "progress": False}
    alone = maf().fit(x, **{**options, "checkpoint": tmp_path / f"alone_{WORLD.rank}.npz"}, max_epochs=4)
    maf().fit(shard(x, WORLD), **options, max_epochs=2, comm=WORLD)
    some = WORLD.Split(WORLD.rank > 0)
    if WORLD.rank:  # all but the first
        same(alone, maf().fit(shard(x, some), **options, max_epochs=4, resume=True, comm=some))
    WORLD.Barrier()
    if not WORLD.rank:  # a single process
        same(alone, maf().fit(x, **options, max_epochs=4, resume=True))
    some.Free()


def test_the_sum_of_mpi_is_the_same_but_for_rounding():
    x, options = table(), {"rng": 0, "max_epochs": 2, "batch_size": 700, "progress": False}
    alone = maf().fit(x, **options)
    together = maf().fit(shard(x, WORLD), **options, comm=WORLD, exact=False)
    np.testing.assert_allclose(together.params, alone.params, atol=1e-4)
    assert len(set(WORLD.allgather(together.params.tobytes()))) == 1


def test_time_ends_all_ranks_at_the_same_step():
    flow = maf().fit(shard(table(), WORLD), rng=0, max_epochs=10_000, max_seconds=0.5, progress=False, comm=WORLD)
    assert len(set(WORLD.allgather((flow.params.tobytes(), len(flow.history["epoch"]))))) == 1


def test_rank_0_alone_warns():
    x = table()
    x[:, 2] = 1.0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        maf().fit(shard(x, WORLD), rng=0, max_epochs=1, progress=False, comm=WORLD)
    assert any("is constant" in str(one.message) for one in caught) == (WORLD.rank == 0)


def target(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A banana, whose bits don't depend on how many samples there are."""
    u = x[:, 1] - x[:, 0] ** 2
    log_p = -0.5 * (x[:, 0] ** 2 + u**2 / 0.25 + x[:, 2] ** 2)
    slope = np.stack([-x[:, 0] + 2 * x[:, 0] * u / 0.25, -u / 0.25, -x[:, 2]], axis=1)
    return log_p, slope


@pytest.mark.parametrize("options", [{}, {"tempering": 0.5}, {"sticking_the_landing": False}, {"validation_size": 0}],
                         ids=str)  # fmt: skip
def test_samples_of_a_variational_fit_are_shared_out(options):
    options = {"rng": 1, "max_steps": 20, "steps_per_round": 5, "batch_size": 300, "progress": False, **options}
    same_history = [maf().fit_variational(target, **options, comm=comm) for comm in (None, WORLD)]
    np.testing.assert_array_equal(same_history[0].params, same_history[1].params)
    for name in same_history[0].history.keys() - {"seconds"}:
        np.testing.assert_array_equal(same_history[0].history[name], same_history[1].history[name])


def test_a_step_whose_target_is_not_finite_somewhere_is_skipped_by_all():
    def bad(x):
        log_p, slope = target(x)
        return np.where(x[:, 0] > 2.5, np.nan, log_p), slope

    options = {"rng": 1, "max_steps": 20, "steps_per_round": 10, "batch_size": 100, "progress": False, "validation_size": 0}
    alone, together = (maf().fit_variational(bad, **options, comm=comm) for comm in (None, WORLD))
    assert sum(together.history["skipped_steps"]) > 0
    assert alone.history["skipped_steps"] == together.history["skipped_steps"]
    np.testing.assert_array_equal(alone.params, together.params)


@pytest.mark.parametrize("options", [{}, {"bootstrap": "rows"}, {"sample_weight": True}], ids=str)
def test_members_of_an_ensemble_are_dealt_to_the_ranks(options):
    x, weight = table()[:400], np.arange(400.0) if options.pop("sample_weight", False) else None
    options = {"n": 3, "rng": 0, "max_epochs": 1, "progress": False, **options}
    make = lambda seed: npflows.MAF(3, 1, (8,), rng=seed)  # noqa: E731
    alone = npflows.Ensemble.fit(make, x, sample_weight=weight, processes=1, **options)
    together = npflows.Ensemble.fit(make, shard(x, WORLD), sample_weight=shard(weight, WORLD), comm=WORLD, **options)
    for one, other in zip(alone, together):
        same(one, other)


@pytest.mark.parametrize("bootstrap", [None, "rows"])
@pytest.mark.parametrize("kind", ["Table", "mapping"])
def test_ensembles_of_every_kind_of_table(kind, bootstrap):
    x, weight = table()[:400], np.arange(400.0)

    def given(shard):
        if kind == "Table":
            return npflows.Table(shard(x), ["a", "b", "c"], ["km", None, None], sample_weight=shard(weight))
        return {"a": shard(x[:, 0]), "b": shard(x[:, 1]), "c": shard(x[:, 2])}

    options = {"n": 3, "rng": 0, "max_epochs": 1, "progress": False, "bootstrap": bootstrap}
    make = lambda seed: npflows.MAF(3, 1, (8,), rng=seed)  # noqa: E731
    alone = npflows.Ensemble.fit(make, given(np.asarray), validation_data=given(np.asarray), processes=1, **options)
    mine = given(lambda rows: shard(rows, WORLD))
    together = npflows.Ensemble.fit(make, mine, validation_data=mine, comm=WORLD, **options)
    assert together.columns == alone.columns == ["a", "b", "c"]
    assert together.units == alone.units
    for one, other in zip(alone, together):
        same(one, other)
