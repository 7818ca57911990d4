"""The results of `verify`, as a table to print and plain values to save."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np


class Learned(Protocol):
    """A flow, as far as its fingerprint goes."""

    latent_dim: int

    @property
    def params(self) -> np.ndarray: ...

    def learned_arrays(self) -> dict[str, np.ndarray]: ...


@dataclass(frozen=True)
class Check:
    """One result of a verification.

    Attributes
    ----------
    name : str
    value : float or None
        The largest error found.
    tolerance : float or None
        The largest that it may be.
    verdict : {"pass", "FAIL", "inconclusive", "not checked"}
    note : str
        How it was measured.
    """

    name: str
    value: float | None
    tolerance: float | None
    verdict: str
    note: str = ""


@dataclass(frozen=True)
class VerificationReport:
    """How exact a flow is; printed, it is a table.

    Attributes
    ----------
    flow : str
        The flow that was verified, in words.
    fingerprint : str
        Of the flow's parameters; see `matches`.
    version : str
        That of npflows.
    checks : tuple of Check
    """

    flow: str
    fingerprint: str
    version: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed; one may have been inconclusive, or not possible."""
        return all(check.verdict != "FAIL" for check in self.checks)

    def __getitem__(self, name: str) -> Check:
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(f"no check {name!r}; there are {', '.join(repr(check.name) for check in self.checks)}")

    def matches(self, flow: Learned) -> bool:
        """Whether the report is of this flow with the parameters that it has now."""
        return self.fingerprint == fingerprint(flow)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        checks = [asdict(check) for check in self.checks]
        for check in checks:
            for name in ("value", "tolerance"):
                if check[name] is not None and not math.isfinite(check[name]):
                    check[name] = str(check[name])
        return {"flow": self.flow, "fingerprint": self.fingerprint, "version": self.version, "checks": checks}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> VerificationReport:
        """The report that `to_dict` made plain values of."""
        try:
            checks = tuple(
                Check(c["name"], _number(c["value"]), _number(c["tolerance"]), c["verdict"], c["note"])
                for c in values["checks"]
            )
            return cls(values["flow"], values["fingerprint"], values["version"], checks)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is no verification report ({error!r})") from None

    def __str__(self) -> str:
        def number(value: float | None) -> str:
            return "" if value is None else f"{value:.2g}"

        table = [("check", "value", "tolerance", "verdict", "note")]
        table += [(c.name, number(c.value), number(c.tolerance), c.verdict, c.note) for c in self.checks]
        widths = [max(map(len, column)) for column in zip(*table)]
        lines = [f"npflows {self.version} verified {self.flow}", f"parameters {self.fingerprint}", ""]
        for name, value, tolerance, verdict, note in table:
            row = f"{name:{widths[0]}}  {value:>{widths[1]}}  {tolerance:>{widths[2]}}  {verdict:{widths[3]}}  {note}"
            lines.append(row.rstrip())
        counts = {v: sum(c.verdict == v for c in self.checks) for v in ("pass", "FAIL", "inconclusive", "not checked")}
        words = {"pass": "passed", "FAIL": "FAILED"}
        lines += ["", ", ".join(f"{n} {words.get(verdict, verdict)}" for verdict, n in counts.items() if n)]
        return "\n".join(lines)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def fingerprint(flow: Learned) -> str:
    """Twelve hexadecimal digits of a hash of all that a flow has learned; the same whatever the compute dtype."""
    arrays = {**flow.learned_arrays(), "theta": flow.params}
    digest = hashlib.sha256(f"{type(flow).__name__} {flow.latent_dim}".encode())
    for name in sorted(arrays):
        digest.update(np.asarray(arrays[name], "<f8").tobytes())
    return digest.hexdigest()[:12]
