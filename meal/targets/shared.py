"""A cache outside the pipeline: for a training loop of one's own, or from other people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from meal.core.errors import UserError
from meal.targets.cache import Array, Outputs, TargetCache, view_file
from meal.views.families import views_digest


class SharedCache:
    """A teacher's outputs for views of training images.

    Attributes:
        manifest: what the outputs depend on: teacher, weights, data, code, files.
        views: what identifies the views; `meal.views.apply` makes their pixels from it.
        present: the numbers of the views whose files are there.
    """

    def __init__(self, folder: Path) -> None:
        self._cache = TargetCache(folder, f"cache@{folder.name}")
        self.manifest: dict[str, Any] = self._cache.manifest
        self.views = {**self.manifest["views"], "image_size": self.manifest["image_size"]}
        count: int = self.manifest["view_count"]
        self.present = [v for v in range(count) if (folder / view_file(v)).is_file()]

    def __call__(self, view: int, rows: Array | slice) -> Outputs:
        """The outputs for a view of the images of `rows` `(N,)`.

        `.logits` is `(N, C)`, log-probabilities if only the k largest are stored; `.block(k)` is
        `(N, D)`; both are float32.

        Raises:
            UserError: if the file of this view is not there, or is damaged.
        """
        if view not in self.present:
            name = self._cache.folder / view_file(view)
            raise UserError(
                f"{name} is not there; fetch it, for example with dvc pull {name}, or use one of "
                f"the {len(self.present)} views that are"
            )
        return self._cache.outputs(view, rows)


def open_cache(
    folder: str | Path, *, data: str | None = None, weights: str | None = None
) -> SharedCache:
    """Open a cache; some of its views are enough.

    Args:
        folder: `artifacts/caches/NAME`, or a copy of it. Files are compared with their checksums
            when they are first used.
        data: the fingerprint of your prepared data (`artifacts/data/manifest.json`), to be sure
            that row i is the same image; None not to compare it.
        weights: the SHA-256 of the teacher's weights; None not to compare it.

    Raises:
        UserError: if the manifest is missing or damaged, no view is there, or data, weights, or the
            code of the views are others.
    """
    cache = SharedCache(Path(folder))
    expected = {"data": data, "weights": weights, "code": views_digest()}
    for key, value in expected.items():
        if value is not None and cache.manifest.get(key) != value:
            raise UserError(
                f"{folder}: {key} differs: the cache is for {cache.manifest.get(key)}, not {value}"
            )
    if not cache.present:
        raise UserError(
            f"{folder}: no view is there; fetch some (dvc pull {folder}/{view_file(0)}), or build "
            "the cache with cache.enabled: true"
        )
    return cache
