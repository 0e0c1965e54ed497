"""From one generation's contents and what changed to the next one's. Pure but for writing the segments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from retrieval.index import KINDS
from retrieval.rows import Rows
from retrieval.segment import COMPARED, Segment
from retrieval.snapshot import Snapshot
from retrieval.store import Manifest, Store

Items = npt.NDArray[np.uint32]

MOST_BESIDE = 20_000
"""Rows beside a base of any size from which a new base is worth building: every search compares them one by one."""


@dataclass(frozen=True)
class Base:
    """A finished base segment: its name, checksum and items, and the catalogue version it covers."""

    name: str
    checksum: str
    items: Items
    version: int


@dataclass(frozen=True)
class Contents:
    """What a generation consists of: a base kept as it is, rows beside it, and the base's dead."""

    base: Base | None
    fresh: Rows
    dead: Items

    @staticmethod
    def empty(dim: int) -> Contents:
        return Contents(None, Rows.empty(dim), np.zeros(0, np.uint32))

    @staticmethod
    def of(snapshot: Snapshot, checksums: Mapping[str, str]) -> Contents:
        """The contents of a published snapshot; `checksums` by segment name, from its manifest."""
        if not snapshot.segments:
            return Contents.empty(snapshot.dim)
        first, *beside = snapshot.segments
        base = Base(first.name, checksums[first.name], first.rows.columns["item"], snapshot.version)
        return Contents(base, snapshot.live_rows(beside), snapshot.dead)

    def changed(self, rows: Rows, gone: Items) -> Contents:
        """With `rows` added or in place of their old states, and `gone` taken down. Costs what changed and lies beside
        the base, not what is in it."""
        touched = np.concatenate([rows.columns["item"], gone])
        kept = self.fresh.take(~np.isin(self.fresh.columns["item"], touched))
        dead = np.intersect1d(touched, self.base.items) if self.base else np.zeros(0, np.uint32)
        return Contents(self.base, Rows.concat([kept, rows]), np.union1d(self.dead, dead).astype(np.uint32))

    def wants_fold(self, *, fold_min_items: int) -> bool:
        """Whether so much lies beside the base (a tenth of it, or MOST_BESIDE) that a new base is worth building."""
        if self.base is None:
            return False
        most = max(fold_min_items, min(MOST_BESIDE, len(self.base.items) // 10))
        return len(self.fresh) + len(self.dead) > most

    def write(self, store: Store, facts: Manifest) -> Manifest:
        """Write the fresh segment; the manifest to publish is `facts` with its segments and dead.

        Rows without a base to lie beside become the base. Raises OSError (disk full).
        """
        segments = [(self.base.name, self.base.checksum)] if self.base else []
        if len(self.fresh):
            path = store.new_segment_path(facts.tenant, "fresh" if self.base else "base")
            segments.append((path.name, Segment.write(path, self.fresh, COMPARED if self.base else KINDS)))
        return replace(facts, segments=tuple(segments), dead=tuple(self.dead.tolist()))


def fold(store: Store, snapshot: Snapshot) -> Base:
    """All live rows of a snapshot as one new base segment. The slow part (training, adding) of a big tenant."""
    rows = snapshot.live_rows()
    path = store.new_segment_path(snapshot.tenant, "base")
    checksum = Segment.write(path, rows)
    return Base(path.name, checksum, np.sort(rows.columns["item"]), snapshot.version)


def rebased(snapshot: Snapshot, base: Base) -> Contents:
    """The same live rows as `snapshot`, on a newly folded base.

    What changed while the base was being folded has a row version above the base's and goes beside it; so does
    anything else the base does not hold.
    """
    live = snapshot.live_rows()
    fresh = live.take((live.columns["version"] > base.version) | ~np.isin(live.columns["item"], base.items))
    kept = np.setdiff1d(live.columns["item"], fresh.columns["item"])
    return Contents(base, fresh, np.setdiff1d(base.items, kept).astype(np.uint32))
