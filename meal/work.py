"""Folders of unfinished work: of exactly these parameters and inputs, one process a stage.

Work lies in `.checkpoints/<stage>/<hash>/`, where the hash covers the stage's parameters, its
inputs and the code it has loaded. DVC deletes a stage's outputs before it runs; this lies outside
them, so an interrupted stage goes on where it stopped, and never with another run's state.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from meal.files import fingerprint, sha256


class WorkFolder:
    """The folder of one run's unfinished work; its stage is locked for this process.

    The lock is the stage's, not the run's: runs of other parameters write the same outputs.
    """

    def __init__(self, root: Path, stage: str, identity: dict[str, Any]) -> None:
        """Take the folder.

        Args:
            root: the folder of all unfinished work.
            stage: the stage's name, as `teacher@vgg`.
            identity: all that decides the result: parameters and fingerprints of inputs.

        Raises:
            ValueError: if a living process holds it.
        """
        versions = {name: version(name) for name in ("numpy", "timm", "torch", "torchvision")}
        everything = {**identity, "code": _code_fingerprint(), "versions": versions}
        self.path = root / stage / fingerprint(everything)[:16]
        self.path.mkdir(parents=True, exist_ok=True)
        # The system drops the lock with its owner, however that ended; the id is for people.
        self._lock = (root / stage / "lock").open("a+", encoding="ascii")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            owner = self._lock.read().strip() or "unknown"
            raise ValueError(
                f"{stage} is already being run by process {owner}; wait for it, or end it"
            ) from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    def remove(self) -> None:
        """Remove the work of a run whose outputs are written."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _code_fingerprint() -> str:
    """A digest of the source of every `meal` module loaded: other code's work is not ours."""
    return fingerprint(
        {
            name: sha256(Path(file))
            for name, module in sys.modules.items()
            if name.partition(".")[0] == "meal" and (file := getattr(module, "__file__", None))
        }
    )
