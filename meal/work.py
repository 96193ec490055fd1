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
from typing import IO, Any
from weakref import WeakSet

from meal.files import fingerprint, sha256


class WorkFolder:
    """The folder of one run's unfinished work; its stage is locked for this process.

    The lock is the stage's, not the run's: runs of other parameters write the same outputs.
    """

    def __init__(
        self, root: Path, stage: str, identity: dict[str, Any], part: str | None = None
    ) -> None:
        """Take the folder.

        Args:
            root: the folder of all unfinished work.
            stage: the stage's name, as `teacher@vgg`.
            identity: all that decides the result: parameters and fingerprints of inputs.
            part: the name of this process's part of the work, where several share the stage.

        Raises:
            ValueError: if a living process holds it.
        """
        versions = {name: version(name) for name in ("numpy", "timm", "torch", "torchvision")}
        everything = {**identity, "code": _code_fingerprint(), "versions": versions}
        self.path = root / stage / fingerprint(everything)[:16]
        self.path.mkdir(parents=True, exist_ok=True)
        # Parts share the stage's lock, and each has one of its own.
        self._locks = [_lock(root / stage / "lock", stage, shared=part is not None)]
        if part is not None:
            self._locks.append(_lock(root / stage / f"lock-{part}", f"{stage}, part {part},"))

    def remove(self) -> None:
        """Remove the work of a run whose outputs are written."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Leave the folder to another process."""
        for lock in self._locks:
            lock.close()


_HELD: WeakSet[IO[str]] = WeakSet()


def _drop_locks() -> None:
    """Processes that this one forks, to decode images, may outlive it: locks are not theirs."""
    for lock in list(_HELD):
        lock.close()


os.register_at_fork(after_in_child=_drop_locks)


def _lock(path: Path, what: str, *, shared: bool = False) -> IO[str]:
    """Lock a file for this process; the system drops the lock with its owner, however that ended.

    Raises:
        ValueError: if a living process holds it; its id in the file is for people.
    """
    lock = path.open("a+", encoding="ascii")
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        raise ValueError(
            f"{what} is already being run by process {owner}; wait for it, or end it"
        ) from None
    _HELD.add(lock)
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _code_fingerprint() -> str:
    """A digest of the source of every `meal` module loaded: other code's work is not ours."""
    return fingerprint(
        {
            name: sha256(Path(file))
            for name, module in sys.modules.items()
            if name.partition(".")[0] == "meal" and (file := getattr(module, "__file__", None))
        }
    )
