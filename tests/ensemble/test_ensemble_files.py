"""Files of ensembles: what was saved or a refusal, in a time linear in their size."""

import json
import time

import numpy as np
import pytest

import npflows
from npflows import Ensemble, FlowFileError


@pytest.fixture(scope="module")
def members():
    return [npflows.MAF(2, 1, (4,), rng=seed) for seed in range(3)]


@pytest.fixture
def arrays(members, tmp_path):
    """The arrays of a file."""
    Ensemble(members).save(tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz") as file:
        return dict(file)


def read(arrays, tmp_path):
    np.savez(tmp_path / "edited.npz", **arrays)
    return Ensemble.load(tmp_path / "edited.npz")


def about(arrays, **changes):
    facts = {**json.loads(str(arrays["ensemble"])), **changes}
    return np.array(json.dumps({name: value for name, value in facts.items() if value is not None}))


def test_what_was_saved_is_read(arrays, members, tmp_path):
    found = read(arrays, tmp_path)
    for a, b in zip(found, members, strict=True):
        np.testing.assert_array_equal(a.params, b.params)


def test_files_from_before_there_was_a_checksum_of_the_whole(arrays, tmp_path):
    older = {**arrays, "ensemble": about(arrays, checksum=None)}
    del older["checksum"]
    assert len(read(older, tmp_path)) == 3
    with pytest.raises(FlowFileError, match="says that it has 2 members, and holds 3"):
        read({**older, "ensemble": about(older, members=2)}, tmp_path)


def test_a_member_less_is_refused(arrays, tmp_path):
    with pytest.raises(FlowFileError, match="says that it has 2 members, and holds 3"):
        read({**arrays, "ensemble": about(arrays, members=2)}, tmp_path)
    fewer = {name: array for name, array in arrays.items() if not name.startswith("2/")}
    with pytest.raises(FlowFileError, match="says that it has 3 members, and holds 2"):
        read(fewer, tmp_path)
    with pytest.raises(FlowFileError, match="damaged or was edited"):
        read({**fewer, "ensemble": about(arrays, members=2)}, tmp_path)
    del arrays["checksum"]
    with pytest.raises(FlowFileError, match="damaged or was edited"):
        read(arrays, tmp_path)


def test_a_member_in_the_place_of_another_is_refused(arrays, tmp_path):
    twice = {name: arrays[f"0/{name[2:]}"] if name.startswith("1/") else array for name, array in arrays.items()}
    with pytest.raises(FlowFileError, match="damaged or was edited"):
        read(twice, tmp_path)


def test_damaged_bytes_give_the_ensemble_or_a_refusal(members, tmp_path):
    path, draw = tmp_path / "e.npz", np.random.default_rng(0)
    Ensemble(members).save(path)
    whole, refused = bytearray(path.read_bytes()), 0
    for place in draw.integers(len(whole), size=150):
        damaged = whole.copy()
        damaged[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        try:
            found = Ensemble.load(path)
        except FlowFileError:
            refused += 1
            continue
        for a, b in zip(found, members, strict=True):
            np.testing.assert_array_equal(a.params, b.params)
    assert refused > 50


@pytest.mark.parametrize("name", ["00/theta", "²/theta", "0/other", "-1/theta"])
def test_names_that_no_member_has_are_not_unpacked(arrays, tmp_path, name):
    strange = {**arrays, name: np.zeros(0, "S1")}  # of a type that is refused where it is read
    assert len(read(strange, tmp_path)) == 3


def test_more_members_than_there_are_is_refused(arrays, tmp_path):
    with pytest.raises(FlowFileError, match="says that it has 3 members, and holds 4"):
        read({**arrays, "7/theta": arrays["0/theta"]}, tmp_path)


def test_the_time_is_linear_in_the_members(members, tmp_path):
    def seconds(n):
        Ensemble(members * (n // 3)).save(tmp_path / "large.npz")
        start = time.process_time()
        assert len(Ensemble.load(tmp_path / "large.npz")) == n
        return time.process_time() - start

    few = min(seconds(60) for _ in range(2))
    assert seconds(1200) < 50 * few  # 20 times as many


def test_the_largest_files_can_be_read(members, tmp_path, monkeypatch):
    monkeypatch.setattr("npflows.files.ensemble_file.MOST_MEMBERS", 2)
    with pytest.raises(ValueError, match="a file holds 2 members at most, got 3"):
        Ensemble(members).save(tmp_path / "e.npz")
