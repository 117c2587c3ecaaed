"""The one exception that a person sees."""


class LabError(RuntimeError):
    """What went wrong, in one sentence that says what to do about it."""
