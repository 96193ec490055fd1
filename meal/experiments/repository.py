"""The project's repository, as DVC opens it."""

from __future__ import annotations

from dvc.exceptions import DvcException
from dvc.repo import Repo
from scmrepo.exceptions import SCMError

from meal.core.errors import UserError


def open_repository() -> Repo:
    """The DVC repository of the current folder.

    Raises:
        UserError: if the folder is not a git repository with DVC.
    """
    try:
        repo = Repo()
        repo.scm.get_rev()  # fails outside of git, and before the first commit
    except (DvcException, SCMError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"experiments and revisions need a git repository with DVC and a commit ({reason}); "
            "clone the project with git"
        ) from None
    return repo
