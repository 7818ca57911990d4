"""Every model as C, compiled; it takes minutes, and CI runs it in a step of its own (see .ci/export)."""

import pytest
from export_cases import WHATS, assert_close, awkward, cases, expected
from registry import MODELS, build
from test_c import called, compiled

QUICK = ["-std=c99", "-pedantic", "-O1", "-Wall", "-Wextra", "-Werror"]
STRICT = {"MAF, embedded condition", "Glow, condition", "NSF, two features"}
"""Those compiled with -O2, as users do."""


@pytest.mark.parametrize("name", MODELS)
def test_every_model(name, tmp_path):
    flow = build(name)
    library = compiled(flow, tmp_path, flags=[*QUICK[:2], "-O2", *QUICK[3:]] if name in STRICT else QUICK)
    x, c = cases(flow)
    for what in WHATS[:4]:
        given, wanted = expected(flow, what, x, c)
        assert_close(called(library, what, given, flow), wanted, 2e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_without_a_density(dtype, tmp_path):
    flow, x, c = awkward(dtype)
    library = compiled(flow, tmp_path, flags=QUICK)
    for what in WHATS[:2]:
        given, wanted = expected(flow, what, x, c)
        assert_close(called(library, what, given, flow), wanted, 1e-11 if dtype == "float64" else 2e-4)
