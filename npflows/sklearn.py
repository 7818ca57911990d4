"""scikit-learn estimators: a flow as density, classifier and outlier detector.

This module needs scikit-learn; no other module imports it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.base import Base
from npflows.core.absent import is_masked
from npflows.core.checks import as_choice, as_int, as_numeric, as_positive, as_weights
from npflows.core.columns import listed
from npflows.core.frames import named_columns, names_of
from npflows.core.numbers import computed, numbers_of
from npflows.core.table import with_roles
from npflows.core.tables import Header, Headers, as_array, learned_units
from npflows.core.underflow import ignore_underflow
from npflows.core.units import unit_of
from npflows.ensemble import Ensemble
from npflows.flow import NormalizingFlow
from npflows.models.table import TABLE_MODELS
from npflows.support.declaration import SupportLike
from npflows.training.missing import MissingLike, as_missing, by_column, is_nan
from npflows.training.repeats import as_many_rows, distinct_rows
from npflows.training.rows import Rows

try:
    from scipy.special import log_softmax  # comes with scikit-learn
    from sklearn.base import BaseEstimator, ClassifierMixin, DensityMixin, OutlierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise ImportError("npflows.sklearn needs scikit-learn: pip install 'npflows[sklearn]'") from error
try:
    from sklearn.utils.validation import validate_data
except ImportError:  # scikit-learn before 1.6

    def validate_data(estimator: Any, *args: Any, ensure_all_finite: bool | str = True, **options: Any) -> Any:
        return estimator._validate_data(*args, force_all_finite=ensure_all_finite, **options)


if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FlowClassifier", "FlowDensity", "FlowOutlierDetector"]

COMMON = (
    "hidden_dims", "activation", "residual_blocks", "actnorm", "base_distribution", "support", "dtype",
)  # fmt: skip
"""Parameters of every model beside the number of layers, for which RealNVP has another name."""
SPECIFIC = (
    "num_bins", "tail_bound", "conditioner", "linear", "min_bin_width", "min_bin_height", "min_derivative",
    "reverse_ordering", "orders", "scale_activation", "mask_type",
)  # fmt: skip
"""Parameters that only some models have; None stands for the model's default."""
TRAINING = (
    "validation_fraction", "standardize", "max_epochs", "max_seconds", "batch_size", "learning_rate", "schedule",
    "warmup_steps", "weight_decay", "dropout", "clip_norm", "patience", "ema", "on_invalid", "missing", "on_missing",
    "progress", "callbacks",
)  # fmt: skip
"""Parameters of `NormalizingFlow.fit`."""


@dataclass(eq=False, repr=False)
class _FlowEstimator(BaseEstimator):
    """Base class of the estimators: the parameters of the constructor, and how a flow is made from them and fitted.

    By the convention of scikit-learn `fit` checks the parameters.
    """

    model: str = "spline"
    _: KW_ONLY
    num_layers: int = 8
    hidden_dims: Sequence[int] = (64, 64, 64)
    activation: str = "relu"
    residual_blocks: int = 0
    actnorm: bool = False
    base_distribution: str | Base = "normal"
    support: SupportLike | None = None
    dtype: DTypeLike = "float32"
    num_bins: int | None = None
    tail_bound: float | None = None
    conditioner: str | None = None
    linear: str | None = None
    min_bin_width: float | None = None
    min_bin_height: float | None = None
    min_derivative: float | None = None
    reverse_ordering: bool | None = None
    orders: str | Sequence[ArrayLike] | None = None
    scale_activation: str | None = None
    mask_type: str | None = None
    validation_fraction: float = 0.1
    standardize: bool | str = "auto"
    max_epochs: int = 100
    max_seconds: float | None = None
    batch_size: int | None = None
    learning_rate: float = 3e-3
    schedule: str = "cosine"
    warmup_steps: int | None = None
    weight_decay: float = 0.0
    dropout: float | str | None = "auto"
    clip_norm: float | None = 5.0
    patience: int | None = 15
    ema: float | None = 0.99
    on_invalid: str = "raise"
    missing: MissingLike | None = None
    on_missing: str = "drop"
    progress: bool | str = False
    callbacks: Callable | Iterable[Callable] = ()
    n_flows: int = 1
    random_state: int | np.random.RandomState | None = None

    def _make_flow(self, input_dim: int, condition_dim: int, rng: np.random.Generator) -> NormalizingFlow:
        entry = TABLE_MODELS[as_choice(self.model, "model", list(TABLE_MODELS))]
        options = {name: getattr(self, name) for name in COMMON}
        options[entry.depth] = self.num_layers
        specific = {name: getattr(self, name) for name in SPECIFIC if getattr(self, name) is not None}
        unknown = [name for name in specific if name not in signature(entry.model_class).parameters]
        if unknown:
            raise ValueError(f"model={self.model!r} has no parameter {', '.join(unknown)}: leave it at None")
        if condition_dim:
            options["embedding_dims"] = self.embedding_dims
        flow = entry.build(input_dim, condition_dim=condition_dim, columns=self._names(), rng=rng, **options, **specific)
        flow.units = self.units_
        return flow

    def _fit_flow(self, rows: np.ndarray, weight: np.ndarray, condition: np.ndarray | None = None) -> None:
        rng = _generator(self.random_state)
        flow = self._make_flow(rows.shape[1], 0 if condition is None else condition.shape[1], rng)
        options = {name: getattr(self, name) for name in TRAINING}
        if condition is not None and self.missing is not None and not isinstance(self.missing, Mapping):
            options["missing"] = {("x", i): self.missing for i in range(rows.shape[1])}  # the classes are not missing
        given = as_many_rows(flow, Rows(rows, np.arange(len(rows)), weight, condition))
        options.update(sample_weight=given.weight, condition=given.condition, rng=rng)
        if as_int(self.n_flows, "n_flows") == 1:
            self.flow_: NormalizingFlow | Ensemble = flow.fit(given.x, **options)
            self.n_iter_ = len(flow.history.get("epoch", ()))
            return
        shape = flow.input_dim, flow.condition_dim
        self.flow_ = Ensemble.fit(lambda seed: self._make_flow(*shape, np.random.default_rng(seed)), given.x, self.n_flows,
                                  processes=1, **options)  # fmt: skip
        self.n_iter_ = max(len(history.get("epoch", ())) for history in self.flow_.history)

    def _training_data(self, X: ArrayLike, y: ArrayLike = "no_validation") -> Any:
        self.units_: list[str | None] | None = _units_of(X)
        X, names = _table(X, self.units_)
        if isinstance(y, np.ma.MaskedArray):
            if y.mask.any():
                raise ValueError(f"y has {int(y.mask.sum())} masked entries; leave these rows out")
            y = y.data
        found = validate_data(self, X, y, dtype=[np.float64, np.float32], ensure_min_samples=2, ensure_all_finite=False)
        if names is not None:
            self.feature_names_in_ = np.array(names, object)
        rows = found[0] if isinstance(found, tuple) else found
        headers = Headers(Header(rows.shape[1], "feature_names_in_", self._names()), Header(0, "condition"))
        self._refuse_invalid(rows, headers)
        return found

    def _data(self, X: ArrayLike, *, finite: bool = True) -> np.ndarray:
        """X as numbers; it must be finite, or with finite=False have no more than `fit` takes."""
        check_is_fitted(self)
        declared = as_missing(self.flow_.headers, self.missing, self.on_missing)
        X, names = _table(X, self.units_, () if declared is None else declared.values)
        with warnings.catch_warnings():
            if names is not None and hasattr(self, "feature_names_in_"):
                _check_names(names, list(self.feature_names_in_))
                warnings.filterwarnings("ignore", "X does not have valid feature names")
            found = validate_data(self, X, dtype=[np.float64, np.float32], reset=False, ensure_all_finite=False)
        self._refuse_invalid(found, None if finite else self.flow_.headers)
        return found

    def _names(self) -> list[str] | None:
        """The names of the columns, None where they have none."""
        names = getattr(self, "feature_names_in_", None)
        return None if names is None else list(names)

    def _refuse_invalid(self, rows: np.ndarray, headers: Headers | None) -> None:
        """Refuse NaN and infinity in rows (n, d), unless they may be there; without the columns of a flow, all of them."""
        if headers is not None and self.on_invalid == "drop":
            return
        bad = ~np.isfinite(rows)
        if headers is not None and (declared := as_missing(headers, self.missing, self.on_missing)) is not None:
            bad &= ~declared.entries(rows)
        if not bad.any():
            return
        masked = is_masked(rows) & bad
        counts = by_column(masked, self._names())
        kinds = [f"masked entries ({listed(counts)})"] if counts else []
        kinds += ["NaN"] if (np.isnan(rows) & bad & ~masked).any() else []
        kinds += ["infinity"] if np.isinf(rows[bad]).any() else []
        which = np.flatnonzero(bad.any(axis=1))
        shown = listed(list(map(str, which)))
        how = "leave these rows out" if headers is None else (
            f'clean them, or make the estimator with on_invalid="drop", or missing="{"masked" if counts else "nan"}"'
        )  # fmt: skip
        raise ValueError(f"X contains {' and '.join(kinds)} in {len(which)} rows ({shown}): {how}")

    def _all_finite(self) -> bool | str:
        """Whether scikit-learn shall refuse NaN and infinity (True), infinity alone ("allow-nan") or neither (False)."""
        if self.on_invalid == "drop":
            return False
        declared = self.missing.values() if isinstance(self.missing, Mapping) else [self.missing]
        return "allow-nan" if any(map(is_nan, declared)) else True

    def _usable(self, rows: np.ndarray, *, complete: bool = False) -> np.ndarray:
        """Whether `fit` trains on each row (n,); with complete=True, whether in addition no entry of it is missing."""
        missing = as_missing(self.flow_.headers, self.missing, self.on_missing)
        absent = np.zeros(rows.shape, bool) if missing is None else missing.entries(rows)
        if complete or self.on_missing == "drop":
            return (np.isfinite(rows) & ~absent).all(axis=1)
        return (np.isfinite(rows) | absent).all(axis=1) & ~absent.all(axis=1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self._all_finite() is not True
        return tags

    def _more_tags(self) -> dict[str, Any]:  # scikit-learn before 1.6
        return {"allow_nan": self._all_finite() is not True}


class FlowDensity(DensityMixin, _FlowEstimator):
    """Density estimation with a normalizing flow, as a scikit-learn estimator.

    Parameters have the names that models and `NormalizingFlow.fit` give them.  The defaults suit tables of some hundred to
    some ten thousand rows and take seconds; for a good density of more data raise `num_layers`, `hidden_dims` and
    `max_epochs`, and lower `learning_rate`.

    The result depends on the distinct rows and their total weights alone: an integer weight is the same as repeating a
    row, weight 0 the same as leaving it out, the order of the rows does not matter, and no row is both trained on and
    validated with.  Tables on a grid whose cells hold many rows are split by rows, for all that: see `NormalizingFlow.fit`.

    Parameters
    ----------
    model : {"maf", "spline", "realnvp", "iaf"}
        `MAF`, `NeuralSplineFlow`, `RealNVP` (two columns or more) or `IAF`.
    num_layers : int
        For RealNVP its `num_coupling_layers`.
    hidden_dims, activation, residual_blocks, actnorm, base_distribution, support, dtype
        See the model.
    num_bins, tail_bound, conditioner, linear, min_bin_width, min_bin_height, min_derivative
        Of the spline model alone; None, as for all that follow, is the model's own default.
    reverse_ordering
        Of maf and iaf.
    orders
        Of spline, maf and iaf.
    scale_activation
        Of maf, iaf and realnvp.
    mask_type
        Of realnvp.
    validation_fraction, standardize, max_epochs, max_seconds, batch_size, learning_rate, schedule, warmup_steps,
    weight_decay, dropout, clip_norm, patience, ema, progress, callbacks
        See `NormalizingFlow.fit`.
    on_invalid, missing, on_missing
        See `NormalizingFlow.fit`.  With on_invalid="drop", or "nan" or "masked" among what is missing, X may have such
        entries, and `score_samples` gives NaN for their rows.
    n_flows : int
        Flows that are fitted one after the other to the same rows, and whose mixture is the density: an `Ensemble`.
    random_state : int, numpy.random.RandomState or None
        Draws first weights, the validation rows and the batches; None is NumPy's global generator, as everywhere in
        scikit-learn.

    Attributes
    ----------
    flow_ : NormalizingFlow or Ensemble
        What was fitted; `flow_.history` has the results of each epoch.
    n_iter_ : int
        Epochs that were trained.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where X had names of columns.
    units_ : list of str or None
        The unit of each column, None for one without; None where no column has any.  Other units are converted into them,
        and densities are per these units.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from npflows.sklearn import FlowDensity
    >>> x, _ = make_moons(1000, noise=0.1, random_state=0)
    >>> density = FlowDensity(random_state=0).fit(x)
    >>> density.score_samples(x).shape, density.sample(3).shape
    ((1000,), (3, 2))
    """

    def fit(self, X: ArrayLike, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None) -> Self:
        """Fit a new flow.

        Parameters
        ----------
        X : array_like (n_samples, n_features)
            At least two rows.
        y : ignored
        sample_weight : array_like (n_samples,), optional
            Non-negative weights of the rows.

        Raises
        ------
        ValueError, TypeError
            If data or a parameter does not fit, a parameter that the model does not have included.
        TrainingError
            If the loss stays non-finite in spite of lower learning rates.
        """
        X, sample_weight = _with_weights(X, sample_weight)
        self._fit_flow(*distinct(self._training_data(X), sample_weight))
        return self

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """Log-density (n_samples,) of each row of X (n_samples, n_features)."""
        X = self._data(X, finite=False)
        return self.flow_.log_prob(X)

    def score(self, X: ArrayLike, y: ArrayLike | None = None) -> float:
        """Mean log-density of the rows of X, as for `GaussianMixture`; `KernelDensity` has the sum.

        Rows with missing entries are left out, and with on_invalid="drop" those with NaN or infinite values.
        """
        X = self._data(X, finite=False)
        complete = self._usable(X, complete=True)
        if not complete.any():
            raise ValueError("X has no row without missing entries, and NaN or infinite values, to score")
        return float(self.flow_.log_prob(X[complete]).mean())

    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> NDArray[np.float64]:
        """Draw samples (n_samples, n_features); `random_state` is as in the constructor, and replaces it."""
        check_is_fitted(self)
        return self.flow_.sample(n_samples, _generator(random_state))


@dataclass(eq=False, repr=False)
class FlowOutlierDetector(OutlierMixin, FlowDensity):
    """Outlier detection: outliers are rows where the density of a normalizing flow is low.

    Parameters
    ----------
    contamination : float
        Share of the training rows, by weight, that are outliers; above 0 and at most 0.5.
    model, num_layers, ..., random_state
        As in `FlowDensity`.

    Attributes
    ----------
    offset_ : float
        The log-density below which a row is an outlier.
    flow_, n_iter_, n_features_in_, feature_names_in_, units_
        As in `FlowDensity`.
    """

    _: KW_ONLY
    contamination: float = 0.1

    def fit(self, X: ArrayLike, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None) -> Self:
        """Fit a new flow and set `offset_`; see `FlowDensity.fit`."""
        if as_positive(self.contamination, "contamination") > 0.5:
            raise ValueError(f"contamination must be at most 0.5, got {self.contamination!r}")
        X, sample_weight = _with_weights(X, sample_weight)
        rows, weight = distinct(self._training_data(X), sample_weight)
        self._fit_flow(rows, weight)
        complete = self._usable(rows, complete=True)
        scores, weight = self.flow_.log_prob(rows[complete]), weight[complete]
        order = np.argsort(scores)
        reached = np.cumsum(weight[order])
        n_out = np.searchsorted(reached, self.contamination * reached[-1] * (1 + 1e-9), side="right")
        self.offset_ = float(scores[order][max(n_out - 1, 0) : n_out + 1].mean())  # half way from the last one out
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """`score_samples` minus `offset_` (n_samples,): negative for outliers.  X must be finite."""
        X = self._data(X)
        return self.flow_.log_prob(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """1 for inliers, -1 for outliers (n_samples,)."""
        return np.where(self.decision_function(X) >= 0, 1, -1)


@dataclass(eq=False, repr=False)
class FlowClassifier(ClassifierMixin, _FlowEstimator):
    """Classification by Bayes' rule with the density of each class, p(class | x) = p(x | class) p(class) / p(x).

    One normalizing flow gives all densities, conditioned on the one-hot class; the classes' frequencies, by weight, are
    their priors.

    Parameters
    ----------
    embedding_dims : sequence of int
        Where given, a dense network with these hidden units, the last its output, is trained between the class and the
        layers.
    model, num_layers, ..., random_state
        As in `FlowDensity`; on_invalid, missing and on_missing concern `fit` alone; rows to classify must be finite.

    Attributes
    ----------
    classes_ : ndarray (n_classes,)
    class_prior_ : ndarray (n_classes,)
        Share of each class in the training rows.
    flow_ : NormalizingFlow
        Takes as its condition a row of the unit matrix (n_classes, n_classes).
    n_iter_, n_features_in_, feature_names_in_, units_
        As in `FlowDensity`.
    """

    _: KW_ONLY
    embedding_dims: Sequence[int] = ()

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit a new flow to X (n_samples, n_features) and its classes y (n_samples,); see `FlowDensity.fit`."""
        X, sample_weight = _with_weights(X, sample_weight)
        X, y = self._training_data(X, y)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        table, weight = distinct(np.column_stack([X, codes]), sample_weight)
        rows, codes = table[:, :-1], table[:, -1].astype(np.intp)
        n_classes = len(self.classes_)
        self._fit_flow(rows, weight, np.eye(n_classes)[codes])
        used = self._usable(rows)
        self.class_prior_ = np.bincount(codes[used], weight[used], n_classes) / weight[used].sum()
        return self

    @ignore_underflow
    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Log-probability of each class (n_samples, n_classes); the prior where no class has any density."""
        X = self._data(X)
        with np.errstate(divide="ignore"):  # a class without weight
            prior = np.log(self.class_prior_)
        joint = np.stack([self.flow_.log_prob(X, one) for one in np.eye(len(prior))], axis=1) + prior
        joint[np.isneginf(joint).all(axis=1)] = prior
        return log_softmax(joint, axis=1)

    @ignore_underflow
    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probability of each class (n_samples, n_classes)."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable class (n_samples,)."""
        best = self.predict_log_proba(X).argmax(axis=1)
        return self.classes_[best]


def distinct(table: np.ndarray, sample_weight: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows, sorted, and the total weight of each; rows of weight 0 are left out."""
    weight = as_weights(sample_weight, len(table))
    return distinct_rows(table, np.ones(len(table)) if weight is None else weight)


def _with_weights(X: Any, sample_weight: Any) -> tuple[Any, Any]:
    """X, and the weights that are given, else those that come with a `Table` of npflows."""
    X, condition, weight, log_weight = with_roles(X, None, sample_weight, None)
    if condition is not None:
        raise ValueError("the estimators take no condition: use NormalizingFlow.fit, or read the table without condition=")
    return X, as_weights(None, len(X), logarithms=log_weight) if log_weight is not None else weight


def _units_of(X: Any) -> list[str | None] | None:
    """The units of the columns of X, None where none has any."""
    named = named_columns(X, rows=False)
    if named is None:
        unit = unit_of(X)
        return [unit] * np.shape(X)[-1] if unit else None
    return learned_units(X, Header(len(named.labels), "feature_names_in_"), "X")


def _table(
    X: Any, units: list[str | None] | None, marks: Sequence[tuple[float, ...]] = ()
) -> tuple[Any, list[str] | None]:  # fmt: skip
    """X, in units, as scikit-learn takes it, and the names of its columns where scikit-learn would not see them.

    Where there are no units, data frames are looked at, for what is no number, and left to scikit-learn, which checks
    their names, unless they have masked entries, which it does not tell from NaN.
    """
    X = computed(X)
    names = names_of(X) if named_columns(X, rows=False) is not None else None
    if isinstance(X, (str, os.PathLike)):
        numbers_of(X, "X")  # says how a file is read
    if names is None and (not isinstance(X, np.ndarray) or type(X) is np.ndarray):
        return X, None
    if units is not None:  # what has none counts as in them
        array, _ = as_array(X, "X", Header(len(units), "feature_names_in_", units=units, marks=marks))
        return array, names
    array = as_numeric(X, "X")
    is_frame = any(hasattr(type(X), name) for name in ("dtypes", "column_names", "__dataframe__"))
    return (X, None) if is_frame and not is_masked(array).any() else (array, names)


def _check_names(names: list[str], fitted: list[str]) -> None:
    """Refuse columns in another order, as scikit-learn does with those of data frames."""
    if names != fitted:
        raise ValueError(
            f"The feature names should match those that were passed during fit, in the same order: {listed(fitted)}, got "
            f"{listed(names)}"
        )


def _generator(random_state: int | np.random.RandomState | None) -> np.random.Generator:
    return np.random.default_rng(check_random_state(random_state).randint(2**31 - 1, size=4))
