"""How exact is a flow?  `verify` measures it; its report can be printed and saved with the flow."""

from npflows.verify.checks import verify
from npflows.verify.report import Check, VerificationReport

__all__ = ["Check", "VerificationReport", "verify"]
