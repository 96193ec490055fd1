"""What a user can fix is a line; a bug keeps its traceback."""

from __future__ import annotations

import errno
import logging

import pytest

from meal.core import stage
from meal.core.errors import UserError, log_to_stderr, user_message
from meal.core.signals import Interrupted


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (UserError("a=1: allowed: 2"), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (FileNotFoundError(errno.ENOENT, "No such file", "reports/x.csv"), True),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "artifacts"), True),
        (ValueError("operands could not be broadcast together"), False),
        (RuntimeError("shape mismatch"), False),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), False),
    ],
)
def test_only_what_a_user_can_fix_has_a_message(error: Exception, shown: bool) -> None:
    assert (user_message(error) == str(error)) is shown
    assert (user_message(error) is None) is not shown


def fails(error: BaseException) -> None:
    raise error


def test_a_stage_prints_a_line_for_each_fault(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        stage.run_stage(lambda: fails(UserError("one\ntwo")))
    assert left.value.code == 1 and capsys.readouterr().err == "error: one\nerror: two\n"


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ValueError, match="a bug"):
        stage.run_stage(lambda: fails(ValueError("a bug")))


@pytest.mark.parametrize(
    ("error", "status"), [(Interrupted(15, "saved"), 143), (KeyboardInterrupt(), 130)]
)
def test_a_stage_that_was_asked_to_end_says_so(error: BaseException, status: int) -> None:
    with pytest.raises(SystemExit) as left:
        stage.run_stage(lambda: fails(error))
    assert left.value.code == status


def test_warnings_are_lines_like_errors(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("meal")
    before, logger.handlers = logger.handlers, []
    try:
        log_to_stderr()
        logging.getLogger("meal.data").warning("%d equal images", 3)
    finally:
        logger.handlers = before
    assert capsys.readouterr().err == "warning: 3 equal images\n"
