"""The error of all that is exported."""


class NotExportableError(NotImplementedError):
    """What a flow has that no file can hold; the message names it and says what to do."""
