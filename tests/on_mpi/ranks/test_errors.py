"""A rank that stops stops all others, and ranks that disagree are told so.  See `test_fits`."""

import numpy as np
import pytest

import npflows

mpi = pytest.importorskip("mpi4py.MPI")
WORLD = mpi.COMM_WORLD
LAST = WORLD.size - 1
SEVERAL = pytest.mark.skipif(WORLD.size < 2, reason="needs two ranks")


def maf(rng: int = 0, **options) -> npflows.MAF:
    return npflows.MAF(3, num_layers=1, hidden_dims=(8,), rng=rng, **options)


def rows(n: int = 200, d: int = 3) -> np.ndarray:
    return np.random.default_rng(WORLD.rank).standard_normal((n, d))


def last(one, other):
    """One value on all ranks but the last."""
    return other if WORLD.rank == LAST else one


QUICK = {"max_epochs": 1, "progress": False, "comm": WORLD}


@SEVERAL
@pytest.mark.parametrize(
    ("flow", "arguments", "named"),
    [
        ({}, {"learning_rate": (1e-3, 2e-3)}, "learning_rate: 0.001 on rank 0, 0.002 on rank"),
        ({}, {"rng": (0, 1)}, "rng: 0 on rank 0, 1 on rank"),
        ({}, {"max_seconds": (None, 10)}, "max_seconds"),
        ({}, {"batch_size": (64, 65)}, "batch_size"),
        ({}, {"standardize": (True, False)}, "standardize"),
        ({}, {"exact": (True, False)}, "exact"),
        ({"rng": (0, 1)}, {}, "parameters"),
        ({"activation": ("relu", "tanh")}, {}, "the flow's"),
        ({"dtype": ("float32", "float64")}, {}, "dtype"),
    ],
    ids=str,
)
def test_settings_that_differ_are_named(flow, arguments, named):
    made = maf(**{name: last(*values) for name, values in flow.items()})
    before = made.params
    options = {"rng": 0, **{name: last(*values) for name, values in arguments.items()}}
    with pytest.raises(ValueError, match="the ranks disagree in ") as caught:
        made.fit(rows(), **QUICK, **options)
    assert named in str(caught.value)
    np.testing.assert_array_equal(made.params, before)


@SEVERAL
def test_tables_that_differ_are_named():
    with pytest.raises(ValueError, match="the ranks disagree in the dtype of x: float64 on rank 0, float32 on rank"):
        maf().fit(rows().astype(last(np.float64, np.float32)), rng=0, **QUICK)
    with pytest.raises(ValueError, match="the ranks disagree in whether there is sample_weight"):
        maf().fit(rows(), sample_weight=last(np.ones(200), None), rng=0, **QUICK)
    names = last(["a", "b", "c"], ["a", "b", "d"])
    with pytest.raises(ValueError, match="the ranks disagree in the columns of x"):
        maf().fit(npflows.Table(rows(), names), rng=0, **QUICK)


@SEVERAL
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"max_epochs": (1, 10)}, "max_epochs: 1 on rank 0, 10 on rank"),
        ({"bootstrap": ("rows", None)}, "bootstrap"),
        ({"missing": (None, 99.0)}, "missing"),
        ({"validation_data": (rows(20), None)}, "whether there is validation_data"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_of_ensembles_that_differ_are_named(arguments, named):
    given = {name: last(*values) for name, values in arguments.items()}
    with pytest.raises(ValueError, match=f"the ranks disagree in {named}"):
        npflows.Ensemble.fit(maf, rows(), 2, rng=0, **{**QUICK, **given})


def test_a_setting_that_one_rank_leaves_out_is_that_of_the_others():
    given = last({"patience": 15, "missing": float("nan")}, {"missing": [float("nan")][0]})
    assert len(npflows.Ensemble.fit(maf, rows(), 2, rng=0, **QUICK, **given)) == 2


def raised_by_the_last(kind: type[Exception], message: str, run) -> None:
    """The last rank raises an error of its own, and all others one that says so."""
    if WORLD.rank == LAST:
        with pytest.raises(kind, match=message):
            run()
    else:
        with pytest.raises(RuntimeError, match=f"rank {LAST} of {WORLD.size} has stopped by an error: {kind.__name__}: "):
            run()


@SEVERAL
def test_a_shard_with_other_columns_stops_all():
    raised_by_the_last(ValueError, "3 columns", lambda: maf().fit(rows(d=last(3, 4)), rng=0, **QUICK))
    raised_by_the_last(ValueError, "length 200",
                       lambda: maf().fit(rows(), sample_weight=np.ones(last(200, 199)), rng=0, **QUICK))  # fmt: skip


@SEVERAL
def test_an_error_in_the_middle_stops_all():
    def callback(flow, record):
        if WORLD.rank == LAST and record["epoch"] == 2:
            raise KeyError("of this rank")

    flow = maf()
    raised_by_the_last(KeyError, "of this rank",
                       lambda: flow.fit(rows(), rng=0, callbacks=callback, **{**QUICK, "max_epochs": 5}))  # fmt: skip
    assert len(flow.history["epoch"]) >= 2
    maf().fit(rows(), rng=0, **QUICK)  # and the next fit finds nothing of it


@SEVERAL
def test_a_target_that_fails_on_one_rank_stops_all():
    calls = []

    def target(x):
        calls.append(len(x))
        if WORLD.rank == LAST and len(calls) > 5:
            raise ZeroDivisionError("in the target")
        return -0.5 * (x**2).sum(axis=1), -x

    raised_by_the_last(ZeroDivisionError, "in the target", lambda: maf().fit_variational(
        target, max_steps=50, rng=0, batch_size=512, progress=False, comm=WORLD))  # fmt: skip


def test_invalid_rows_are_numbered_in_the_whole_table():
    x = rows()
    if WORLD.rank == LAST:
        x[7, 1] = np.nan
    flow = maf()
    with pytest.raises(ValueError, match=rf"NaN or infinite values in 1 rows \({200 * LAST + 7}\), columns 1"):
        flow.fit(x, rng=0, **QUICK)
    assert not flow.history


def test_a_callback_of_one_rank_ends_all():
    flow = maf().fit(rows(), rng=0, callbacks=lambda flow, record: WORLD.rank == LAST and record["epoch"] == 3,
                     **{**QUICK, "max_epochs": 9})  # fmt: skip
    assert len(flow.history["epoch"]) == 3


def test_no_rows_on_any_rank():
    with pytest.raises(ValueError, match="x is empty"):
        maf().fit(np.empty((0, 3)), rng=0, **QUICK)


def test_what_is_no_communicator():
    with pytest.raises(TypeError, match="comm must be a communicator of mpi4py"):
        maf().fit(rows(), max_epochs=1, comm="world")
