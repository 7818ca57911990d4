"""For tests in numba.cuda's simulator."""

import os
import sys

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    sys.setswitchinterval(1e-4)  # one thread asks without end how those of a block are: let these run meanwhile
