"""Errors of npflows' own."""


class TrainingError(RuntimeError):
    """Training could not go on; the flow holds its best parameters so far."""


class CudaError(RuntimeError):
    """A flow can't run on a GPU here, or no longer; on the CPU it is as it was."""
