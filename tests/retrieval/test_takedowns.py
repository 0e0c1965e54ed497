"""A take-down does not wait for an index: the next look at the catalogue is enough, with no indexer running."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from redis.asyncio import Redis

from ranking.context import Context
from retrieval.catalogue import Catalogue
from retrieval.counters import Counters
from retrieval.database import connect
from retrieval.live import Live
from retrieval.masks import is_set
from retrieval.store import Store
from retrieval.tenants import Tenants
from retrieval.videos import parse_videos
from retrieval.view import View
from tests.support.content import DIM, published, some_rows
from tests.support.databases import NOW_S


def served(view: View) -> set[int]:
    """Items that anybody may be shown."""
    context = Context(now_s=NOW_S + 10**8)
    mask = view.allowed(view.policy.book.plan(context), context)
    rows = np.flatnonzero(np.unpackbits(mask, bitorder="little"))
    return set(view.snapshot.column("item", rows).tolist())


async def test_a_removed_video_is_not_served_from_the_old_snapshot(
    sqlite_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Removed: gone and another tag, though the same generation is served. Put back: there again."""
    engine, redis = connect(sqlite_url), Redis.from_url(redis_url, protocol=2)
    try:
        await Tenants(engine).create("acme", "acme", NOW_S)
        catalogue, store = Catalogue(engine), Store(tmp_path)
        raw = [{"id": f"v{n}", "title": f"title {n}", "media_url": "https://v.example/1"} for n in range(5)]
        videos = [one.video for one in parse_videos(raw, DIM).accepted]
        await catalogue.upsert("acme", videos, NOW_S)
        published(store, "acme", 1, some_rows(range(5)))
        live = Live(engine, store, Counters(redis), dim=DIM, copy=tmp_path / "copy.json")
        await live.refresh_config()
        await live.refresh_snapshots()
        before = live.view("acme")
        both = served(before)
        assert 3 in both

        await catalogue.remove("acme", ["v3"], NOW_S)
        await live.refresh_takedowns()
        after = live.view("acme")
        assert after.snapshot is before.snapshot
        assert served(after) == both - {3}
        assert not is_set(after.live, after.snapshot.rows(np.array([3], np.uint32)))[0]
        assert after.content != before.content
        assert 3 not in after.snapshot.column("item", after.newest).tolist()

        await catalogue.upsert("acme", videos, NOW_S)
        await live.refresh_takedowns()
        assert served(live.view("acme")) == both
        assert live.view("acme").content == before.content
    finally:
        await redis.aclose()
        await engine.dispose()
