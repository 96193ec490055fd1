"""Errors: one that a user can fix is a `UserError`; any other is a bug and keeps its traceback."""

from __future__ import annotations

import errno
import logging

# Faults of the machine, not of the code, also where the error names no file.
_ENVIRONMENT = {errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENOMEM, errno.ENOSPC}


class UserError(Exception):
    """An error that the user can fix. Commands print its message without a traceback.

    The message has one line per fault; each names the key or file, the value, and what is allowed
    or which command to run next.
    """


def user_message(error: BaseException) -> str | None:
    """The message to print for an error that the user can fix; None for any other."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and (error.filename or error.errno in _ENVIRONMENT):
        return str(error)  # of a file or folder: missing, in the way, not accessible, no space
    return None


class _Formatter(logging.Formatter):
    """`warning: message`, in the form of `error: message`."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {record.getMessage()}"


def log_to_stderr() -> None:
    """Print the warnings of this package to standard error, one line each."""
    logger = logging.getLogger("meal")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_Formatter())
        logger.addHandler(handler)
