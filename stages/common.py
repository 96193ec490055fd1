"""What every stage shares: where things lie, how a stage begins, and how it fails."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from meal.config.loading import load_params
from meal.config.schema import Runtime
from meal.interruption import Interrupted

PARAMS = Path("params.yaml")
CONFIG = Path("artifacts/config")
DATA = Path("artifacts/data")
TEACHERS = Path("artifacts/teachers")
CACHES = Path("artifacts/caches")
ENSEMBLE = Path("artifacts/ensemble")
BASELINE = Path("artifacts/baseline")
STUDENT = Path("artifacts/student")
PREDICTIONS = Path("artifacts/predictions")
REPORTS = Path("reports")
TRAINING = REPORTS / "training"
CHECKPOINTS = Path(".checkpoints")


def runtime() -> Runtime:
    """What changes speed alone: read from params.yaml itself, part of no stage's slice."""
    return load_params(PARAMS).runtime


def name_argument() -> str:
    """The stage's item: `python -m stages.teacher vgg`."""
    known = sorted(path.stem for path in (CONFIG / "teachers").glob("*.json"))
    if len(sys.argv) != 2 or (known and sys.argv[1] not in known):
        raise ValueError(
            f"{' '.join(sys.argv[1:]) or 'no name'}: the name of a teacher is expected; "
            + (f"allowed: {', '.join(known)}" if known else "run: dvc repro configure")
        )
    return sys.argv[1]


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage; a fault the user can mend is one line each, and exit status 1."""
    try:
        main()
    except (ValueError, OSError) as error:  # OSError: a full disk, a folder that may not be read
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
    except Interrupted as error:
        print(error, file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        print("interrupted; go on with: dvc repro", file=sys.stderr)
        sys.exit(130)
