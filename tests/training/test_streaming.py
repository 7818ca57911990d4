"""Tables larger than memory: every row once an epoch, none on both sides, the same bits each time, and a good density."""

import numpy as np
import pytest

import npflows
from npflows.cli import main
from npflows.training import streaming
from npflows.training.missing import as_missing

N = 5000


def table(n=N):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3))
    x[:, 1] += x[:, 0] ** 2
    return x[np.argsort(x[:, 0])]  # sorted, as catalogs are


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The sizes of buffers a thousandth of what they are."""
    monkeypatch.setattr(streaming, "BUFFER", 1000)
    monkeypatch.setattr("npflows.training.streaming.IN_MEMORY", 1000)
    monkeypatch.setattr("npflows.files.tables.streams.ROWS", 300)


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "x.npy", table())
    return tmp_path / "x.npy"


def flow(**options):
    return npflows.MAF(3, 3, (16,), rng=0, **options)


OPTIONS = {"max_epochs": 6, "rng": 1, "progress": False, "batch_size": 128}


def test_a_stream_is_fitted_as_well_as_the_table(path):
    stream = npflows.stream_table(path)
    assert (len(stream), len(stream.sizes)) == (N, 17)
    made, right = flow().fit(stream, **OPTIONS), flow().fit(table(), **OPTIONS)
    new = table(4000)[::-1]
    assert abs(made.log_prob(new).mean() - right.log_prob(new).mean()) < 0.08
    np.testing.assert_allclose(made.standardize.loc, table().mean(axis=0), atol=0.05)
    assert made.effective_rows == pytest.approx(0.9 * N, rel=0.05)
    again = flow().fit(npflows.stream_table(np.load(path, mmap_mode="r")), **OPTIONS)
    np.testing.assert_array_equal(again.params, made.params)


def test_every_row_is_used_once_an_epoch_and_equal_rows_are_on_one_side(tmp_path):
    x = np.repeat(table(1500), 2, axis=0)
    np.save(tmp_path / "x.npy", x)
    made, stream = flow(), npflows.stream_table(tmp_path / "x.npy")
    rows = streaming.streamed(made, stream, made.headers, "raise", None, 0.2)
    with pytest.warns(UserWarning, match="rows equal rows before them"):
        sample, validation = rows.look_through()
    buffers = list(rows.buffers(np.random.default_rng(0)))
    taken = np.concatenate([buffer.take(np.arange(len(buffer)))[0] for buffer in buffers])
    assert len(taken) == rows.n == len(x) - 2 * len(validation)
    np.testing.assert_array_equal(np.unique(np.concatenate([taken, validation.x]), axis=0), np.unique(x, axis=0))
    assert not set(map(tuple, taken)) & set(map(tuple, validation.x))
    assert 0.1 < len(validation) / 1500 < 0.3
    first = buffers[0].take(np.arange(100))[0][:, 0]
    assert abs(np.corrcoef(first, np.arange(100))[0, 1]) < 0.4  # no longer sorted
    assert len(sample) == rows.n  # all, of so few


def test_streams_have_columns_weights_conditions_and_units(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    x = table()
    weight = np.where(x[:, 0] > 0, 1.0, 0.0)
    fields = [pyarrow.field(name, pyarrow.float64(), metadata={"unit": "km"} if name == "a" else None) for name in "abcw"]
    for i in range(3):
        part = [*x[i::3].T, weight[i::3]]
        made = pyarrow.table(dict(zip("abcw", part)), schema=pyarrow.schema(fields))
        parquet.write_table(made, tmp_path / f"part{i}.parquet", row_group_size=400)
    stream = npflows.stream_table(tmp_path, ["b", "a"], condition=["c"], weights="w")
    conditional = npflows.MAF(2, 2, (8,), condition_dim=1, rng=0)
    with pytest.warns(UserWarning, match=r"of 5,000 rows are left out: not chosen, of weight 0"):
        conditional.fit(stream, **{**OPTIONS, "max_epochs": 1})
    assert (conditional.columns, conditional.units, conditional.condition_columns) == (["b", "a"], [None, "km"], ["c"])
    assert conditional.standardize.loc[1] > 0.5  # of those with weight alone
    whole = npflows.stream_table(tmp_path, ["a"], where="a > 1").table()
    np.testing.assert_array_equal(np.sort(whole.x[:, 0]), np.sort(x[x[:, 0] > 1, 0]))
    scores = np.concatenate([conditional.log_prob(part, part.condition_table()) for part in stream])
    assert scores.shape == (N,)


@pytest.mark.parametrize("part", [np.s_[3000:], np.s_[::-3], np.s_[:, :2], np.s_[10:4000:7, 1:]])
@pytest.mark.parametrize("mode", ["r", "c"])
def test_a_part_of_a_memory_mapped_array_is_that_part(path, part, mode):
    mapped = np.load(path, mmap_mode=mode)
    if mode == "c":
        mapped[3333] = 77.0  # which the file does not have
    stream = npflows.stream_table(mapped[part])
    np.testing.assert_array_equal(stream.table().x, np.array(mapped)[part])
    np.testing.assert_array_equal(stream.read(len(stream.sizes) - 1).x[-1], np.array(mapped)[part][-1])


def test_records_that_are_memory_mapped(tmp_path):
    records = np.lib.format.open_memmap(tmp_path / "r.npy", "w+", [("a", "f8"), ("b", "f4")], (N,))
    records["a"], records["b"] = table()[:, :2].T
    for source in (records[700:], tmp_path / "r.npy"):
        found = npflows.stream_table(source).table()
        assert found.columns == ["a", "b"]
        np.testing.assert_array_equal(found.x[:, 0], records["a"][-len(found) :])
    grid = npflows.stream_table(records.reshape(-1, 5))
    assert (len(grid), len(grid.table())) == (N, N)


def test_what_is_no_array_of_numbers_is_refused_by_name(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([1, None], object))
    np.save(tmp_path / "number.npy", np.float64(3))
    (tmp_path / "junk.npy").write_text("hello")
    (tmp_path / "empty.npy").write_text("")
    for name, message in (
        ("objects", "can't be read as .npy"),
        ("number", r"must hold a table of shape \(rows, columns\)"),
        ("junk", "is text, and no npy file, which its name says"),
        ("empty", "is empty"),
    ):
        with pytest.raises(npflows.TableError, match=rf"{name}\.npy {message}"):
            npflows.stream_table(tmp_path / f"{name}.npy")


def test_files_that_are_named_together_are_one_stream(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    x = table() + np.array([0.0, 100.0, 200.0])
    parquet.write_table(pyarrow.table(dict(zip("abc", x[:3000].T))), tmp_path / "1.parquet", row_group_size=700)
    parquet.write_table(pyarrow.table(dict(zip("bca", x[3000:, [1, 2, 0]].T))), tmp_path / "2.parquet", row_group_size=700)
    out, files = str(tmp_path / "f.npz"), str(tmp_path / "*.parquet")
    for source in (files, str(tmp_path)):
        options = ["--epochs", "1", "--hidden", "8", "--layers", "1", "--quiet", "--stream"]
        assert main(["fit", source, "-o", out, *options]) == 0
        made = npflows.load(out)
        assert made.columns == ["a", "b", "c"]
        np.testing.assert_allclose(made.standardize.loc, x.mean(axis=0), atol=0.2)
    nameless = npflows.load(out)
    expected = nameless.log_prob(x)
    nameless.columns = None
    nameless.save(out)
    for source in (files, str(tmp_path)):
        assert main(["score", out, source, "-o", str(tmp_path / "s.npy"), "--quiet", "--stream"]) == 0
        np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), expected)


def test_blocks_of_dask_are_pieces(path):
    dask = pytest.importorskip("dask.array")
    blocks = dask.from_array(np.load(path), chunks=(700, 2))
    stream = npflows.stream_table(blocks)
    assert stream.sizes == [700] * 7 + [100]
    np.testing.assert_array_equal(stream.table().x, np.load(path))


def test_what_is_wrong_is_told_with_its_row(tmp_path):
    x = table()
    x[3100, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    stream = npflows.stream_table(tmp_path / "x.npy")
    with pytest.raises(ValueError, match=r"from its row 3,000: x has NaN or infinite values in 1 rows \(100\)"):
        flow().fit(stream, **OPTIONS)
    with pytest.warns(UserWarning, match="1 of 5,000 rows are left out"):
        flow().fit(stream, **{**OPTIONS, "max_epochs": 1, "on_invalid": "drop"})


def test_a_run_is_taken_up_with_the_same_bits(path, tmp_path):
    stream, file = npflows.stream_table(path), tmp_path / "c.npz"
    whole = flow().fit(stream, **OPTIONS)

    def stop(made, record):
        return record["epoch"] == 2

    flow().fit(stream, **OPTIONS, checkpoint=file, callbacks=stop)
    again = flow().fit(npflows.stream_table(path), **OPTIONS, checkpoint=file, resume=True)
    np.testing.assert_array_equal(again.params, whole.params)
    assert again.history["train_loss"] == whole.history["train_loss"]
    np.save(tmp_path / "other.npy", table() + 1)
    with pytest.raises(npflows.FlowFileError, match=r"training data is '.* rows of a stream, checksum"):
        flow().fit(npflows.stream_table(tmp_path / "other.npy"), **OPTIONS, checkpoint=file, resume=True)


def test_rows_to_validate_on_are_those_that_are_given(path):
    made = flow().fit(npflows.stream_table(path), validation_data=table(600)[::-1] + 0.01, **OPTIONS)
    assert made.effective_rows == N
    held_out = flow().fit(npflows.stream_table(path), **OPTIONS)
    assert abs(made.history["validation_loss"][-1] - held_out.history["validation_loss"][-1]) < 0.3


def test_logarithms_of_weights_are_weights(tmp_path):
    x = table()
    weight = np.exp(np.random.default_rng(3).normal(size=N))
    np.save(tmp_path / "w.npy", np.column_stack([x, weight]))
    np.save(tmp_path / "l.npy", np.column_stack([x, np.log(weight) - 3000]))
    by_weight = flow().fit(npflows.stream_table(tmp_path / "w.npy", [0, 1, 2], weights=3), **OPTIONS)
    by_log = flow().fit(npflows.stream_table(tmp_path / "l.npy", [0, 1, 2], log_weights=3), **OPTIONS)
    assert by_log.effective_rows == pytest.approx(by_weight.effective_rows, rel=1e-9)
    right = flow().fit(x, log_weight=np.log(weight), **OPTIONS)
    new = table(3000)
    for made in (by_log, by_weight):
        assert abs(made.log_prob(new).mean() - right.log_prob(new).mean()) < 0.1


def test_bounded_bases_know_the_ends_of_all_columns(path, monkeypatch):
    monkeypatch.setattr(streaming, "SAMPLE", 400)  # few of the rows, and not the farthest
    made = npflows.NeuralSplineFlow(3, 1, (8,), base_distribution="uniform", rng=0)
    made.fit(npflows.stream_table(path), **{**OPTIONS, "max_epochs": 0})
    inside = (table() - made.standardize.loc) / made.standardize.scale
    low, high = made.base.support
    assert ((inside > low) & (inside < high)).all()
    right = npflows.NeuralSplineFlow(3, 1, (8,), base_distribution="uniform", rng=0)
    right.fit(table(), **{**OPTIONS, "max_epochs": 0})
    np.testing.assert_allclose(made.standardize.scale, right.standardize.scale, rtol=1e-12)


def test_missing_entries_are_filled_in(tmp_path):
    x = table()
    hidden = np.random.default_rng(5).random(N) < 0.2
    x[hidden, 2] = 99.0
    np.save(tmp_path / "x.npy", x)
    declared = {"missing": {2: 99.0}, "on_missing": "impute"}
    made = flow().fit(npflows.stream_table(tmp_path / "x.npy"), **OPTIONS, **declared)
    assert made.effective_rows == pytest.approx(0.9 * N, rel=0.05)
    new = table(3000)
    right = flow().fit(table(), **OPTIONS)
    assert abs(made.log_prob(new).mean() - right.log_prob(new).mean()) < 0.1
    dropped = flow()
    with pytest.warns(UserWarning, match="rows are left out: not chosen, of weight 0, or with missing"):
        dropped.fit(npflows.stream_table(tmp_path / "x.npy"), **OPTIONS, missing={2: 99.0})
    assert dropped.effective_rows == pytest.approx(0.9 * (~hidden).sum(), rel=0.05)


def test_null_integers_of_a_later_piece_are_no_numbers(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    whole = np.arange(N) % 37
    values = [None if 3000 < i < 3100 else int(whole[i]) for i in range(N)]
    columns = {"a": pyarrow.array(values), "b": pyarrow.array(np.arange(N))}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet", row_group_size=500)
    stream = npflows.stream_table(tmp_path / "t.parquet")
    made = npflows.MAF(2, 1, (8,), rng=0)
    rows = streaming.streamed(made, stream, made.headers, "raise", as_missing(made.headers, "nan", "drop"), 0.0)
    with pytest.warns(UserWarning, match="99 of 5,000 rows are left out"):
        rows.look_through()
    taken = np.concatenate([buffer.x for buffer in rows.buffers(np.random.default_rng(0))])
    assert len(taken) == N - 99
    assert set(taken[:, 0]) == set(range(37))


def test_what_is_large_of_dask_is_streamed_by_fit(path):
    dask = pytest.importorskip("dask.array")
    blocks = dask.from_array(np.load(path), chunks=(700, 2))
    made = flow().fit(blocks, **OPTIONS)
    np.testing.assert_array_equal(made.params, flow().fit(npflows.stream_table(blocks), **OPTIONS).params)


def test_what_streams_can_not_do_is_refused(path, tmp_path):
    stream = npflows.stream_table(path)
    for more, message in (
        ({"sample_weight": np.ones(N)}, "a stream brings its weights and condition with it.* leave out sample_weight"),
        ({"log_weight": np.ones(N)}, "leave out log_weight, and name their columns in stream_table"),
    ):
        with pytest.raises(ValueError, match=message):
            flow().fit(stream, **OPTIONS, **more)
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(
        npflows.TableError, match=r"is text, which can't be read in pieces: write it as Parquet, Arrow or .npy"
    ):
        npflows.stream_table(tmp_path / "t.csv")


def test_the_command_line_streams_with_conditions_and_where(tmp_path, capsys):
    x = table()
    np.save(tmp_path / "x.npy", x)
    file, out = str(tmp_path / "x.npy"), str(tmp_path / "f.npz")
    small_flow = ["--epochs", "1", "--hidden", "8", "--layers", "1", "--quiet", "--condition", "2", "--where", "`0` > 0"]
    assert main(["fit", file, "-o", out, "--stream", *small_flow]) == 0
    made = npflows.load(out)
    assert (made.input_dim, made.condition_dim) == (2, 1)
    assert made.standardize.loc[0] > 0.5
    scores = [str(tmp_path / name) for name in ("a.npy", "b.npy")]
    for score, more in zip(scores, ([], ["--stream"])):
        assert main(["score", out, file, "-o", score, "--columns", "0,1", "--condition", "2", "--quiet", *more]) == 0
    np.testing.assert_array_equal(*map(np.load, scores))
    assert main(["fit", file, "-o", out, "--stream", "--burn-in", "3"]) == 2
    assert "--stream takes no --burn-in and --table" in capsys.readouterr().err
