"""Flows that were trained with other libraries, taken over exactly, and flows that go on training there.

What can't be represented is refused by name.
"""

from npflows.convert.denmarf import from_denmarf
from npflows.convert.errors import ConversionError
from npflows.convert.flowjax import from_flowjax
from npflows.convert.nflows import from_nflows
from npflows.convert.normflows import from_normflows
from npflows.convert.outgoing import to_flowjax, to_zuko
from npflows.convert.pyro import from_pyro
from npflows.convert.pzflow import from_pzflow
from npflows.convert.state_dict import read_state_dict
from npflows.convert.wrapped import from_glasflow, from_pocomc, from_sbi
from npflows.convert.zuko import from_zuko

__all__ = [
    "ConversionError",
    "from_denmarf",
    "from_flowjax",
    "from_glasflow",
    "from_nflows",
    "from_normflows",
    "from_pocomc",
    "from_pyro",
    "from_pzflow",
    "from_sbi",
    "from_zuko",
    "read_state_dict",
    "to_flowjax",
    "to_zuko",
]
