"""Flows that were trained with other libraries, taken over exactly; what can't be represented is refused by name."""

from npflows.convert.nflows import from_nflows
from npflows.convert.normflows import from_normflows
from npflows.convert.state_dict import ConversionError, read_state_dict

__all__ = ["ConversionError", "from_nflows", "from_normflows", "read_state_dict"]
