"""Folders of unfinished work, each for exactly one set of parameters, inputs and code.

The folder is `.checkpoints/<stage>/<hash>/`, where the hash covers the stage's parameters, its
inputs and the code it has loaded. DVC deletes a stage's outputs before each run but leaves this
folder alone, so an interrupted stage resumes where it stopped, and never from another run's state.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any
from weakref import WeakSet

import meal
from meal.core import ranks
from meal.core.digests import code_digest, fingerprint
from meal.core.errors import UserError
from meal.core.files import write_json

IDENTITY = ".json"  # the file beside each folder: the parameters and inputs that it is for

LOCK = "lock"  # the file in a stage's folder that a running process locks

_LEAVING = " is leaving"  # follows the process's id in the lock file
# How long to wait for a lock: of any process, and of one that is leaving.
_SECONDS, _LEAVING_SECONDS = 3.0, 600.0


class WorkFolder:
    """The folder of one run's unfinished work; it locks the stage for this process.

    The lock covers the whole stage, because runs with other parameters write the same outputs.
    """

    def __init__(
        self, root: Path, stage: str, identity: dict[str, Any], part: str | None = None
    ) -> None:
        """Create the folder and take the lock.

        Args:
            root: the folder of all unfinished work.
            stage: the name of the stage, such as `teacher@vgg`.
            identity: everything that decides the result: parameters and fingerprints of inputs.
            part: the name of this process's part, if several processes share the stage.

        Raises:
            UserError: if a running process holds the lock.
        """
        versions = {name: version(name) for name in ("numpy", "timm", "torch", "torchvision")}
        everything = {**identity, "code": _loaded_code(), "versions": versions}
        self.path = root / stage / fingerprint(everything)[:16]
        self.path.mkdir(parents=True, exist_ok=True)
        self._identity = self.path.with_suffix(IDENTITY)
        self._locks: list[IO[str]] = []
        if not ranks.is_first():  # the first rank holds the locks for all
            return
        write_json(self._identity, identity, shared=part is not None)
        # Parts share the lock of the stage, and each has a lock of its own.
        self._locks.append(_lock(root / stage / LOCK, stage, shared=part is not None))
        if part is not None:
            self._locks.append(_lock(root / stage / f"lock-{part}", f"{stage}, part {part},"))

    def remove(self) -> None:
        """Remove the folder once the outputs are written, in the first rank; release the locks."""
        if not ranks.is_first():
            return
        shutil.rmtree(self.path, ignore_errors=True)
        self._identity.unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """Release the locks."""
        for lock in self._locks:
            lock.close()


def is_running(stage: Path) -> bool:
    """Whether a process holds the lock of a stage's folder below the folder of unfinished work."""
    try:
        with (stage / LOCK).open("r", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def say_leaving() -> None:
    """Tell processes that wait for the locks of this one that it saves its work and ends."""
    for lock in list(_HELD):
        with contextlib.suppress(OSError, ValueError):  # it has just been released
            lock.write(_LEAVING)
            lock.flush()


_HELD: WeakSet[IO[str]] = WeakSet()


def _drop_locks() -> None:
    """Release the locks in a forked process: one that decodes images may outlive this one."""
    for lock in list(_HELD):
        lock.close()


os.register_at_fork(after_in_child=_drop_locks)


def _lock(path: Path, what: str, *, shared: bool = False) -> IO[str]:
    """Lock a file for this process; the system drops the lock when the process ends.

    A stage whose `dvc repro` was killed soon notices and leaves: wait for it.

    Raises:
        UserError: if a running process holds it. The file holds that process's id, for the message.
    """
    lock = path.open("a+", encoding="ascii")
    started = time.monotonic()
    while True:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            lock.seek(0)
            owner, leaves, _ = lock.read().partition(_LEAVING)
            if time.monotonic() - started > (_LEAVING_SECONDS if leaves else _SECONDS):
                raise UserError(
                    f"{what} is already being run by process {owner.strip() or 'unknown'}; wait "
                    "for it, or stop it"
                ) from None
            time.sleep(0.1)
    _HELD.add(lock)
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _loaded_code() -> str:
    """A code digest of all modules of this package that are loaded."""
    package = Path(meal.__file__).parent
    files = [
        Path(file)
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "meal" and (file := getattr(module, "__file__", None))
    ]
    return code_digest(files, package)
