"""Every flow of tests/fixtures gives the numbers that its library printed, and none that lacks a tensor is taken over.

.ci/convert runs this, the suite a part of it.
"""

import pytest
from convert import damage, test_flowjax, test_nflows, test_normflows, test_pyro, test_pzflow, test_wrapped, test_zuko

CASES = [
    *((test_flowjax, name) for name in test_flowjax.OPTIONS),
    *((test_nflows, name) for name in test_nflows.OPTIONS),
    *((test_normflows, name) for name in test_normflows.OPTIONS),
    *((test_pyro, name) for name in test_pyro.OPTIONS),
    *((test_pzflow, name) for name in test_pzflow.NAMES),
    *((test_wrapped, name) for name in test_wrapped.CASES),
    *((test_zuko, name) for name in test_zuko.OPTIONS),
]


@pytest.mark.parametrize(("library", "name"), CASES, ids=[f"{library.__name__}-{name}" for library, name in CASES])
def test_numbers(library, name):
    library.check_numbers(name)


@pytest.mark.parametrize("case", damage.cases())
def test_no_damage_is_taken_over(case):
    assert damage.taken_wrongly(case) == []
