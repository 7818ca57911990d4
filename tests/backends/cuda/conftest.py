"""For tests in numba.cuda's simulator."""

import os

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # threads take turns, which is quicker on one core
