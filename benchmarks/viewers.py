"""Simulated viewers: users with hidden tastes who watch, skip and like through the real API, as a phone would.

    make run                      and in another terminal:
    make viewers                  or python -m benchmarks.viewers --tenant scipy --viewers 40 --rounds 6

Nobody here is real, and whatever is measured with them says "simulated". What is measured in the world, on public logs
of short videos, is how often a view leads to a like (13.7 %), a bookmark (4.6 %), a follow (3.5 %); REACTIONS gives
these rates to somebody for whom a third of what they are shown is to their taste. How the rates divide between what is
and is not, and how long each is watched, is made up. The service is told nothing but events; which topics a viewer
likes is known here alone.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import orjson

from deploy.local.demo_file import read_videos
from service.client import FeedClient, Page

PAGE: Final = 10
SKIPPED_BELOW: Final = 0.15
COMPLETE_FROM: Final = 0.9
AT_ONCE: Final = 16
"""Viewers who swipe at the same time."""


@dataclass(frozen=True)
class Reaction:
    """How somebody takes a video: the fraction watched is drawn from Beta(a, b), the others are probabilities."""

    watched: tuple[float, float]
    like: float
    bookmark: float
    follow: float


REACTIONS: Final[Mapping[bool, Reaction]] = {
    True: Reaction((4.0, 2.0), like=0.35, bookmark=0.12, follow=0.09),
    False: Reaction((1.0, 3.5), like=0.03, bookmark=0.01, follow=0.008),
}
"""To what is to one's taste, and to anything else."""

Topics = Mapping[str, frozenset[str]]
"""Video id -> its topics."""


@dataclass
class Viewer:
    """Somebody with an app in their hand, who likes some topics. `topics` and `likes` are hidden from the service.

    `chance` decides what they do; the same seed and the same feeds give the same viewer.
    """

    client: FeedClient
    topics: Topics
    likes: frozenset[str]
    chance: random.Random
    pace_s: float = 0.0
    swiped: int = field(default=0, init=False)

    async def swipe(self, count: int) -> None:
        """Open the app, watch `count` videos of a new feed, page after page; the events go out with each page."""
        page: Page | None = await self.client.feed("refresh", limit=PAGE)
        left = count
        while page is not None and page.items and left:
            for item in page.items[:left]:
                self._react(item)
                await asyncio.sleep(self.pace_s)
            left -= len(page.items[:left])
            await self.client.flush()
            page = await self.client.more(page) if left else None
        self.swiped += count - left

    async def liked_share(self, limit: int = 20) -> float | None:
        """Share of the feed that is to their taste, 0 to 1, if they opened the app now. They look and do nothing.

        None for somebody in the hold-out: their feed learns nothing, on purpose.
        """
        page = await self.client.feed("refresh", limit=limit)
        return None if page.body["mode"] == "holdout" else self.share_of(page.items)

    def share_of(self, items: Sequence[Mapping[str, Any]]) -> float:
        """Share of some items that is to their taste, 0 when there are none."""
        return fmean(self._is_liked(item) for item in items) if items else 0.0

    def _is_liked(self, item: Mapping[str, Any]) -> bool:
        return not self.likes.isdisjoint(self.topics.get(item["id"], frozenset()))

    def _react(self, item: Mapping[str, Any]) -> None:
        reaction, client = REACTIONS[self._is_liked(item)], self.client
        client.track("impression", item)
        watched = self.chance.betavariate(*reaction.watched)
        if watched < SKIPPED_BELOW:
            client.track("skip", item)
            return
        if watched >= COMPLETE_FROM:
            client.track("complete", item)
        else:
            client.track("watch", item, value=round(watched, 3))
        for kind in ("like", "bookmark", "follow"):
            if self.chance.random() < getattr(reaction, kind):
                client.track(kind, item)


@dataclass(frozen=True)
class Round:
    """How much of their feeds was to the taste of the viewers, on average, after `swipes` each; and of the feed that is
    nobody's in particular. Without those in the hold-out."""

    viewers: int
    swipes: int
    personal: float
    nobody: float

    def __str__(self) -> str:
        gain = f"{self.personal / self.nobody:.1f} x" if self.nobody else "-"
        return f"simulated {self.viewers:>7} {self.swipes:>6} {self.personal:>12.0%} {self.nobody:>18.0%} {gain:>8}"


@dataclass
class Audience:
    """Viewers of one tenant, who share their connections. Close `http` when done."""

    tenant: str
    viewers: Sequence[Viewer]
    http: httpx.AsyncClient

    @staticmethod
    def of(
        base_url: str,
        tenant: str,
        key: str,
        topics: Topics,
        folder: Path,
        *,
        count: int,
        seed: int,
        pace_s: float = 0.0,
        likes: Sequence[str] | None = None,
    ) -> Audience:
        """`count` new viewers, each of whom likes two of `likes` (default: all topics there are), and each topic is
        liked by equally many: what is popular says little about anybody. `folder` is for their unsent events."""
        http = httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=AT_ONCE))
        known = sorted(frozenset().union(*topics.values())) if likes is None else list(likes)
        random.Random(seed).shuffle(known)
        viewers = []
        for number in range(count):
            chance = random.Random(f"{seed}:{tenant}:{number}")
            client = FeedClient(base_url, key, folder / f"{tenant}-{number}.jsonl", http, chance=chance.random)
            client.log_in(sha256(f"simulated viewer {number} of {tenant}, {seed}".encode()).hexdigest())
            further = 1 + number // len(known) % (len(known) - 1)
            taste = frozenset({known[number % len(known)], known[(number + further) % len(known)]})
            viewers.append(Viewer(client, topics, taste, chance, pace_s))
        return Audience(tenant, viewers, http)

    async def swipe(self, count: int) -> None:
        """Every viewer watches `count` videos."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(viewer: Viewer) -> None:
            async with gate:
                await viewer.swipe(count)

        await asyncio.gather(*(one(viewer) for viewer in self.viewers))

    async def look(self, limit: int = 20) -> Round:
        """What the feeds are like now; this changes nothing that is learnt from."""
        nobody = await self.viewers[0].client.default_feed(self.tenant, limit=limit)
        shares = {viewer.client.user: await viewer.liked_share(limit) for viewer in self.viewers}
        learning = [viewer for viewer in self.viewers if shares[viewer.client.user] is not None]
        return Round(
            viewers=len(learning),
            swipes=max(viewer.swiped for viewer in learning),
            personal=fmean(share for share in shares.values() if share is not None),
            nobody=fmean(viewer.share_of(nobody.items) for viewer in learning),
        )


def topics_of(videos: Sequence[Mapping[str, Any]]) -> dict[str, frozenset[str]]:
    """The topics of videos as the API takes them: their categories."""
    return {video["id"]: frozenset(video["categories"]) for video in videos}


async def main() -> None:
    parser = argparse.ArgumentParser(description="Simulated viewers of the demo, and what its feeds learn from them.")
    parser.add_argument("--folder", type=Path, default=Path("var"), help="where `make run` keeps its things")
    parser.add_argument("--tenant", default="pycon-us")
    parser.add_argument("--viewers", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--swipes", type=int, default=20, help="per viewer and round")
    parser.add_argument("--pace-ms", type=float, default=20, help="between two swipes of a viewer")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    asked = parser.parse_args()
    keys = orjson.loads((asked.folder / "demo.json").read_bytes())
    [key] = [one["publishable_key"] for one in keys["tenants"] if one["id"] == asked.tenant]
    topics = topics_of(read_videos()[asked.tenant])
    with TemporaryDirectory() as folder:
        audience = Audience.of(
            keys["base_url"], asked.tenant, key, topics, Path(folder),
            count=asked.viewers, seed=asked.seed, pace_s=asked.pace_ms / 1000,
        )  # fmt: skip
        print(f"{asked.viewers} simulated viewers of {asked.tenant}, seed {asked.seed}; each likes two topics")
        print("          viewers swipes  their feeds  nobody's own feed     more: share that is to their taste")
        print(await audience.look(), flush=True)
        for _ in range(asked.rounds):
            await audience.swipe(asked.swipes)
            print(await audience.look(), flush=True)
        await audience.http.aclose()


if __name__ == "__main__":
    asyncio.run(main())
