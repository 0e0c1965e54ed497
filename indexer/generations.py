"""From one generation's contents and what changed to the next one's. Pure but for writing the segments.

A video that was taken down stays as a row that nobody may be shown, so that who liked it keeps that part of their
taste: REMEMBERED_S long, and as long as there are not too many of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from retrieval.behaviour import Behaviour, text_of
from retrieval.half import widened
from retrieval.index import KINDS
from retrieval.rows import Rows
from retrieval.segment import COMPARED, Segment
from retrieval.snapshot import Snapshot
from retrieval.store import Manifest, Store
from retrieval.videos import OPEN_END_S, Video

Items = npt.NDArray[np.uint32]

REMEMBERED_S = 90 * 86_400
"""As long as journals can speak of it."""
MOST_DEPARTED = 1000
"""So many departed rows are kept in any case; beyond, a tenth of the living ones, those that left last."""
MOST_BESIDE = 20_000
"""Rows beside a base of any size from which a new base is worth building: every search compares them one by one."""


@dataclass(frozen=True)
class Base:
    """A finished base segment: its name, checksum and items, the catalogue version it covers, and the number of the
    model of behaviour its rows are joined with (0: none)."""

    name: str
    checksum: str
    items: Items
    version: int
    learned: int = 0


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
        base = Base(
            first.name, checksums[first.name], first.rows.columns["item"], snapshot.version, number_of(snapshot)
        )
        return Contents(base, snapshot.current_rows(beside), snapshot.dead)

    def changed(self, rows: Rows, gone: Items) -> Contents:
        """With `rows` added or in place of their old states, and `gone` taken down. Costs what changed and lies beside
        the base, not what is in it."""
        touched = np.concatenate([rows.columns["item"], gone])
        kept = self.fresh.take(~np.isin(self.fresh.columns["item"], touched))
        dead = np.intersect1d(touched, self.base.items) if self.base else np.zeros(0, np.uint32)
        fresh = remembered(Rows.concat([kept, rows]))
        return Contents(self.base, fresh, np.union1d(self.dead, dead).astype(np.uint32))

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


def departing(video: Video) -> Video:
    """A removed video as it is remembered: with a window that ends when it left and begins never."""
    return replace(video, available_from_s=OPEN_END_S, available_until_s=video.updated_s)


def remembered(rows: Rows) -> Rows:
    """The rows without those that left too long before the last one that did, or beyond what is kept of them."""
    opens_s, left_s = rows.columns["available_from_s"], rows.columns["available_until_s"]
    departed = np.flatnonzero(opens_s >= left_s)
    if not len(departed):
        return rows
    newest = departed[np.argsort(-left_s[departed], kind="stable")]
    most = max(MOST_DEPARTED, (len(rows) - len(departed)) // 10)
    young = left_s[newest] >= left_s[newest[0]] - REMEMBERED_S
    forgotten = np.concatenate([newest[:most][~young[:most]], newest[most:]])
    return rows.take(np.setdiff1d(np.arange(len(rows)), forgotten))


def fold(store: Store, snapshot: Snapshot) -> Base:
    """All rows of a snapshot that are not replaced as one new base segment. The slow part (training, adding) of a big
    tenant."""
    rows = remembered(snapshot.current_rows())
    path = store.new_segment_path(snapshot.tenant, "base")
    checksum = Segment.write(path, rows)
    return Base(path.name, checksum, np.sort(rows.columns["item"]), snapshot.version, number_of(snapshot))


def rejoined(snapshot: Snapshot, behaviour: Behaviour | None) -> Contents:
    """The same rows as `snapshot`, their texts joined with another model of behaviour, or with none."""
    rows = remembered(snapshot.current_rows())
    text = text_of(widened(rows.vectors, np.arange(len(rows))), snapshot.text_dim)
    vectors = text if behaviour is None else behaviour.joined(rows.columns["item"], text)
    return Contents(None, replace(rows, vectors=vectors.astype(np.float16)), np.zeros(0, np.uint32))


def number_of(snapshot: Snapshot) -> int:
    """The number of the model of behaviour in effect, 0 if there is none."""
    return 0 if snapshot.learned is None else snapshot.learned.number


def rebased(snapshot: Snapshot, base: Base) -> Contents:
    """The same rows as `snapshot`, on a newly folded base.

    What changed while the base was being folded has a row version above the base's and goes beside it; so does
    anything else the base does not hold, but not what it left out to forget.
    """
    current = snapshot.current_rows()
    columns = current.columns
    living = columns["available_from_s"] < columns["available_until_s"]
    changed = columns["version"] > base.version
    fresh = current.take(changed | (living & ~np.isin(columns["item"], base.items)))
    kept = np.setdiff1d(columns["item"], fresh.columns["item"])
    return Contents(base, fresh, np.setdiff1d(base.items, kept).astype(np.uint32))
