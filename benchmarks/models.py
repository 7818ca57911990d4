"""Whole models: density, samples, train steps."""

from __future__ import annotations

import numpy as np

from .common import DTYPES, MODELS, SIZES, TrainStep, few, make_data, make_flow


class LogProb:
    """log_prob of a batch."""

    params = (list(MODELS), few(*SIZES), few(1, 256, 4096, 65536), few(*DTYPES))
    param_names = ("model", "size", "batch", "dtype")
    timeout = 300

    def setup(self, model: str, size: str, batch: int, dtype: str) -> None:
        self.flow = make_flow(model, size, dtype)
        self.x = make_data(batch, self.flow.input_dim)
        self.flow.log_prob(self.x)

    def time_log_prob(self, model: str, size: str, batch: int, dtype: str) -> None:
        self.flow.log_prob(self.x)


class LogProbOfOneRow:
    """log_prob of a single row without its axis, as MCMC codes call it, and with its gradient."""

    params = (list(MODELS), few(*SIZES))
    param_names = ("model", "size")
    timeout = 180

    def setup(self, model: str, size: str) -> None:
        self.flow = make_flow(model, size)
        self.x = make_data(1, self.flow.input_dim)[0]
        self.flow.log_prob_and_grad(self.x)
        self.flow.log_prob(self.x)

    def time_log_prob(self, model: str, size: str) -> None:
        self.flow.log_prob(self.x)

    def time_log_prob_and_grad(self, model: str, size: str) -> None:
        self.flow.log_prob_and_grad(self.x)


class Sample:
    """Drawing samples."""

    params = (list(MODELS), few(*SIZES), few(1, 256, 4096), few(*DTYPES))
    param_names = ("model", "size", "batch", "dtype")
    timeout = 300

    def setup(self, model: str, size: str, batch: int, dtype: str) -> None:
        self.flow, self.rng = make_flow(model, size, dtype), np.random.default_rng(0)
        self.flow.sample(batch, rng=self.rng)

    def time_sample(self, model: str, size: str, batch: int, dtype: str) -> None:
        self.flow.sample(batch, rng=self.rng)


class Train:
    """A train step as `fit` takes it: gather, loss, gradient, clip, Adam."""

    params = (list(MODELS), few(*SIZES), few(256, 512, 4096), few(*DTYPES))
    param_names = ("model", "size", "batch", "dtype")
    timeout = 300

    def setup(self, model: str, size: str, batch: int, dtype: str) -> None:
        self.step = TrainStep(make_flow(model, size, dtype), batch)
        self.step()

    def time_step(self, model: str, size: str, batch: int, dtype: str) -> None:
        self.step()
