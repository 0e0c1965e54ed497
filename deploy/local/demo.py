"""The demo's content in the stores: loaded once, watched until it is embedded and published."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import func, select

from deploy.local.demo_file import fingerprint, read_videos
from deploy.local.demo_keys import DemoKeys, valid_keys
from deploy.local.errors import StartError
from deploy.local.progress import Embedded
from deploy.local.tenants import TENANTS, DemoTenant
from indexer.status import read_failure
from retrieval.catalogue import Catalogue
from retrieval.database import connect, migrate, reading
from retrieval.errors import SnapshotCorrupt
from retrieval.files import write_atomically
from retrieval.policies import Policies
from retrieval.settings import StoreSettings
from retrieval.store import Store
from retrieval.tables import VECTORS, VIDEOS
from retrieval.tenants import Tenants
from retrieval.videos import parse_videos

AUTHOR = "make run"


class Demo:
    """The demo in its folder and its stores. An async context manager: it closes the database at the end.

    Beside what the stores keep, `folder` has `demo.json` (see demo_keys.py) and `loaded`, which says which videos are
    in the catalogue. It is written last: an interrupted first run starts over, a finished one is never repeated, and
    so a video that somebody has edited since stays as it is.
    """

    def __init__(self, folder: Path, settings: StoreSettings) -> None:
        self._folder = folder
        self._settings = settings
        self._engine = connect(settings.database_url)
        self._tenants = Tenants(self._engine)
        self._catalogue = Catalogue(self._engine)
        self._snapshots = Store(settings.snapshot_dir)

    async def __aenter__(self) -> Demo:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._engine.dispose()

    async def load(self, limit_per_tenant: int | None) -> dict[str, int]:
        """Bring schema, tenants, policies and videos into the database. Answers tenant -> its number of videos.

        Raises StoreUnavailable; what was stored until then stays and costs nothing the next time.
        """
        await migrate(self._settings.database_url)
        videos = read_videos(limit_per_tenant)
        known = {tenant.id for tenant in await self._tenants.list()}
        content = fingerprint(limit_per_tenant).encode()
        marker = self._folder / "loaded"
        if not (known >= videos.keys() and marker.exists() and marker.read_bytes() == content):
            for tenant in TENANTS:
                await self._load_tenant(tenant, videos[tenant.id], is_new=tenant.id not in known)
            write_atomically(marker, content)
        return {tenant.id: len(videos[tenant.id]) for tenant in TENANTS}

    async def _load_tenant(self, tenant: DemoTenant, videos: list[dict[str, Any]], *, is_new: bool) -> None:
        now_s = int(time.time())
        if is_new:
            await self._tenants.create(tenant.id, tenant.name, now_s)
        policies = Policies(self._engine)
        if tenant.id not in await policies.live():
            await policies.publish(tenant.id, tenant.policy, AUTHOR, "the demo's own", if_version=0, now_s=now_s)
        parsed = parse_videos(videos, self._settings.vector_dim)
        if parsed.rejected:
            first = parsed.rejected[0]
            raise StartError(f"videos.jsonl.gz, {tenant.id}, {first.id}: {first.problems[0].message}")
        await self._catalogue.upsert(tenant.id, [accepted.video for accepted in parsed.accepted], now_s)

    async def embedded(self) -> Embedded:
        """How many of the catalogue's texts have a vector by now."""
        texts = select(VIDEOS.c.text_hash).where(VIDEOS.c.status == "published").distinct()
        known = select(VECTORS.c.text_hash).where(VECTORS.c.text_hash.in_(texts)).distinct()
        async with reading(self._engine) as connection:
            total = (await connection.execute(select(func.count()).select_from(texts.subquery()))).scalar_one()
            done = (await connection.execute(select(func.count()).select_from(known.subquery()))).scalar_one()
        return Embedded(done, total)

    async def unpublished(self) -> dict[str, str]:
        """The tenants whose newest snapshot lacks something of their catalogue -> the indexer's last error or ""."""
        versions = await self._catalogue.versions()
        return {
            tenant: read_failure(self._snapshots, tenant)
            for tenant, version in versions.items()
            if self._published_version(tenant) < version
        }

    def _published_version(self, tenant: str) -> int:
        try:
            manifest = self._snapshots.current(tenant)
        except SnapshotCorrupt:
            return -1
        return manifest.version if manifest else -1

    async def keys(self, base_url: str) -> DemoKeys:
        """Keys that work; those of the last run as long as they do."""
        return await valid_keys(self._folder, base_url, [tenant.id for tenant in TENANTS], self._tenants)
