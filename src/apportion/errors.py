"""The one error for input that cannot be explained: surfaces show its message without a traceback."""


class InputError(ValueError):
    """Something the caller gave cannot be used; the message names it and says what is accepted."""
