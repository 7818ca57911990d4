"""Arguments of converters that are none, or that the file contradicts, are refused before anything is computed."""

import math

import numpy as np
import pytest
from convert import test_flowjax, test_nflows, test_normflows, test_pyro, test_wrapped, test_zuko

from npflows import convert

FILES = {
    "zuko": test_zuko.FILES / "nsf.pt",
    "nflows": test_nflows.FILES / "spline_coupling.pt",
    "normflows": test_normflows.FILES / "coupled.pt",
    "flowjax": test_flowjax.FILES / "maf.eqx",
    "glasflow": test_wrapped.FILES / "glasflow_realnvp.pt",
    "sbi": test_wrapped.FILES / "sbi_nsf.pt",
}
WRONG = [
    ("zuko", {"univariate": "spline", "slope": "x"}, "slope must be a number above 0 and below 1, .* got 'x'"),
    ("zuko", {"univariate": "spline", "slope": 1.0}, "slope must be a number above 0 and below 1"),
    ("zuko", {"univariate": "spline", "slope": -0.1}, "slope must be"),
    ("zuko", {"univariate": "spline", "slope": math.nan}, "slope must be"),
    ("zuko", {"univariate": "spline", "bound": "five"}, "bound must be a finite number above 0, got 'five'"),
    ("zuko", {"univariate": "spline", "bound": True}, "bound must be a finite number above 0, got True"),
    ("zuko", {"univariate": ["spline"]}, "univariate must be one of"),
    ("zuko", {"univariate": "spline", "activation": "gelu"}, "activation must be one of"),
    ("zuko", {"univariate": "spline", "dtype": "float16"}, "dtype must be 'float32' or 'float64'"),
    ("nflows", {"tail_bound": 0}, "tail_bound must be a finite number above 0, got 0"),
    ("nflows", {"tail_bound": 3.0, "activation": None}, "activation must be one of"),
    ("nflows", {"tail_bound": 3.0, "spline": 3}, "spline must be one of"),
    ("normflows", {"tail_bound": math.inf}, "tail_bound must be a finite number above 0, got inf"),
    ("flowjax", {"invert": "false"}, "invert must be True or False, got 'false'"),
    ("flowjax", {"min_scale": 2}, "min_scale must be a number of at least 0 and below 1, got 2"),
    ("flowjax", {"min_scale": math.nan}, "min_scale must be"),
    ("flowjax", {"interval": [-3, 3]}, r"interval must be a finite number above 0, got \[-3, 3\]"),
    ("flowjax", {"min_derivative": 1.0}, "min_derivative must be"),
    ("flowjax", {"min_width": -1.0}, "min_width must be"),
    ("glasflow", {"scale": math.nan}, "scale must be 'wide', 'sigmoid', 'softplus' or a finite number above 0, got nan"),
    ("glasflow", {"scale": True}, "scale must be 'wide', .* got True"),
    ("glasflow", {"scale": -1.0}, "scale must be 'wide'"),
    ("sbi", {"tail_bound": "3"}, "tail_bound must be a finite number above 0, got '3'"),
    ("sbi", {"tail_bound": 3.0, "activation": ""}, "activation must be one of"),
]


@pytest.mark.parametrize(("library", "options", "message"), WRONG)
def test_what_is_no_value_of_an_argument(library, options, message):
    with pytest.raises(convert.ConversionError, match=message):
        getattr(convert, f"from_{library}")(FILES[library], **options)


@pytest.mark.parametrize(("name", "options", "message"), [
    ("ncsf", {"univariate": "spline"}, "the base of the state dict ends at pi, .* pass univariate='circular spline'"),
    ("ncsf", {"univariate": "spline", "bound": math.pi}, "pass univariate='circular spline'"),
    ("ncsf", {"univariate": "bounded bernstein"}, "pass univariate='circular spline'"),
    ("ncsf", {"univariate": "circular spline", "bound": 5}, "bound must be pi for a 'circular spline', got 5.0"),
    ("nsf", {"univariate": "circular spline"}, "the base of the state dict is normal: pass 'spline' for NSF"),
])  # fmt: skip
def test_what_the_base_of_a_file_contradicts(name, options, message):
    with pytest.raises(convert.ConversionError, match=message):
        convert.from_zuko(test_zuko.FILES / f"{name}.pt", **options)


def test_pi_is_the_bound_of_circular_splines():
    x = test_zuko.printed("ncsf")["x"]
    flow = test_zuko.taken_over("ncsf", bound=3.14159265)
    np.testing.assert_array_equal(flow.log_prob(x), test_zuko.taken_over("ncsf").log_prob(x))


def test_the_hint_names_every_scalar_map():
    names = r"'affine' .* 'spline' .* 'circular spline' .* 'bounded bernstein' .* 'bernstein' or 'additive'"
    with pytest.raises(convert.ConversionError, match=names):
        convert.from_zuko(FILES["zuko"])


@pytest.mark.parametrize(("changed", "message"), [
    ({"inverse": "no"}, r"inverse must be True or False, got 'no' \(transform 0\)"),
    ({"bound": "x"}, r"bound must be a finite number above 0, got 'x' \(Spline, transform 0\)"),
    ({"order": 2}, "order must be one of"),
    ({"kind": ["Spline"]}, r"\['Spline'\] \(transform 0\) is not taken over"),
])  # fmt: skip
def test_arguments_of_transforms_of_pyro(changed, message):
    first, *others = test_pyro.OPTIONS["spline"]
    with pytest.raises(convert.ConversionError, match=message):
        convert.from_pyro(test_pyro.FILES / "spline.pt", transforms=[first | changed, *others])


@pytest.mark.parametrize("transforms", ["AffineAutoregressive", 3, {"kind": "Spline"}, ["Spline"], [None]])
def test_transforms_are_a_list_of_mappings(transforms):
    with pytest.raises(convert.ConversionError, match="transforms must be a list of mappings, one for each transform"):
        convert.from_pyro(test_pyro.FILES / "spline.pt", transforms=transforms)


@pytest.mark.parametrize("changed", [{"loc": [1.0, 2.0]}, {"scale": [0.5, None, 1.0, 3.0]}, {"scale": "x"}])
def test_numbers_of_transforms_of_pyro_that_are_no_modules(changed):
    *others, last = test_pyro.OPTIONS["real_nvp"]
    with pytest.raises(convert.ConversionError, match="transform 5"):
        convert.from_pyro(test_pyro.FILES / "real_nvp.pt", transforms=[*others, last | changed])


@pytest.mark.parametrize("given", ["density.pkl", {"0.beta": np.zeros(2)}])
@pytest.mark.parametrize("name", ["denmarf", "pocomc"])
def test_what_takes_objects_alone_says_so(name, given):
    with pytest.raises(convert.ConversionError, match=f"from_{name} takes objects alone, got .*: pass the object"):
        getattr(convert, f"from_{name}")(given)


@pytest.mark.parametrize("name", ["flowjax", "pzflow", "zuko", "nflows", "normflows", "glasflow", "pyro", "sbi"])
def test_an_empty_mapping_is_no_flow(name):
    with pytest.raises(convert.ConversionError):
        getattr(convert, f"from_{name}")({})
