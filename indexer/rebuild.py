"""Bring one tenant's published snapshot up to its catalogue version: what changed -> vectors -> segments -> publish.

The catalogue's version says what is wanted, the snapshot's version what is there; the difference is the work. So a lost
notification cannot exist, and a crash at any line is repaired by the next pass.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import structlog

from indexer.embedding import Embedder
from indexer.generations import Base, Contents, Items, departing, fold, number_of, rebased, rejoined
from indexer.settings import IndexerSettings
from ranking.maturity import TABLE_VERSION
from retrieval.behaviour import Behaviour
from retrieval.catalogue import Catalogue, Changes, Poison
from retrieval.errors import NotFound, SnapshotCorrupt
from retrieval.models import Learned
from retrieval.rows import Rows
from retrieval.snapshot import Snapshot
from retrieval.store import Manifest, Pointer, Store
from retrieval.videos import Video

log = structlog.get_logger("indexer")

KEPT_S: Final = 25 * 3600
"""A generation stays for so long after it was replaced: what was served in the last 24 h can be made again."""

Piece = tuple[Rows, Items]
"""Videos read together: rows of what can be served or was lately, item numbers of the rest."""
Progress = Callable[[str, int, int], None]
"""Told (tenant, videos done, videos in all) of one catch-up."""


@dataclass
class Tenant:
    """What the indexer remembers of a tenant between passes. All of it can be lost."""

    id: str
    pointer: Pointer | None = None
    manifest: Manifest | None = None
    snapshot: Snapshot | None = None
    fold: asyncio.Task[Base] | None = None
    learned: Learned | None = None
    behaviour: Behaviour | None = None

    def shows(self, pointer: Pointer | None, manifest: Manifest | None, snapshot: Snapshot | None) -> None:
        """Remember what CURRENT names; None: nothing usable."""
        self.pointer, self.manifest, self.snapshot = pointer, manifest, snapshot
        self.learned = manifest.learned if manifest else None
        self.behaviour = snapshot.learned if snapshot else None


@dataclass(frozen=True)
class Rebuild:
    """The work on a tenant."""

    catalogue: Catalogue
    store: Store
    embedder: Embedder
    settings: IndexerSettings
    on_progress: Progress = field(default=lambda _tenant, _done, _total: None)

    async def catch_up(self, tenant: Tenant) -> bool:
        """Publish what differs, or a finished fold; False when the tenant is up to date.

        Raises StoreUnavailable, StaleGeneration (another indexer was faster), OSError (disk full): CURRENT names a
        complete generation all the while.
        """
        # Read first: whoever publishes from here on makes our publish fail instead of being overwritten by it.
        generation = self.store.newest_generation(tenant.id) + 1
        await asyncio.to_thread(self.open, tenant)
        previous = tenant.snapshot
        if previous is None or previous.model != self.embedder.model_id or _rated_otherwise(tenant):
            await self.from_nothing(tenant)
            return True
        folded = _finished_fold(tenant)
        if folded is not None and folded.learned == number_of(previous):  # else a model was published meanwhile
            contents = await asyncio.to_thread(rebased, previous, folded)
            await self._publish(tenant, generation, previous.version, contents)
            return True
        changes = await self.catalogue.changes(tenant.id, previous.version)
        if changes.version <= previous.version:
            return False
        contents = await asyncio.to_thread(
            Contents.of, previous, dict(tenant.manifest.segments if tenant.manifest else ())
        )
        await self._apply(tenant, generation, changes, contents, covered=previous.version)
        return True

    async def from_nothing(self, tenant: Tenant) -> None:
        """Build the whole index: the first one, a new model's, one by a new table of ratings, or one in place of
        damaged files. Raises as above, and NotFound."""
        generation = self.store.newest_generation(tenant.id) + 1
        tenant.fold = None
        if tenant.pointer is None:
            await asyncio.to_thread(self.open, tenant)  # for what was learned
        if tenant.snapshot is not None and tenant.snapshot.model != self.embedder.model_id:
            tenant.learned = tenant.behaviour = (
                None  # it was learned from other vectors of texts: `learn` will make the next
            )
        changes = await self.catalogue.changes(tenant.id, 0)
        # Who serves already keeps what there is until the new index is complete; who does not wants a beginning soon.
        covered = 0 if generation == 1 else None
        await self._apply(tenant, generation, changes, Contents.empty(self._dim(tenant)), covered=covered)

    async def rejoin(self, tenant: Tenant, learned: Learned | None) -> Snapshot:
        """Publish the same content joined with another model of behaviour (None: texts alone). Raises as above, and
        NotFound for a tenant that has no index yet."""
        generation = self.store.newest_generation(tenant.id) + 1
        await asyncio.to_thread(self.open, tenant)
        previous = tenant.snapshot
        if previous is None:
            raise NotFound("snapshot", tenant.id)
        behaviour = None if learned is None else await asyncio.to_thread(self.store.models.read, tenant.id, learned)
        contents = await asyncio.to_thread(rejoined, previous, behaviour)
        tenant.learned, tenant.behaviour = learned, behaviour
        return await self._publish(tenant, generation, previous.version, contents)

    async def _apply(
        self, tenant: Tenant, generation: int, changes: Changes, contents: Contents, *, covered: int | None
    ) -> None:
        """Publish `contents` with `changes`. A long way is shown in parts, unless `covered` is None.

        A part covers the catalogue only up to `covered`, as before: after a crash its rows are read again, and their
        vectors found in the cache. Chunks wait until there are as many rows of them as lie beside the base, and are
        joined to those at once: so joining costs what is joined, and all parts together no more than the last one.
        """
        done, joined, waiting = 0, 0, list[Piece]()
        async for videos in changes.chunks():
            waiting.append(await self._rows(tenant, videos))
            done += len(videos)
            self.on_progress(tenant.id, done, len(changes.items))
            many = done - joined >= max(self.settings.part_items, len(contents.fresh))
            if covered is not None and many and done < len(changes.items):
                contents = await asyncio.to_thread(_with, contents, waiting)
                await self._publish(tenant, generation, covered, contents)
                generation, joined, waiting = generation + 1, done, []
        contents = await asyncio.to_thread(_with, contents, waiting)
        snapshot = await self._publish(tenant, generation, changes.version, contents)
        if tenant.fold is None and contents.wants_fold(fold_min_items=self.settings.fold_min_items):
            tenant.fold = asyncio.create_task(asyncio.to_thread(fold, self.store, snapshot))

    def _dim(self, tenant: Tenant) -> int:
        return self.embedder.dim if tenant.behaviour is None else tenant.behaviour.dim

    async def _rows(self, tenant: Tenant, videos: Sequence[Video]) -> Piece:
        """Rows and vectors of `videos`; the rest is removed for long, a draft or quarantined."""
        published = [video for video in videos if video.status == "published"]
        vectors, failed = await self.embedder.embed(published)
        await self._quarantine(tenant.id, published, failed)
        departed = [video for video in videos if video.status == "removed"]
        vectors |= await self.embedder.known(departed)
        kept = [
            *(video for video in published if video.item in vectors),
            *(departing(video) for video in departed if video.item in vectors),
        ]
        stacked = np.array([vectors[video.item] for video in kept], np.float32).reshape(-1, self.embedder.dim)
        if tenant.behaviour is not None:
            stacked = tenant.behaviour.joined(np.array([video.item for video in kept], np.uint32), stacked)
        gone = [video.item for video in videos if video.item not in vectors]
        return await asyncio.to_thread(Rows.from_videos, kept, stacked), np.array(gone, np.uint32)

    async def _quarantine(self, tenant: str, videos: Sequence[Video], failed: dict[int, str]) -> None:
        """Note which videos have no vector and why, and which have one again."""
        noted = [
            Poison(video.item, video.text_hash, failed.get(video.item))
            for video in videos
            if video.quarantine != failed.get(video.item)
        ]
        await self.catalogue.quarantine(tenant, noted)
        if failed:
            log.warning("quarantined", tenant=tenant, items=len(failed), first=next(iter(failed.values())))

    async def _publish(self, tenant: Tenant, generation: int, version: int, contents: Contents) -> Snapshot:
        began = time.monotonic()
        facts = Manifest(
            tenant=tenant.id,
            generation=generation,
            version=version,
            model=self.embedder.model_id,
            dim=self._dim(tenant),
            created_s=int(time.time()),
            learned=tenant.learned,
            ratings=TABLE_VERSION,
        )
        manifest = await asyncio.to_thread(contents.write, self.store, facts)
        # Opened, so read back and verified, before anybody is told of it.
        snapshot = await asyncio.to_thread(self.store.open, manifest, tenant.snapshot)
        pointer = await asyncio.to_thread(self.store.publish, manifest)
        tenant.shows(pointer, manifest, snapshot)
        if tenant.fold is None:  # a folded base that waits for its publish is named by no generation yet
            await asyncio.to_thread(
                self.store.sweep,
                tenant.id,
                now_s=time.time(),
                keep_s=KEPT_S,
                keep_bytes=self.settings.kept_mb * 1e6,
            )
        log.info(
            "published",
            tenant=tenant.id,
            generation=generation,
            version=version,
            items=snapshot.n_items,
            segments=[len(segment) for segment in snapshot.segments],
            dead=len(snapshot.dead),
            took_ms=round(1000 * (time.monotonic() - began)),
        )
        return snapshot

    def open(self, tenant: Tenant) -> None:
        """Have the newest published snapshot open; none if there is none or its files are damaged."""
        try:
            pointer = self.store.pointer(tenant.id)
            if pointer is None:
                tenant.shows(None, None, None)
            elif tenant.pointer != pointer:
                manifest = self.store.manifest(tenant.id, pointer)
                tenant.shows(pointer, manifest, self.store.open(manifest, tenant.snapshot))
        except SnapshotCorrupt as error:
            log.error("snapshot_corrupt", tenant=tenant.id, error=str(error))
            tenant.shows(None, None, None)


def _with(contents: Contents, pieces: Sequence[Piece]) -> Contents:
    nothing = Rows.empty(contents.fresh.vectors.shape[1])
    rows = Rows.concat([nothing, *(rows for rows, _ in pieces)])
    return contents.changed(rows, np.concatenate([np.zeros(0, np.uint32), *(gone for _, gone in pieces)]))


def _rated_otherwise(tenant: Tenant) -> bool:
    """Whether the rows have their minimum ages by another table of ratings than ours."""
    return tenant.manifest is not None and tenant.manifest.ratings != TABLE_VERSION


def _finished_fold(tenant: Tenant) -> Base | None:
    if tenant.fold is None or not tenant.fold.done():
        return None
    finished, tenant.fold = tenant.fold, None
    return finished.result()
