"""`verify`: measures how exact a flow is, and writes it down as a report that can be printed and saved with the flow."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from npflows._version import __version__
from npflows.core.checks import SeedLike, as_int, as_rng
from npflows.core.underflow import ignore_underflow
from npflows.distribution.cost import seconds_a_row, warn_if_long
from npflows.distribution.transformed import TransformedDistribution
from npflows.distribution.verification import Check, VerificationReport, fingerprint
from npflows.layers import Permutation
from npflows.layers.multiscale import Rearrangement
from npflows.verify.copies import copy_of, float64_copy
from npflows.verify.dependence import promised_dependence
from npflows.verify.integration import BRIDGE_SAMPLES, MOST_COLUMNS, PROPOSAL_ROWS, integrate
from npflows.verify.numbers import ULPS, apart, changes, column_scale, largest, log_abs_det, median, off
from npflows.verify.space import Columns

TOLERANCES = {
    "inverse(forward(x)) = x": (1e-3, 1e-9),
    "forward(inverse(z)) = z": (1e-2, 1e-8),
    "log-dets of both ways cancel": (1e-2, 1e-8),
    "log_prob = base + log-det": (1e-4, 1e-10),
    "log_prob of what was drawn": (1e-1, 1e-7),
    "float32 = float64 copy": (1e-2, 0.0),
    "dependence": (1e-5, 1e-13),
    "integral of the density": (1e-4, 1e-6),
}
"""Largest errors allowed, in float32 and in float64."""
JACOBIAN_TOLERANCE = {"float64": 1e-4, "float32": 0.1}
STEPS = {"float64": (1e-4, 1e-5, 1e-6, 1e-7), "float32": (3e-2, 1e-2, 3e-3)}
"""Half-steps of the central differences, in the scale of a column on the line."""
JACOBIAN_EVALUATIONS, JACOBIAN_ROWS = 24_000, 100
DEPENDENCE_ROWS, DEPENDENCE_COLUMNS, DEPENDENCE_VALUES = 20, 256, 20_000_000
PASSES = 12
"""How often the rows go through the flow, about."""
MASS_ROWS, MASS_DRAWS, MASS_TOLERANCE = 200, 64, 3.0
EDGE_SHARE = 0.01
"""Share of the samples that may be rounded over the edge of a bounded base."""
CONDITIONS = 3
"""Conditions for which the density is integrated."""
LARGEST_ERROR = 0.1
"""An integral with a larger error says nothing."""
STANDARD_ERRORS = 4
JUMPS = 3
"""How many times as much as its error the integral by quadrature may be off, where the density ends with a jump."""
NO_DENSITY, NOTHING_DRAWN = "no row of x has a density above 0", "no sample of the flow is finite"
"""Why there is nothing to check."""


@ignore_underflow
def verify(
    flow: TransformedDistribution,
    x: ArrayLike,
    condition: ArrayLike | None = None,
    rng: SeedLike = None,
    *,
    max_rows: int = 2000,
) -> VerificationReport:
    """Measure whether the flow is the exact density that it promises to be, on data.

    The checks: that `forward` and `inverse` undo each other, and their log-determinants; the log-determinant
    against that of a Jacobian by central differences; that `log_prob` is the base's plus the log-determinant, and belongs
    to what `sample` draws; that each layer's results depend on what its order or mask allows and nothing else; that the
    density integrates to one; and that nothing is NaN.

    Columns of whole numbers are taken for the intervals that they are made from, once the masses that `log_prob` gives
    are found to be the means of that density over their cells.  A float32 flow is differentiated as a float64 copy of
    itself, as differences of float32 numbers say little, and is compared with that copy as well.

    Parameters
    ----------
    x : array_like (n, input_dim)
        Rows like those that the flow was fitted to; those with NaN or infinity are left out.
    condition : array_like, optional
        One for all rows or one for each, where the flow has `condition_dim`.
    rng : int, numpy.random.Generator or None
        Chooses rows and draws samples.
    max_rows : int
        Rows used at most.

    Returns
    -------
    VerificationReport

    Raises
    ------
    ValueError
        If x has no finite row, or a shape does not fit.
    TypeError
        If it is no flow.

    Warns
    -----
    UserWarning
        If it will take long, with an estimate.
    """
    if not isinstance(flow, TransformedDistribution):
        raise TypeError(f"verify measures flows, got {type(flow).__name__}: of an ensemble verify each of its members")
    rng, max_rows = as_rng(rng), as_int(max_rows, "max_rows")
    rows, _ = flow.preprocessing.rows(x, flow.input_shape)
    context = flow.conditioning.of_rows(x, condition, len(rows))
    lost = flow.conditioning.lost(context)
    finite = np.isfinite(rows).all(axis=1)
    chosen = np.flatnonzero(finite if lost is None else finite & ~lost)
    if not len(chosen):
        what = "a finite condition" if finite.any() else "no NaN or infinity"
        raise ValueError(f"x must have at least one row with {what}, got {len(rows)} rows")
    if len(chosen) > max_rows:
        chosen = np.sort(rng.choice(chosen, max_rows, replace=False))
    x = rows[chosen].astype(np.float64)
    with np.errstate(all="ignore"):  # what is not finite is counted
        return _Verification(flow, x, None if context is None else np.array(context[chosen], np.float64), rng).report()


class _Verification:
    """The flow, the rows and the results so far."""

    def __init__(
        self, flow: TransformedDistribution, x: np.ndarray, condition: np.ndarray | None, rng: np.random.Generator
    ) -> None:  # fmt: skip
        self.given, self.rng, self.conditions = flow, rng, condition
        self.flow, self.x, self.condition = flow, x, condition
        self.columns = Columns(flow)
        self.scale = column_scale(x, flow.standardize.scale)
        self.wide = flow.dtype == np.float64
        self.outside = 0
        self.checks: list[Check] = []

    def report(self) -> VerificationReport:
        flow = self.given
        columns = "1 column" if flow.latent_dim == 1 else f"{flow.latent_dim} columns"
        about = (
            f"{type(flow).__name__}: {columns}, {flow.num_params:,} parameters, {flow.dtype.name}, base "
            f"{type(flow.base).__name__}, on {len(self.x):,} rows"
        )
        if self.columns.whole.any():
            self.without_whole_numbers()
        self.copy, self.why_no_copy = float64_copy(self.flow)
        self.announce()
        self.finite()
        self.round_trips()
        self.densities()
        self.jacobian()
        self.dependence()
        self.integral()
        return VerificationReport(about, fingerprint(flow), __version__, tuple(self.checks))

    def announce(self) -> None:
        """Warn if it will take long, by what some rows take."""
        exact, d, x, c = self.copy or self.flow, self.flow.latent_dim, self.x, self.condition
        evaluations = PASSES * len(x) + JACOBIAN_EVALUATIONS + 2 * DEPENDENCE_ROWS * min(d, DEPENDENCE_COLUMNS)
        if d <= MOST_COLUMNS:
            evaluations += 2 * (PROPOSAL_ROWS + BRIDGE_SAMPLES)

        def some(rows: int) -> None:
            chosen = np.arange(rows) % len(x)
            exact.forward(x[chosen], None if c is None else c[chosen])

        if len(x):
            warn_if_long(evaluations * seconds_a_row(some, evaluations), "verify")

    def without_whole_numbers(self) -> None:
        """Go on with a copy whose whole numbers are intervals, once their masses are those of its density."""
        try:
            copy = copy_of(self.given, self.given.dtype.name, without_whole_numbers=True)
        except Exception as error:  # from the constructor of a class of the user's own
            raise ValueError(
                f"a flow with columns of whole numbers is verified as a copy with intervals, which can't be made: {error}"
            ) from None
        whole, some = self.columns.whole, slice(0, MASS_ROWS)
        kept = ~self.columns.outside(self.x)
        self.outside = int((~kept).sum())
        self.x, self.condition = self.x[kept], None if self.condition is None else self.condition[kept]
        x, c = self.x[some], None if self.condition is None else self.condition[some]
        name = "masses of whole numbers"
        if not len(x):
            self.skip(name, NO_DENSITY)
        else:
            log_mass = self.given.log_prob(x, c, draws=MASS_DRAWS, rng=self.rng)
            placed = (self.placed(x + whole * self.rng.random(x.shape)) for _ in range(MASS_DRAWS))
            log_density = np.array([copy.log_prob(values, c) + log_slope for values, log_slope in placed])
            unit = np.maximum(log_mass, log_density.max(axis=0))  # a mass of many columns is too small for a number
            unit = np.where(np.isfinite(unit), unit, 0.0)
            mass, density = np.exp(log_mass - unit), np.exp(log_density - unit)
            noise = np.hypot(density.std(axis=0) * math.sqrt(2 / MASS_DRAWS), 1e-5 * density.mean(axis=0))
            some_mass = (mass != 0) | (noise != 0)
            pulls = (np.abs(mass - density.mean(axis=0)) / noise)[some_mass]
            note = f"median, in standard errors; {self.outside} rows outside"
            self.add(name, median(pulls), note, tolerance=MASS_TOLERANCE) if len(pulls) else self.skip(name, NO_DENSITY)
        self.flow, self.x = copy, self.placed(self.x + whole * self.rng.uniform(1e-3, 1 - 1e-3, self.x.shape))[0]
        self.columns, self.scale = Columns(copy), column_scale(self.x, copy.standardize.scale)

    def placed(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | float]:
        """Whole numbers that were placed in their cells as the copy takes them, and the logarithm of the slope of that:
        pixels go in from the line."""
        if not self.given.preprocessing.is_image:
            return x, 0.0
        entered = self.given.preprocessing.to_unconstrained(x)
        return entered.t, entered.log_det

    def add(self, name: str, value: float, note: str = "", *, tolerance: float | None = None) -> None:
        """A check that passes where value is at most the tolerance."""
        if tolerance is None:
            tolerance = TOLERANCES[name][self.wide]
        self.checks.append(Check(name, float(value), tolerance, "pass" if value <= tolerance else "FAIL", note))

    def add_largest(self, name: str, errors: np.ndarray, note: str, why_none: str) -> None:
        """A check that passes where no error of some rows is above the tolerance; without a row there is none."""
        if len(errors):
            self.add(name, largest(errors), note)
        else:
            self.skip(name, why_none)

    def skip(self, name: str, why: str) -> None:
        self.checks.append(Check(name, None, None, "not checked", why))

    def finite(self) -> None:
        """Count the rows that are NaN or infinite, and keep the rest."""
        flow, c = self.flow, self.condition
        z, log_det = _two(flow.forward(self.x, c))
        log_prob = np.asarray(flow.log_prob(self.x, c))
        latent = flow.base_under(self.conditions).sample(len(self.x) + self.outside, self.rng)
        drawn, slope = _two(flow.inverse(latent, self.conditions))
        zero = np.isneginf(log_prob)
        inside, good = np.isfinite(z).all(axis=1) & ~zero, np.isfinite(drawn).all(axis=1)
        lost = {
            "log_prob": int((~np.isfinite(log_prob) & ~zero).sum()),
            "forward": int((~inside & ~zero | np.isnan(z).any(axis=1) & ~self.columns.outside(self.x)).sum()),
            "inverse": int((~good).sum()),
        }
        note = ", ".join(f"{n} of {name}" for name, n in lost.items() if n) or "none of log_prob, forward, inverse"
        n_zero = self.outside + int(zero.sum())
        if n_zero:
            note += f"; {n_zero:,} rows of x have density 0"
        if not inside.any():
            note += "; none has a density above 0"
        n_lost = sum(lost.values()) or (0 if inside.any() else n_zero)
        self.add("rows that are not finite", n_lost, note, tolerance=0.0)
        self.x, self.z, self.log_det, self.log_prob = (v[inside] for v in (self.x, z, log_det, log_prob))
        self.condition = None if c is None else c[inside]
        self.latent, self.drawn, self.slope = latent[good], drawn[good], slope[good]
        self.drawn_condition = None if self.conditions is None else self.conditions[good]

    def round_trips(self) -> None:
        """There and back again, from both sides.

        From the latent side, a change of the result by the last digit of x is no error of the flow.
        """
        flow, c, period = self.flow, self.condition, self.columns.latent_period
        back, log_det_back = _two(flow.inverse(self.z, c))
        there = off(back, self.x, self.scale, self.columns.period).max(axis=1, initial=0)
        self.add_largest("inverse(forward(x)) = x", there, f"in a column's scale; median {median(there):.1g}", NO_DENSITY)
        found, slope = _two(flow.forward(self.drawn, self.drawn_condition))
        digit, log_digit = self.last_digit(self.drawn, self.drawn_condition, found, slope)
        here = off(found, self.latent, column_scale(self.latent, np.ones(found.shape[1])), period)
        here = np.maximum(here - digit, 0).max(axis=1, initial=0)
        self.add_largest("forward(inverse(z)) = z", here, f"in a column's scale; median {median(here):.1g}", NOTHING_DRAWN)
        sums = np.concatenate([np.abs(self.log_det + log_det_back), np.maximum(np.abs(self.slope + slope) - log_digit, 0)])
        self.add_largest("log-dets of both ways cancel", sums, f"median {median(sums):.1g}", NOTHING_DRAWN)

    def last_digit(
        self, x: np.ndarray, condition: np.ndarray | None, z: np.ndarray, log_det: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """How far z and log_det move where x moves by a few units in the last place."""
        inwards = np.median(x, axis=0) if len(x) else 0.0
        moved_z, moved_log_det = _two(self.flow.forward(np.nextafter(x, inwards), condition))
        moved = np.abs(apart(moved_z, z, self.columns.latent_period)), np.abs(moved_log_det - log_det)
        return ULPS * np.nan_to_num(moved[0]), ULPS * np.nan_to_num(moved[1])

    def densities(self) -> None:
        """log_prob against its parts, against the sampler, and against more digits."""
        flow, c = self.flow, self.condition
        parts = flow.base_under(c).log_prob(self.z) + self.log_det
        difference = np.abs(parts - self.log_prob) / np.maximum(1, np.abs(self.log_prob))
        self.add_largest("log_prob = base + log-det", difference, "relative where log_prob is above 1", NO_DENSITY)
        self.of_what_was_drawn()
        if self.copy is not flow and self.copy is not None:
            difference = np.abs(self.copy.log_prob(self.x, c) - self.log_prob)
            note = f"log_prob; median {median(difference):.1g}"
            self.add_largest("float32 = float64 copy", difference, note, NO_DENSITY)

    def of_what_was_drawn(self) -> None:
        """The density that comes with a sample against the density that the sample has."""
        c = self.drawn_condition
        x, given = self.flow.sample_and_log_prob(len(self.drawn), self.rng, condition=c)
        x, given = _two((x, given))
        drawn = np.isfinite(x).all(axis=1)
        kept = drawn & np.isfinite(given)
        without = (drawn & ~kept).sum()
        n, x, given, c = len(x), x[kept], given[kept], None if c is None else c[kept]
        found = np.asarray(self.flow.log_prob(x, c))
        moved = np.asarray(self.flow.log_prob(np.nextafter(x, np.median(x, axis=0) if len(x) else 0.0), c))
        with np.errstate(invalid="ignore"):
            difference = np.maximum(np.abs(found - given) - ULPS * np.nan_to_num(np.abs(moved - found), posinf=0.0), 0)
        note = ""
        outside = np.isneginf(found)
        if self.flow.base.support is not None and 0 < outside.sum() < EDGE_SHARE * len(outside):
            difference, note = difference[~outside], f"; {outside.sum()} rounded over the base's edge"
        note = f"median {median(difference):.1g}{note}"
        if without > EDGE_SHARE * n:
            difference, note = np.append(difference, math.nan), f"{note}; {without} came without a finite one"
        self.add_largest("log_prob of what was drawn", difference, note, NOTHING_DRAWN)

    def jacobian(self) -> None:
        """log_det against central differences."""
        name, d = "log-det = that of the Jacobian", self.flow.latent_dim
        exact = self.flow if self.copy is None else self.copy
        dtype = exact.dtype.name
        n = min(JACOBIAN_ROWS, JACOBIAN_EVALUATIONS // (2 * d * len(STEPS[dtype])))
        rows = self.rng.permutation(len(self.x))[:n]
        if not len(rows):
            self.skip(name, NO_DENSITY if n else f"{d} columns are too many")
        else:
            x, c = self.x[rows], None if self.condition is None else self.condition[rows]
            log_det = exact.forward(x, c)[1]
            line = self.columns.line
            unit = column_scale(line.to_unconstrained(self.x), self.scale) * self.columns.slope(x)
            found = [log_abs_det(exact.forward, x, c, step * unit, self.columns.latent_period) for step in STEPS[dtype]]
            errors = np.nan_to_num(np.abs(np.array(found) - log_det), nan=np.inf).min(axis=0)
            known = errors[np.isfinite(errors)]
            note = f"central differences, {len(known)} rows; median {median(known):.1g}"
            if dtype == "float32":
                note += f"; in float32, so rough: {self.why_no_copy}"
            elif exact is not self.flow:
                note += "; of a float64 copy"
            if len(known):
                self.add(name, largest(known), note, tolerance=JACOBIAN_TOLERANCE[dtype])
            else:
                self.skip(name, "the differences are not finite")

    def dependence(self) -> None:
        """Dependence of each layer's results on its inputs, layer by layer."""
        standardize = self.flow.standardize
        d, tolerance = self.flow.latent_dim, TOLERANCES["dependence"][self.wide]
        n = max(1, min(DEPENDENCE_ROWS, DEPENDENCE_VALUES // d**2))
        h = standardize.loc + standardize.scale * self.rng.standard_normal((n, d))
        seen: dict[str, list[tuple[int, float, int, int]]] = {}
        unknown: dict[str, int] = {}
        leaves = [(i, leaf) for i, layer in enumerate(self.flow.flow_layers) for leaf, _ in layer.leaves()]
        for i, layer in leaves:
            kind, taken = type(layer).__name__.lstrip("_"), layer.input_dim  # what a split left behind is behind these
            c = self.rng.standard_normal((n, layer.condition_dim)) if layer.condition_dim else None
            promised, x = promised_dependence(layer), h[:, :taken]
            y = np.reshape(layer.forward(x, c)[0], (n, -1))
            if promised is None:
                unknown[kind] = unknown.get(kind, 0) + 1
            else:
                back = promised.T if isinstance(layer, (Permutation, Rearrangement)) else promised
                which = np.arange(taken)
                if taken > DEPENDENCE_COLUMNS:
                    which = np.sort(self.rng.choice(taken, DEPENDENCE_COLUMNS, replace=False))
                promised, back = promised[:, which], back[:, which]
                there, here = changes(layer.forward, x, c, which), changes(layer.inverse, y, c, which)
                wrong = largest(np.concatenate([there[~promised], here[~back]]))
                seen.setdefault(kind, []).append((i, wrong, int((there[promised] > 0).sum()), int(promised.sum())))
            h = np.concatenate([y, h[:, taken:]], axis=1)
        for kind, results in seen.items():
            wrong_layers = [str(i) for i, value, _, _ in results if not value <= tolerance]
            note = f"{sum(r[2] for r in results):,} of {sum(r[3] for r in results):,} allowed dependences seen, no other"
            if wrong_layers:
                note = f"layer {', '.join(wrong_layers)} of the flow: results depend on what they must not"
            worst = largest(np.array([r[1] for r in results]))
            self.add(f"dependence: {len(results)} {kind}", worst, note, tolerance=tolerance)
        for kind, count in unknown.items():
            self.skip(f"dependence: {count} {kind}", "promises none, or none that is known here")

    def integral(self) -> None:
        """The density's integral, for a few conditions where there are any."""
        contexts = [None] if self.conditions is None else list(np.unique(self.conditions, axis=0))
        if len(contexts) > CONDITIONS:
            contexts = [contexts[i] for i in self.rng.choice(len(contexts), CONDITIONS, replace=False)]
        checks = [self.integral_under(c, len(contexts)) for c in contexts]
        badness = {"pass": 0, "inconclusive": 1, "FAIL": 2}
        worst = max(checks, key=lambda check: (badness[check.verdict], check.value or 0.0))
        if len(checks) > 1:
            worst = replace(worst, note=f"{worst.note}, worst of {len(checks)} conditions")
        self.checks.append(worst)

    def integral_under(self, condition: np.ndarray | None, share: int) -> Check:
        name = "integral of the density"
        result = integrate(self.flow, condition, self.rng, share)
        value, tolerance = abs(result.value - 1), TOLERANCES[name][self.wide]
        if not result.error <= LARGEST_ERROR:
            return Check(name, value if math.isfinite(value) else None, None, "inconclusive", result.note)
        by_quadrature = JUMPS if self.flow.base.support is not None else 1
        tolerance += result.error * (by_quadrature if self.flow.latent_dim <= 2 else STANDARD_ERRORS)
        return Check(name, value, tolerance, "pass" if value <= tolerance else "FAIL", result.note)


def _two(result: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Values (n, d) and log-determinants (n,)."""
    values, log_det = result
    return np.reshape(values, (len(log_det), math.prod(np.shape(values)[1:]))), log_det
