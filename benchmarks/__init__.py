"""Benchmarks of npflows for asv, and two tables of their own; RESULTS.md says how to run them."""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("npflows") is None:  # a checkout that is not installed: asv drops PYTHONPATH
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
