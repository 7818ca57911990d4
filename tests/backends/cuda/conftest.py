"""For tests in numba.cuda's simulator."""

import os
import sys

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # threads take turns, which is quicker on one core
    sys.setswitchinterval(1e-4)  # for kernels of tensor cores, where one thread asks without end how those of a block are
