"""How a stage runs as a command: its argument, its exit status, its errors."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from meal.core import ranks
from meal.core.errors import UserError, log_to_stderr, user_message
from meal.core.launch import launch, leave_message, process_count, this_command
from meal.core.orphans import leave_with_parent
from meal.core.paths import CONFIG
from meal.core.runtime import load_runtime
from meal.core.signals import Interrupted
from meal.core.text import printable


def teacher_argument(arguments: Sequence[str]) -> str:
    """The teacher named on the command line: `vgg` in `python -m stages.teacher vgg`.

    Raises:
        UserError: if there is no such teacher, or anything else.
    """
    known = sorted(path.stem for path in (CONFIG / "teachers").glob("*.json"))
    if len(arguments) != 1 or (known and arguments[0] not in known):
        raise UserError(
            f"{' '.join(arguments) or 'no name'}: expected the name of a teacher; "
            + (f"allowed: {', '.join(known)}" if known else "run: dvc repro configure")
        )
    return arguments[0]


def run_stage(main: Callable[[], None], *, ranked: bool = False) -> None:
    """Run a stage; print an error that the user can fix, one line per fault, and exit with 1.

    Args:
        main: the stage.
        ranked: whether several ranks can share its work, as `runtime.processes` says.
    """
    if ranks.size() > 1:
        _run_rank(main)
        return
    log_to_stderr()
    if "DVC_STAGE" in os.environ:
        leave_with_parent()
    # As an exception, so that nothing half-written is left.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if ranked:
            _run_ranked(main)
        else:
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


def _run_ranked(main: Callable[[], None]) -> None:
    """Run a stage as one process or several, as `runtime.processes` and `runtime.nodes` say."""
    runtime = load_runtime()
    if runtime.nodes > 1:
        from meal.core.cluster import launch_on_all

        launch_on_all(this_command())
        return
    processes = process_count(runtime)
    if processes > 1:
        launch(this_command(), processes)
    else:
        main()


def _run_rank(main: Callable[[], None]) -> None:
    """Run a stage as one of its ranks; the launcher prints errors."""
    from meal.core.collectives import leave

    leave_with_parent()
    if ranks.is_first():
        log_to_stderr()
    else:  # what it would say, the first rank says
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        logging.getLogger("meal").addHandler(logging.NullHandler())
        warnings.simplefilter("ignore")
    try:
        main()
        leave()
    except Exception as error:
        leave_message(error)
        # At once: collectives of other threads may never end.
        sys.stdout.flush()
        os._exit(error.status if isinstance(error, Interrupted) else 1)
