"""How a stage runs as a command: its argument, its exit status, its errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from meal.core.errors import UserError, log_to_stderr, user_message
from meal.core.orphans import leave_with_parent
from meal.core.paths import CONFIG
from meal.core.signals import Interrupted
from meal.core.text import printable


def teacher_argument() -> str:
    """The teacher named on the command line: `vgg` in `python -m stages.teacher vgg`.

    Raises:
        UserError: if there is no such teacher.
    """
    known = sorted(path.stem for path in (CONFIG / "teachers").glob("*.json"))
    if len(sys.argv) != 2 or (known and sys.argv[1] not in known):
        raise UserError(
            f"{' '.join(sys.argv[1:]) or 'no name'}: expected the name of a teacher; "
            + (f"allowed: {', '.join(known)}" if known else "run: dvc repro configure")
        )
    return sys.argv[1]


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage; print an error that the user can fix, one line per fault, and exit with 1."""
    log_to_stderr()
    if "DVC_STAGE" in os.environ:
        leave_with_parent()
    try:
        main()
    except Interrupted as error:
        print(error, file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        print("interrupted; resume with: dvc repro", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        for line in message.splitlines():
            print(f"error: {printable(line)}", file=sys.stderr)
        sys.exit(1)
