"""Which line of a text names its columns: no row is lost to a header that is none, and no comment is a wrong name."""

import numpy as np
import pytest

from npflows.files.tables import TableError, read_table, write_table

NAN = np.nan
ROWS = {
    "a missing entry": ("nan\n1\n2\n", [[NAN], [1], [2]]),
    "missing entries": ("nan nan\n1 2\n", [[NAN, NAN], [1, 2]]),
    "missing entries with commas": ("NA,\n1,2\n", [[NAN, NAN], [1, 2]]),
    "a number and a missing entry": ("1,NA\n1,2\n", [[1, NAN], [1, 2]]),
    "infinities": ("inf,-inf\n1,2\n", [[np.inf, -np.inf], [1, 2]]),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_first_line_of_entries_is_a_row(case, tmp_path):
    text, rows = ROWS[case]
    (tmp_path / "t.csv").write_text(text)
    read = read_table(tmp_path / "t.csv")
    assert read.columns is None
    np.testing.assert_array_equal(read.x, rows)


BROKEN = {
    "a mark of no entry": ("1 2 ?\n3 4 5\n6 7 8\n", r"line 1, column 2: '\?' is not a number"),
    "an overflow of Fortran": ("  1.0D+00  ******\n  3.0D+00  1.0\n", r"line 1, column 1: '\*+' is not a number"),
    "a row with a name": ("NGC1,1.0,2.0\nNGC2,3.0,4.0\n", r"line 1, column 0: 'NGC1' is not a number \(names of columns"),
    "whole numbers and a name": ("NGC1,1,2\nNGC2,3,4\n", "the first line, 'NGC1,1,2', holds words beside numbers"),
    "wavelengths": ("id,0.5,0.6\n5,3,4\n", "the first line, 'id,0.5,0.6', holds words beside numbers, and may be a row"),
    "years": ("id,2019,2020\n5,3,4\n", "may be a row or the names of the columns: write names above it, or put its fields"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_first_line_with_a_number_and_no_entry_is_refused(case, tmp_path):
    text, message = BROKEN[case]
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(TableError, match=message):
        read_table(tmp_path / "t.csv")


def test_no_row_is_lost_where_other_columns_are_wanted(tmp_path):
    (tmp_path / "t.csv").write_text("NGC1,1.0,2.0\nNGC2,3.0,4.0\n")
    np.testing.assert_array_equal(read_table(tmp_path / "t.csv", [1, 2]).x, [[1, 2], [3, 4]])
    (tmp_path / "t.csv").write_text("NGC1,NA,2.0\nNGC2,3.0,4.0\n")
    np.testing.assert_array_equal(read_table(tmp_path / "t.csv", [1, 2]).x, [[NAN, 2], [3, 4]])


HEADERS = {
    "years in quotes": ('"id","2019","2020"\n5,3,4\n', ["id", "2019", "2020"]),
    "numbers in quotes": ('"1","2","3"\n5,3,4\n', ["1", "2", "3"]),
    "elements": ("NA,K,CL\n5,3,4\n", ["NA", "K", "CL"]),
    "commas in names": ('"radius, km"\t"a"\tb\n5\t3\t4\n', ["radius, km", "a", "b"]),
    "a comma in a name": ("radius, km\ta\tb\n5\t3\t4\n", ["radius, km", "a", "b"]),
    "a comment": ("# created by me\n# a b c\n5 3 4\n", ["a", "b", "c"]),
    "units below": ("# x y z\n# km s Msun\n5 3 4\n", ["x", "y", "z"]),
    "units in brackets": ("# x y z\n# [km/s] [mag] [10]\n5 3 4\n", ["x", "y", "z"]),
    "compound units": ("# x y z\n# km/s erg*s^-1 mas\n5 3 4\n", ["x", "y", "z"]),
    "types above": ("# float int f8\n# x y z\n5 3 4\n", ["x", "y", "z"]),
    "numbers and lines": ("# 1 2 3\n# x y z\n# - - -\n5 3 4\n", ["x", "y", "z"]),
    "names with commas and words": ("# my own table\n# x,y,z\n5,3,4\n", ["x", "y", "z"]),
    "the same comment twice": ("# x y z\n#\n# x y z\n5 3 4\n", ["x", "y", "z"]),
    "a sentence": ("# created by me\n5 3 4\n", None),
    "a title": ("# Table of values:\n# of three columns\n5 3 4\n", None),
}


@pytest.mark.parametrize("case", HEADERS)
def test_names_are_those_of_the_header_or_of_the_one_comment_that_has_them(case, tmp_path):
    text, names = HEADERS[case]
    (tmp_path / "t.txt").write_text(text)
    read = read_table(tmp_path / "t.txt")
    assert read.columns == names
    np.testing.assert_array_equal(read.x, [[5, 3, 4]])


def test_of_several_comments_none_is_taken_for_names_with_a_warning(tmp_path):
    np.savetxt(tmp_path / "t.txt", [[1, 2], [3, 4]], header="x y\nfinal sample")
    with pytest.warns(UserWarning, match="several comments may name the columns .'x y' and 'final sample'.*are numbered"):
        read = read_table(tmp_path / "t.txt")
    assert read.columns is None
    np.testing.assert_array_equal(read.x, [[1, 2], [3, 4]])


@pytest.mark.parametrize("names", [
    ["radius, km", "b"], ["a\tb", "c"], ["1", "2"], ["#a", "b"], ["NA", "nan"], ['a "b"', "c;d"], ["2020-01-01", "b"],
    ["a", "logl x"], ["a b", "c"],
])  # fmt: skip
@pytest.mark.parametrize("suffix", ["tsv", "csv", "txt"])
def test_names_of_every_kind_come_back_from_text(suffix, names, tmp_path):
    write_table(tmp_path / f"t.{suffix}", np.array([[1.0, 2.0]]), names)
    read = read_table(tmp_path / f"t.{suffix}")
    assert read.columns == names
    np.testing.assert_array_equal(read.x, [[1, 2]])
    write_table(tmp_path / f"t.{suffix}", np.array([1.0, NAN]), names[:1])
    np.testing.assert_array_equal(read_table(tmp_path / f"t.{suffix}").x, [[1], [NAN]])
    assert read_table(tmp_path / f"t.{suffix}").columns == names[:1]


def test_a_name_of_two_lines_is_not_written(tmp_path):
    with pytest.raises(TableError, match=r"the column 'a\\nb' can't be written to text"):
        write_table(tmp_path / "t.csv", np.ones((1, 1)), ["a\nb"])
    assert not list(tmp_path.iterdir())


def test_another_encoding_is_named(tmp_path):
    for head in ("", "a,b\n" + "1,2\n" * 5000):
        (tmp_path / "t.csv").write_bytes((head + "größe,b\n1,2\n").encode("latin-1"))
        with pytest.raises(TableError, match=r"no text in UTF-8 \(byte 0xf6\), perhaps one in Latin-1: save it in UTF-8"):
            read_table(tmp_path / "t.csv")


CMDSTAN = """# method = sample (Default)
#   sample
#     num_samples = 4
#     num_warmup = 5
#     save_warmup = {save}
#     thin = 2
#     algorithm = {algorithm}
lp__,accept_stat__,x,y
"""


@pytest.mark.filterwarnings("ignore:.*left out lp__")
@pytest.mark.parametrize("save", ["1", "true"])
def test_the_warm_up_that_cmdstan_saved_is_left_out(save, tmp_path):
    rows = "".join(f"-1,0.9,{i},{i}\n{'# Adaptation terminated' if i == 2 else '#'}\n" for i in range(7))
    path = tmp_path / "t.csv"
    path.write_text(CMDSTAN.format(save=save, algorithm="hmc (Default)") + rows)
    with pytest.warns(UserWarning, match=r"left out the first 3 draws, the warm-up that CmdStan saved"):
        np.testing.assert_array_equal(read_table(path).x[:, 0], [3, 4, 5, 6])
    with pytest.warns(UserWarning, match="left out the first 3 draws"):
        np.testing.assert_array_equal(read_table(path, burn_in=0.5).x[:, 0], [5, 6])
    for other in (CMDSTAN.format(save=0, algorithm="hmc"), CMDSTAN.format(save=1, algorithm="fixed_param")):
        path.write_text(other + rows)
        assert len(read_table(path)) == 7
