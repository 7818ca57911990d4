"""Models of every kind as C, compiled; CI runs it in a step of its own (see .ci/export)."""

import pytest
from export_cases import WHATS, assert_close, awkward, cases, expected
from registry import build
from test_c import called, compiled

QUICK = ["-std=c99", "-pedantic", "-O1", "-Wall", "-Wextra", "-Werror"]
MODELS = [
    "RealNVP, half, relu", "RealNVP, condition", "MAF, random orders", "MAF, ActNorm, condition", "MAF, embedded condition",
    "IAF, one order, condition", "NSF, two features", "NSF, a circle", "NSF, affine ends", "MAF, half-lines and intervals",
    "MAF, a half-line below and ordered columns", "RealNVP, image, convolutions, channel-wise", "Glow, condition",
    "flow of image layers", "flow of layers", "flow of linear layers", "flow of Standardize alone",
    "flow without correlations",
]  # fmt: skip
"""One of each kind at least."""
STRICT = {"MAF, embedded condition", "Glow, condition", "NSF, two features"}
"""Those compiled with -O2, as users do."""


@pytest.mark.parametrize("name", MODELS)
def test_every_kind(name, tmp_path):
    flow = build(name)
    library = compiled(flow, tmp_path, flags=[*QUICK[:2], "-O2", *QUICK[3:]] if name in STRICT else QUICK)
    x, c = cases(flow)
    for what in WHATS[:4]:
        given, wanted = expected(flow, what, x, c)
        assert_close(called(library, what, given, flow), wanted, 2e-12)


def test_rows_without_a_density(tmp_path):
    flow, x, c = awkward()
    library = compiled(flow, tmp_path, flags=QUICK)
    for what in WHATS[:2]:
        given, wanted = expected(flow, what, x, c)
        assert_close(called(library, what, given, flow), wanted, 1e-11)
