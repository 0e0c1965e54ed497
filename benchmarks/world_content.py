"""What is in a world's catalogue, and its way into SQLite and the snapshots: by the product's own parts.

Texts, tags, categories and creators are those of the real talk that a vector grew out of, so a rule about a category or
a user who likes a creator meets items that are near one another, as it is in a real catalogue.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.embeddings import NEIGHBOURS, grown, neighbours
from indexer.generations import Contents
from indexer.minilm import MiniLM
from retrieval.catalogue import Catalogue
from retrieval.database import connect, migrate
from retrieval.policies import Policies
from retrieval.rows import Rows
from retrieval.store import Manifest, Store
from retrieval.tenants import Tenants
from retrieval.videos import OPEN_END_S, Video, parse_videos

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

SEED: Final = 20_260
BATCH: Final = 5_000
DAY_S: Final = 86_400
YEARS_S: Final = 2 * 365 * DAY_S
RATINGS: Final = ("0", "6", "12", "16", "18")
RATING_SHARES: Final = (0.6, 0.1, 0.15, 0.1, 0.05)
NARROW: Final = ["DE", "AT", "CH", "LI", "LU"]
NARROW_SHARE, ENDING_SHARE = 0.05, 0.02
"""Videos that only some countries may show, and that end within a year."""
VIDEOS_PER_CREATOR: Final = 15
TEXT_CHARS: Final = 300


@dataclass(frozen=True)
class Seeds:
    """What a world grows out of: real vectors float32[n, d] and their videos, as the API takes them; and how many
    videos each tenant has. `real_tenant`, if it is among them, has the real ones as they are."""

    vectors: Float32
    videos: Sequence[Mapping[str, Any]]
    sizes: Mapping[str, int]
    real_tenant: str


@dataclass(frozen=True)
class Built:
    """A tenant of a world: its keys in clear text, its pepper in hex. Its videos are called `ID-NUMBER`."""

    id: str
    items: int
    publishable: str
    secret: str
    pepper: str


async def fill(folder: Path, seeds: Seeds) -> list[Built]:
    """Write `feed.db` and `parents.npz`: tenants, keys, policies, videos. One transaction per 5,000 videos."""
    url, now_s = _url(folder), int(time.time())
    await migrate(url)
    engine = connect(url)
    built, parents = [], {}
    try:
        for number, (tenant, _, parent) in enumerate(grown_tenants(seeds)):
            _say(f"catalogue  {tenant}: {len(parent):,} videos")
            built.append(await _tenant(Tenants(engine), tenant, len(parent), now_s))
            body = policy(number, seeds.videos)
            await Policies(engine).publish(tenant, body, "benchmark", "its own", if_version=0, now_s=now_s)
            made = videos(tenant, seeds.videos, parent, number, now_s)
            while batch := list(islice(made, BATCH)):
                parsed = parse_videos(batch, seeds.vectors.shape[1])
                if parsed.rejected:
                    raise ValueError(f"{tenant}: {parsed.rejected[0]}")
                await Catalogue(engine).upsert(tenant, [one.video for one in parsed.accepted], now_s)
            parents[tenant] = parent.astype(np.int16)
    finally:
        await engine.dispose()
    np.savez(folder / "parents.npz", **parents)  # type: ignore[arg-type]  # its stub takes the names for options
    return built


async def publish(folder: Path, seeds: Seeds) -> None:
    """Write `snapshots`: one generation per tenant, as the indexer would have published it."""
    engine, store = connect(_url(folder)), Store(folder / "snapshots")
    try:
        for tenant, vectors, _ in grown_tenants(seeds):
            began = time.perf_counter()
            changes = await Catalogue(engine).changes(tenant, 0)
            parts = [Rows.from_videos(read, vectors[[video.item for video in read]]) async for read in changes.chunks()]
            dim = vectors.shape[1]
            contents = Contents.empty(dim).changed(Rows.concat(parts), np.zeros(0, np.uint32))
            facts = Manifest(tenant, 1, changes.version, MiniLM.model_id, dim, int(time.time()))
            store.publish(contents.write(store, facts))
            _say(f"snapshot   {tenant}: {len(vectors):,} videos ({time.perf_counter() - began:.0f} s)")
    finally:
        await engine.dispose()


def grown_tenants(seeds: Seeds) -> Iterator[tuple[str, Float32, Int64]]:
    """(tenant, float32[items, d] vectors, int64[items] rows of the seeds they grew out of); always the same ones."""
    near = neighbours(seeds.vectors, NEIGHBOURS)
    for number, (tenant, items) in enumerate(seeds.sizes.items()):
        rng = np.random.default_rng([SEED, number])
        if tenant == seeds.real_tenant:
            yield tenant, seeds.vectors, np.arange(len(seeds.vectors))
        else:
            yield tenant, *grown(seeds.vectors, near if items > len(seeds.vectors) else None, items, rng)


def videos(
    tenant: str, seeds: Sequence[Mapping[str, Any]], parents: Int64, number: int, now_s: int
) -> Iterator[dict[str, Any]]:
    """The videos of a tenant as a CMS would PUT them, oldest first; two years of them, more and more per day."""
    rng, n = np.random.default_rng([SEED, number, 1]), len(parents)
    published = now_s - (YEARS_S * np.sort(rng.random(n))[::-1] ** 2).astype(np.int64) - 60
    ends = now_s + rng.integers(30 * DAY_S, 365 * DAY_S, n)
    ratings = rng.choice(RATINGS, n, p=RATING_SHARES).tolist()
    creators = rng.integers(0, max(n // VIDEOS_PER_CREATOR, 8), n).tolist()
    narrow, ending = rng.random(n) < NARROW_SHARE, rng.random(n) < ENDING_SHARE
    duration_s = np.clip(rng.lognormal(4.4, 0.9, n), 5, 900).astype(int).tolist()
    for item, (parent, from_at, until_at) in enumerate(
        zip(parents.tolist(), _instants(published), _instants(ends), strict=True)
    ):
        seed = seeds[parent]
        yield {
            "id": f"{tenant}-{item:06d}",
            "title": seed["title"],
            "description": seed["description"][:TEXT_CHARS],
            "tags": seed["tags"][:8],
            "categories": seed["categories"][:4],
            "creator": f"{seed['creator'] or 'Studio'} {creators[item]}",
            "playlists": seed["playlists"],
            "language": seed["language"],
            "countries": NARROW if narrow[item] else [],
            "ratings": [{"system": "FSK", "value": ratings[item]}],
            "media_url": f"https://media.example/{tenant}/{item:06d}/master.m3u8",
            "poster_url": f"https://media.example/{tenant}/{item:06d}/poster.webp",
            "duration_s": duration_s[item],
            "published_at": from_at,
            **({"available_until": until_at} if ending[item] else {}),
        }


def policy(number: int, seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A tenant's policy: weights of its own and ten rules of every kind, about categories that its videos have."""
    rng = np.random.default_rng([SEED, number, 2])
    names = sorted({name for video in seeds for name in video["categories"]})
    a, b, c, d, e, f = ({"filter": {"category": [name]}} for name in rng.choice(names, 6, replace=False).tolist())
    weights = {"similarity": 1.0, "popularity": 0.5, "trending": 0.3, "freshness": 0.4, "affinity_creator": 0.3}
    return {
        "weights": {name: round(float(weight * rng.uniform(0.7, 1.3)), 3) for name, weight in weights.items()},
        "half_lives": {"freshness_s": int(rng.integers(3, 60)) * DAY_S},
        "limits": {"max_age": 16},
        "rules": [
            _rule("boost-one", "boost", a, factor=1.5),
            _rule("boost-home", "boost", {"filter": {"language": ["en"]}}, when={"country": ["CH", "DE"]}, factor=1.2),
            _rule("bury-one", "bury", b, factor=0.4),
            _rule("bury-long", "bury", {"filter": {"duration_s": {"min": 600}}}, factor=0.7),
            _rule("block-some", "block", {"filter": {"and": [c["filter"], {"duration_s": {"min": 300}}]}}),
            _rule("block-kids", "block", {"filter": {"min_age": {"min": 12}}}, when={"surface": ["kids"]}),
            _rule("promote-one", "promote", d, percent=10),
            _rule("pin-home", "pin", e, when={"surface": ["home"]}, position=0),
            _rule("pin-three", "pin", f, position=3),
            {"id": "spread", "kind": "cap", "effect": {"max": 3, "per": "category", "window": 6}},
        ],
    }


def example(item: int) -> Video:
    """A video without a catalogue, made from its number."""
    return Video(
        item=item, id=f"v{item}", title=f"Video {item}", description="", transcript="", tags=("a", "b"),
        categories=("c",), creator="d", playlists=("e",), language="en", countries=(), ratings=(),
        media_url="https://media.example/v.mp4", poster_url=None, duration_s=60, published_s=item,
        available_from_s=0, available_until_s=OPEN_END_S, status="published", vector=None, text_hash=b"0" * 16,
        version=1, quarantine=None, created_s=0, updated_s=0,
    )  # fmt: skip


async def _tenant(tenants: Tenants, tenant: str, items: int, now_s: int) -> Built:
    made = await tenants.create(tenant, tenant, now_s)
    publishable = await tenants.create_key(tenant, "pk", "benchmark", now_s)
    secret = await tenants.create_key(tenant, "sk", "benchmark", now_s)
    return Built(tenant, items, publishable.clear, secret.clear, made.pepper.hex())


def _rule(
    name: str, kind: str, target: Mapping[str, Any], when: Mapping[str, Any] | None = None, **effect: float
) -> dict[str, Any]:
    return {"id": name, "kind": kind, "target": target, "when": when or {}, "effect": effect}


def _instants(at_s: npt.NDArray[np.int64]) -> list[str]:
    """As the API takes times."""
    return [f"{at}Z" for at in np.datetime_as_string(at_s.astype("datetime64[s]")).tolist()]


def _url(folder: Path) -> str:
    return f"sqlite+aiosqlite:///{folder / 'feed.db'}"


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
