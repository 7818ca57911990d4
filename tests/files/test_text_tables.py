"""Text as it comes: headers of every kind, white space, compression, marks of what is missing, chains of samplers."""

import gzip

import numpy as np
import pytest

from npflows.files.tables import TableError, read_table, text

X = [[1, 2], [3, 4]]

AS_WRITTEN = {
    "csv": ("a,b\n1,2\n3,4\n", ["a", "b"]),
    "white space": ("a b\n1  2\n 3\t4\n", ["a", "b"]),
    "numbers in columns": (" 1 2\n 3 4\n", None),
    "numbers with commas": ("1.0,2\n3,4\n", None),
    "np.savetxt": ("# a b\n1 2\n3 4\n", ["a", "b"]),
    "np.savetxt with commas": ("# made by hand\n# a,b\n1,2\n3,4\n", ["a", "b"]),
    "a comment that is no header": ("# two columns of numbers\n1 2\n3 4\n", None),
    "comments at the end": ("a,b\n1,2\n# half way\n3,4\n#\n#  Elapsed Time\n", ["a", "b"]),
    "Fortran": ("  0.1D+01 2.0d0\n 3.0D0 4.0E0\n", None),
    "Fortran without room for the letter": (" 1.0+000 0.2+001\n 0.3+001 0.4+001\n", None),
    "quotes": ('"a","b"\n"1","2"\n"3","4"\n', ["a", "b"]),
    "names with spaces": ("a; b\n1;2\n3;4\n", ["a", "b"]),
    "Windows": ("\ufeffa,b\r\n1,2\r\n3,4\r\n", ["a", "b"]),
    "booleans": ("a,b\nTrue,2\n3,4\n", ["a", "b"]),
}


@pytest.mark.parametrize("case", AS_WRITTEN)
def test_text_is_read_whatever_wrote_it(case, tmp_path):
    text, names = AS_WRITTEN[case]
    path = tmp_path / "table.txt"
    path.write_text(text, encoding="utf-8", newline="")
    read = read_table(path)
    assert read.columns == names
    np.testing.assert_array_equal(read.x, X)
    packed = tmp_path / "table.txt.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(read_table(packed).x, X)


def test_no_row_is_lost_to_a_header_that_is_none(tmp_path):
    path = tmp_path / "bare.csv"
    np.savetxt(path, np.random.default_rng(0).normal(size=(50, 3)), delimiter=",")
    assert read_table(path).x.shape == (50, 3)


@pytest.mark.parametrize("mark", ["", "NA", "null", "NULL", "nan", "N/A", "None", "<NA>", "--"])
def test_marks_of_what_is_missing_are_nan(mark, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(f"a,b\n1,{mark}\n3,4\n")
    np.testing.assert_array_equal(read_table(path).x, [[1, np.nan], [3, 4]])


REFUSED = {
    "an underscore, which Python takes": ("a,b\n9801_3,2\n", r"line 2, column a: '9801_3' is not a number"),
    "a decimal comma": ("a;b\n1,5;2\n", r"line 2, column a: '1,5' is not a number \(numbers have decimal points here"),
    "a row that is cut off": ("a,b\n1,2\n3\n", r"line 3: 1 fields, the header has 2"),
    "row names without a name": ("a,b\nx,1,2\n", r"line 2: 3 fields, the header has 2 \(row names\?"),
    "text": ("name,b\nM31,2\n", r"line 2, column name: 'M31' is not a number"),
    "a web page": ("<!DOCTYPE html>\n<html>", "is a web page, not a table: was a login or an error page saved"),
    "nothing": ("", "is empty; it should start with a line of column names"),
    "comments alone": ("# a b\n", "has no line of numbers"),
    "names that come twice": ("a,b,a\n1,2,3\n", "has more than one column named 'a'; choose columns by number"),
    "JSON": ('{"a": [1]}', "is JSON, but no result of bilby with a posterior"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_table_of_numbers_is_refused_with_its_place(case, tmp_path):
    text, message = REFUSED[case]
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(TableError, match=message.replace("by number", "by (their )?number")):
        read_table(path)


def test_wanted_columns_may_be_numbers_where_others_are_text_or_have_one_name(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("name,b,b,c\nM31,1,5,2\nM33,3,6,4\n")
    np.testing.assert_array_equal(read_table(path, ["c", "1"]).x, [[2, 1], [4, 3]])
    with pytest.raises(TableError, match="more than one column named 'b'; say which by its number"):
        read_table(path, ["b"])


def test_many_columns_are_named_in_linear_time(tmp_path):
    path, n = tmp_path / "wide.csv", 20000
    path.write_text(",".join(f"c{i}" for i in range(n)) + "\n" + ",".join("1" * 1 for _ in range(n)) + "\n")
    assert read_table(path).x.shape == (1, n)


CHAINS = {
    "UltraNest": ("weight logl x y\n0.25 -3 1 2\n0.75 -2 3 4\n", ["x", "y"], [0.25, 0.75]),
    "Cobaya": (
        "#  weight minuslogpost x y minuslogprior chi2 chi2__b\n 1 5 1 2 0 9 9\n 3 5 3 4 0 9 9\n",
        ["x", "y"],
        [1, 3],
    ),
    "CmdStan": (
        "# method = sample\nlp__,accept_stat__,x,y\n# Adaptation\n-1,0.9,1,2\n-2,0.8,3,4\n# Time\n",
        ["x", "y"],
        None,
    ),
    "equal weights": ("x y loglike\n1 2 -3\n3 4 -2\n", ["x", "y"], None),
}


@pytest.mark.parametrize("case", CHAINS)
def test_chains_have_their_weights_and_no_log_likelihood_is_fitted(case, tmp_path):
    text, names, weights = CHAINS[case]
    path = tmp_path / "chain.1.txt"
    path.write_text(text)
    with pytest.warns(UserWarning, match="left out .* ask for them by columns="):
        read = read_table(path)
    assert read.columns == names
    np.testing.assert_array_equal(read.x, X)
    assert (read.sample_weight is None) == (weights is None)
    if weights is not None:
        np.testing.assert_array_equal(read.sample_weight, weights)
        assert read_table(path, names, weights=False).sample_weight is None


@pytest.mark.filterwarnings("ignore:.*left out")
def test_chains_of_getdist_by_their_root_with_burn_in(tmp_path):
    (tmp_path / "run.paramnames").write_text("omega \\Omega\nh h_0\nage* t_0\n")
    for i in (1, 2):
        rows = [[w, -9, 10 * i + k, k, 13] for k, w in enumerate((1, 2, 3, 4))]
        np.savetxt(tmp_path / f"run_{i}.txt", rows)
    read = read_table(tmp_path / "run", burn_in=0.5)
    assert read.columns == ["omega", "h"]
    np.testing.assert_array_equal(read.x, [[12, 2], [13, 3], [22, 2], [23, 3]])
    np.testing.assert_array_equal(read.sample_weight, [3, 4, 3, 4])
    assert read.left_out.keys() == {"-logl", "age"}
    np.testing.assert_array_equal(read_table(tmp_path / "run_2.txt", burn_in=3).x, [[23, 3]])
    np.testing.assert_array_equal(read_table(tmp_path / "run.paramnames", ["age"]).x, np.full((8, 1), 13.0))


WHERE = {
    "a > 1": [1, 2],
    "a > 0 and b < 5": [0, 1],
    "not (a == 1) or b == 2": [0, 1, 2],
    "(a > 1) & (`c d` <= 6)": [1],
    "abs(a - b) == 1 and isfinite(`c d`)": [0, 1],
    "0 < a < 4": [0, 1],
    "`c d` > 0": [0, 1],
}


def test_a_chain_without_its_names_is_told_of_unless_columns_are_chosen(tmp_path):
    x = np.column_stack([np.ones(6), np.arange(6.0), np.arange(6.0) + 10])
    np.savetxt(tmp_path / "run_1.txt", x)
    np.savetxt(tmp_path / "table.txt", x)
    with pytest.warns(UserWarning, match="begin with the weight and -log of the density, but has no file of .paramnames"):
        assert read_table(tmp_path / "run_1.txt").x.shape == (6, 3)
    chosen = read_table(tmp_path / "run_1.txt", [2], weights=0)
    np.testing.assert_array_equal(chosen.x, x[:, 2:])
    np.testing.assert_array_equal(chosen.sample_weight, x[:, 0])
    assert read_table(tmp_path / "table.txt").x.shape == (6, 3)


@pytest.mark.parametrize("text", WHERE)
def test_rows_are_chosen_by_conditions(text, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b,c d\n1,2,3\n3,4,6\n5,6,\n")
    np.testing.assert_array_equal(read_table(path, ["a"], where=text).x[:, 0], np.array([1, 3, 5])[WHERE[text]])


NO_CONDITION = {
    "a >": "can't read the condition on rows",
    "a + 1": "must compare columns",
    "z > 1": "has no column 'z'",
    "a > 1 & b < 2": "put comparisons into parentheses|put parentheses",
    "__import__('os')": "can't have|has no column",
    "a.real > 1": "can't have 'a.real'",
}


@pytest.mark.parametrize("text", NO_CONDITION)
def test_what_is_no_condition_is_refused(text, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(TableError, match=NO_CONDITION[text]):
        read_table(path, where=text)


MIXED = {
    "plain": "a,b,c\n" + "1,2,3\n" * 40,
    "holes and marks": "a,b,c\n" + "1,2,3\n" * 9 + ",NA,3\n1,True,\n1,2,--\n" * 9,
    "text beside": "a,b,name\n" + '1,2,M31\n3,,"M31, 1"\n# a,b,name\n' * 9,
    "text of two lines": "a,b,name\n" + "1,2,M31\n" * 9 + '3,4,"M\n31"\n' * 9,
    "white space": "a b c\n" + "1 2 3\n" * 9 + "1 nan 3 # a b c\n\n# a b c\nNA 2  3\n" * 9,
    "Fortran": "a b c\n" + "1 2 3\n" * 9 + "1.0D+01 2 3\n" * 9,
}


@pytest.mark.parametrize("block", [30, 200, 1 << 22])
@pytest.mark.parametrize("case", MIXED)
def test_blocks_of_lines_give_what_single_lines_give(case, block, tmp_path, monkeypatch):
    monkeypatch.setattr(text, "BLOCK", block)
    path = tmp_path / "t.txt"
    path.write_text(MIXED[case])
    fast = read_table(path, ["a", "b"], where="a < 1e9 or isnan(a)").x
    monkeypatch.setattr(text, "_by_blocks", lambda *_: None)
    np.testing.assert_array_equal(fast, read_table(path, ["a", "b"], where="a < 1e9 or isnan(a)").x)
    assert len(fast) == MIXED[case].count("\n1") + MIXED[case].count("\n3,") + MIXED[case].count("\n,")\
        + MIXED[case].count("\nNA")  # fmt: skip


@pytest.mark.parametrize(("line", "message"), [
    ("5,6", r"line 42: 2 fields, the header has 3"), ("5,6,7,8", r"line 42: 4 fields"),
    ("9801_3,6,7", r"line 42, column a: '9801_3' is not a number"), ("5,x,7", r"line 42, column b: 'x' is not a number"),
])  # fmt: skip
def test_a_row_that_is_wrong_is_found_though_it_is_read_with_others(line, message, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(MIXED["plain"] + line + "\n")
    for columns in (None, ["a", "b"]):
        with pytest.raises(TableError, match=message):
            read_table(path, columns)


def test_a_compressed_text_that_is_cut_off_is_refused(tmp_path):
    path = tmp_path / "t.csv.gz"
    numbers = np.random.default_rng(0).normal(size=(2000, 3))
    whole = gzip.compress("\n".join(["a,b,c", *(",".join(map(str, row)) for row in numbers.tolist())]).encode())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TableError, match=r"t\.csv\.gz is no csv text \(Compressed file ended"):
        read_table(path)
