"""Arrays of .npz files: which of them is the table, what stands beside it, and what other zip archives look like."""

import zipfile

import numpy as np
import pytest

from npflows.files.tables import TableError, read_table

X = np.random.default_rng(0).normal(size=(40, 3))
W = np.random.default_rng(1).uniform(1, 2, 40)
CHAIN, LOG_PROB = X[:, :2].reshape(5, 8, 2), X[:, 0].reshape(5, 8)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "t.npz"


@pytest.mark.parametrize("beside", [{"log_prob": LOG_PROB}, {"lp_of_walkers": LOG_PROB}, {"accepted": np.ones(8)}, {}])
@pytest.mark.parametrize("name", ["chain", "samples"])
def test_chains_are_no_table_whatever_stands_beside_them(name, beside, path):
    np.savez(path, **{name: CHAIN}, **beside)
    message = rf"array '{name}', must hold a table .*: reshape chains \(draw, chain, 2\) to \(-1, 2\)"
    with pytest.raises(TableError, match=message):
        read_table(path)
    np.savez(path, flat=CHAIN.reshape(-1, 2), **{name: CHAIN}, **beside)
    np.testing.assert_array_equal(read_table(path).x, CHAIN.reshape(-1, 2))


@pytest.mark.parametrize("weights", [W, W[:, None]])
def test_weights_of_one_column_are_weights(weights, path):
    np.savez(path, samples=X, weights=weights)
    with pytest.warns(UserWarning, match=r"left out weights \(beside the table\); pass weights='weights'"):
        assert read_table(path).left_out == {"weights": "beside the table"}
    np.testing.assert_array_equal(read_table(path, weights="weights").sample_weight, W)


def test_columns_beside_the_table_are_listed_and_may_be_the_condition(path):
    np.savez(path, x=X, theta=X[:, :2] + 1, z=W, info=np.array([{}], object), note="made by hand", logz=-3.0)
    with pytest.warns(UserWarning, match=r"left out theta\[0\] \(beside the table\), theta\[1\] .*, z \(beside"):
        read = read_table(path)
    assert list(read.left_out) == ["theta[0]", "theta[1]", "z", "info", "note", "logz"]
    read = read_table(path, condition=["theta", "z"], columns=[0, 1])
    np.testing.assert_array_equal(read.condition, np.column_stack([X[:, :2] + 1, W]))
    assert read.condition_columns == ["theta[0]", "theta[1]", "z"]
    with pytest.raises(TableError, match=r"the array 'logz' has shape \(\), and the table has 40 rows"):
        read_table(path, [0], weights="logz")
    with pytest.raises(TableError, match=r"has no column 'theto'; .* without names; beside them theta\[0\], theta\[1\], z"):
        read_table(path, [0], condition="theto")


def test_objects_are_listed_and_not_loaded(path):
    np.savez(path, samples=X, weights=W.astype(object))
    with pytest.warns(UserWarning, match=r"left out weights \(Python objects\)"):
        assert read_table(path).left_out == {"weights": "Python objects"}
    with pytest.raises(TableError, match="the array 'weights' holds Python objects, which are not loaded"):
        read_table(path, weights="weights")


def test_an_array_for_each_column_may_have_a_second_axis_of_one(path):
    np.savez(path, a=X[:, 0], b=X[:, [1]], weights=W, logz=-3.0)
    with pytest.warns(UserWarning, match=r"left out weights .*; pass weights='weights'"):
        read = read_table(path)
    assert (read.columns, list(read.left_out)) == (["a", "b"], ["weights", "logz"])
    np.testing.assert_array_equal(read.x, X[:, :2])
    np.savez(path, samples=X[:, 0], weights=W)
    np.testing.assert_array_equal(read_table(path, weights="weights").x, X[:, :1])


def test_a_single_array_of_one_column_is_the_table_and_records_have_arrays_beside_them(path):
    np.savez(path, theta=X[:, [0]])
    np.testing.assert_array_equal(read_table(path).x, X[:, [0]])
    np.savez(path, rows=np.rec.fromarrays(X.T, names="a,b,c"), weights=W)
    np.testing.assert_array_equal(read_table(path, weights="weights").sample_weight, W)


def test_what_is_wanted_alone_is_read(path):
    large = np.zeros(100000)
    np.savez(path, x=np.zeros((100000, 2)), broken=large)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5000] + b"\x01" + whole[-4999:])
    with pytest.warns(UserWarning, match=r"left out broken \(beside the table\)"):
        assert read_table(path).x.shape == (100000, 2)
    with pytest.raises(TableError, match=r"is not a complete \.npz file of arrays .*broken"):
        read_table(path, weights="broken")


@pytest.mark.parametrize(("members", "message"), [
    (["[Content_Types].xml", "xl/workbook.xml"], "looks like an Excel file, which is no format of tables here"),
    (["mimetype", "content.xml"], "looks like an OpenDocument file"),
    (["archive/data.pkl", "archive/version"], "looks like a file of PyTorch"),
    (["table.csv"], r"is a zip archive of table\.csv, and no \.npz file of arrays: unpack it first"),
])  # fmt: skip
def test_other_zip_archives_are_named(members, message, tmp_path):
    for name in ("t.xlsx", "t.csv.zip", "t.npz"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member in members:
                archive.writestr(member, "a,b\n1,2\n")
        with pytest.raises(TableError, match=message):
            read_table(tmp_path / name)
