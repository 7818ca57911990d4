"""`npflows convert`: what is wrong with the file of the architecture is told in one line."""

import json

import pytest
from convert import test_pyro, test_zuko

from npflows.cli import main

BROKEN = {
    "broken": ('{"univariate": "spline"', r"is not JSON \(Expecting"),
    "no JSON": ("univariate: spline", "is not JSON"),
    "a list": ('["spline"]', r'must hold a JSON object such as {"activation": "tanh"}, got ["spline"]'),
    "twice": ('{"univariate": "spline", "univariate": "affine"}', "has 'univariate' twice"),
    "another name": ('{"univariat": "spline"}', "zuko has no 'univariat'; did you mean 'univariate'?"),
    "a slope": ('{"univariate": "spline", "slope": "x"}', "slope must be a number above 0 and below 1"),
    "a bound": ('{"univariate": "spline", "bound": "five"}', "bound must be a finite number above 0, got 'five'"),
    "a list for a number": ('{"univariate": "spline", "bound": [5]}', "bound must be a finite number above 0, got [5]"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_wrong_with_an_architecture(what, tmp_path, capsys):
    text, message = BROKEN[what]
    path = tmp_path / "architecture.json"
    path.write_text(text)
    source, target = str(test_zuko.FILES / "nsf.pt"), str(tmp_path / "flow.npz")
    assert main(["convert", "zuko", source, "--architecture", str(path), "-o", target]) == 2
    told = capsys.readouterr().err
    assert message.replace("\\", "") in told
    assert told.count("\n") == 1
    assert ("architecture.json" in told) == ("must be" not in message)
    assert not (tmp_path / "flow.npz").exists()


def test_bytes_that_are_no_text(tmp_path, capsys):
    (tmp_path / "a.json").write_bytes(b'{"univariate": "spl\xffne"}')
    source, target = str(test_zuko.FILES / "nsf.pt"), str(tmp_path / "flow.npz")
    assert main(["convert", "zuko", source, "--architecture", str(tmp_path / "a.json"), "-o", target]) == 2
    assert "a.json is not JSON, which is UTF-8" in capsys.readouterr().err


def test_a_byte_order_mark_is_no_part_of_an_architecture(tmp_path):
    (tmp_path / "a.json").write_text('{"univariate": "spline"}', encoding="utf-8-sig")
    source, target = str(test_zuko.FILES / "nsf.pt"), str(tmp_path / "flow.npz")
    assert main(["convert", "zuko", source, "--architecture", str(tmp_path / "a.json"), "-o", target, "--quiet"]) == 0


@pytest.mark.parametrize("transforms", ["AffineAutoregressive", {"kind": "Spline"}, [3]])
def test_transforms_that_are_no_list_of_objects(transforms, tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps({"transforms": transforms}))
    source, target = str(test_pyro.FILES / "maf.pt"), str(tmp_path / "flow.npz")
    assert main(["convert", "pyro", source, "--architecture", str(tmp_path / "a.json"), "-o", target]) == 2
    assert "transforms must be a list of mappings" in capsys.readouterr().err
