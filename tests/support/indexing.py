"""The indexer in the test's own process: a real database, real snapshots, and an encoder that says what it encoded."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncEngine

from indexer.daemon import Daemon
from indexer.embedding import Embedder
from indexer.encoder import Encoder
from indexer.rebuild import Rebuild
from indexer.settings import IndexerSettings
from retrieval.catalogue import Catalogue
from retrieval.database import connect
from retrieval.leases import Leases
from retrieval.snapshot import Snapshot
from retrieval.store import Store
from retrieval.tenants import Tenants
from retrieval.vectors import VectorCache
from retrieval.videos import parse_videos
from tests.support.running import POISON, Json, video
from tests.support.tiny_encoder import TinyEncoder


class HookedEncoder(TinyEncoder):
    """Calls `before_encoding` (in the encoder's thread) with the texts of each call."""

    def __init__(self, before_encoding: Callable[[Sequence[str]], None], name: str = "tiny") -> None:
        super().__init__(name)
        self.before_encoding = before_encoding

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As TinyEncoder, after the hook."""
        self.before_encoding(texts)
        return super().encode(texts)


@dataclass
class Indexing:
    """One database and one snapshot folder; as many indexers as a test likes."""

    engine: AsyncEngine
    folder: Path
    encoder: TinyEncoder = field(default_factory=lambda: TinyEncoder(fails_on=POISON))
    on_progress: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return Store(self.folder / "snapshots")

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue(self.engine)

    def daemon(self, encoder: Encoder | None = None, holder: str = "one", **settings: Any) -> Daemon:
        """A daemon that knows nothing yet; by default it shares the encoder of this object."""
        told = IndexerSettings(snapshot_dir=self.folder / "snapshots", **({"poll_s": 0.01} | settings))
        embedder = Embedder(encoder or self.encoder, VectorCache(self.engine))
        rebuild = Rebuild(
            self.catalogue, self.store, embedder, told, lambda *progress: self.on_progress.append(progress)
        )
        return Daemon(rebuild, Leases(self.engine), holder)

    async def tenants(self, *names: str) -> None:
        for name in names:
            await Tenants(self.engine).create(name, name, int(time.time()))

    async def put(self, tenant: str, *videos: Json) -> int:
        """Store videos as the API would; the tenant's version."""
        parsed = parse_videos(list(videos), TinyEncoder.dim)
        assert not parsed.rejected, parsed.rejected
        stored = await self.catalogue.upsert(tenant, [one.video for one in parsed.accepted], int(time.time()))
        return stored.version

    async def put_many(self, tenant: str, numbers: Iterable[int], words: str = "bread") -> int:
        return await self.put(tenant, *(video(f"v{n}", f"{words} {n}") for n in numbers))

    async def remove(self, tenant: str, *ids: str) -> None:
        await self.catalogue.remove(tenant, list(ids), int(time.time()))

    def snapshot(self, tenant: str) -> Snapshot:
        """The published snapshot, opened afresh."""
        manifest = self.store.current(tenant)
        assert manifest is not None
        return self.store.open(manifest)

    def shown(self, tenant: str) -> list[str]:
        """The ids in the published snapshot, in order."""
        rows = self.snapshot(tenant).current_rows()
        rows = rows.take(rows.columns["available_from_s"] < rows.columns["available_until_s"])
        cards = rows.ragged["cards"]
        texts = [cards.values[a:b].tobytes().decode() for a, b in zip(cards.offsets, cards.offsets[1:], strict=False)]
        return sorted(text.split('"')[3] for text in texts)


@pytest.fixture
async def indexing(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Indexing]:
    """A database with the tenant `acme`, nothing indexed."""
    engine = connect(sqlite_url)
    made = Indexing(engine, tmp_path)
    await made.tenants("acme")
    yield made
    await engine.dispose()


def names(numbers: Iterable[int]) -> Sequence[str]:
    """The ids of `put_many`, in order."""
    return sorted(f"v{n}" for n in numbers)
