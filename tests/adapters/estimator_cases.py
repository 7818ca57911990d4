"""Small estimators."""

from npflows.sklearn import FlowDensity


def small(cls=FlowDensity, **parameters):
    return cls(**{"num_layers": 2, "hidden_dims": (16,), "max_epochs": 5, "random_state": 0, **parameters})
