"""The images that the student sees: whether there are enough of each kind."""

from __future__ import annotations

from meal.core.errors import UserError
from meal.data.prepared import Pool, Prepared


def check_pool(data: Prepared, pool: Pool, share: float | None, batch_size: int) -> None:
    """Check that the training images can fill the batches that `distill` asks for.

    Args:
        data: the prepared data.
        pool: `distill.pool`.
        share: `distill.labelled_share`.
        batch_size: images per batch.

    Raises:
        UserError: if there are no unlabelled images, or fewer of a kind than in a batch.
    """
    labelled, unlabelled = (len(data.training_rows(kind)) for kind in ("labelled", "unlabelled"))
    if not unlabelled and (pool == "unlabelled" or share is not None):
        key, value = ("pool", f"{pool!r}") if share is None else ("labelled_share", f"{share:g}")
        raise UserError(
            f"distill.{key}={value}: every training image has a label; set data.labelled below "
            f"{labelled}, or {'all' if share is None else 'auto'}"
        )
    if share is None:
        return
    known = labelled_in_batch(share, batch_size)
    if known > labelled or batch_size - known > unlabelled:
        raise UserError(
            f"distill.labelled_share={share:g}: a batch would have {known} labelled and "
            f"{batch_size - known} unlabelled images, but there are {labelled} and {unlabelled}; "
            "lower distill.batch_size or change the share"
        )


def labelled_in_batch(share: float, batch_size: int) -> int:
    """The number of labelled images in a batch, at least one of each kind."""
    return min(batch_size - 1, max(1, round(share * batch_size)))
