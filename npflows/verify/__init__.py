"""How exact is a flow?  `verify` measures it; its report can be printed and saved with the flow."""

from npflows.distribution.verification import Check, VerificationReport
from npflows.verify.checks import verify

__all__ = ["Check", "VerificationReport", "verify"]
