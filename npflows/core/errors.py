"""Errors of npflows' own."""


class TrainingError(RuntimeError):
    """Training could not go on; the flow holds its best parameters so far."""
