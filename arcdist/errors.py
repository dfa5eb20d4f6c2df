"""Errors that a user can mend.

The front door prints them as one message, without a traceback, and exits with a non-zero code. A message says where
the fault is, what was found and what would work; it never echoes a secret.
"""


class ArcdistError(Exception):
    """A mistake in what the user gave; every other exception is a defect of arcdist.

    ``on_every_rank`` says that all ranks raise it alike, so that one of them tells it.
    """

    on_every_rank = False


class ConfigError(ArcdistError):
    """A key or a value of the configuration that cannot be right."""

    on_every_rank = True


class DataError(ArcdistError):
    """A file or a folder of data that is missing, damaged, or of another kind than was said."""


class NewerError(ArcdistError):
    """What a newer arcdist has written, and this one would misread."""

    on_every_rank = True
