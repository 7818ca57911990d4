"""What is raised where a flow can't be taken over."""


class ConversionError(ValueError):
    """A flow of another library, or its file, that can't be taken over; the message says what is missing."""
