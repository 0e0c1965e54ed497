"""What several notebooks draw and ask in the same way. Nothing here decides anything about a feed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson
from matplotlib.axes import Axes

from retrieval.catalogue import Catalogue
from retrieval.videos import Video
from retrieval.view import View

Float = npt.NDArray[np.floating]

TENANT = os.environ.get("TENANT", "pycon-us")
"""Whom the notebooks are about: any tenant of the stores that FEED_* names, by default one of `make run`."""

LETTERS_UP_TO = 0x2190
"""Latin, Greek, Cyrillic, punctuation: what the font of matplotlib has."""


@dataclass(frozen=True)
class Plane:
    """Two directions in which vectors differ most (their first principal components), to draw them by."""

    centre: Float
    axes: Float

    @staticmethod
    def of(vectors: Float) -> Plane:
        """The plane of float[n, d]."""
        centre = vectors.mean(axis=0)
        return Plane(centre, np.linalg.svd(vectors - centre, full_matrices=False)[2][:2])

    def __call__(self, vectors: Float) -> Float:
        """float[2, n]: where float[n, d] lie."""
        return ((vectors - self.centre) @ self.axes.T).T


def titles(view: View, items: Sequence[int], chars: int = 60) -> list[str]:
    """The beginnings of the titles of item numbers that are in the index, without what plots have no letters for."""
    rows = view.snapshot.rows(np.array(items, np.uint32))
    found = [orjson.loads(card + b"}")["title"] for card in view.snapshot.cards(rows)]
    return ["".join(letter for letter in title if ord(letter) < LETTERS_UP_TO)[:chars] for title in found]


async def published(catalogue: Catalogue, tenant: str) -> list[Video]:
    """Every published video of a tenant, by item number."""
    videos: list[Video] = []
    async for chunk in (await catalogue.changes(tenant, 0)).chunks():
        videos += [video for video in chunk if video.status == "published"]
    return videos


def quiet_axes(axes: Axes, title: str, x: str = "", y: str = "") -> None:
    """A title, what the axes say, and no frame."""
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
