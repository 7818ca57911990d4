"""Is a fitted flow the distribution of the data?  Numbers to look at and to draw.

Whether the latent values of held-out rows follow the base (`pit`, `coverage`), whether a classifier can tell samples from
data (`two_sample_test`), whether a conditional flow's spread is that of the truth (`sbc_ranks`, `tarp_coverage`), and
whether the flow has learned its training rows by heart (`memorization`).
"""

from npflows.diagnostics.conditional import SBC, Tarp, sbc_ranks, tarp_coverage
from npflows.diagnostics.latent import PIT, Coverage, coverage, pit
from npflows.diagnostics.memorize import Memorization, memorization
from npflows.diagnostics.two_sample import TwoSampleTest, two_sample_test

__all__ = [
    "PIT",
    "SBC",
    "Coverage",
    "Memorization",
    "Tarp",
    "TwoSampleTest",
    "coverage",
    "memorization",
    "pit",
    "sbc_ranks",
    "tarp_coverage",
    "two_sample_test",
]
