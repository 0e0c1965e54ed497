"""The serve log says of every item of every page how likely it was to be there: what off-policy estimates divide by."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis.asyncio import Redis

from retrieval.tail import Tail
from tests.support.running import eventually, finished, video
from tests.support.served import Json, Served, served

VIDEOS = 400
ITEM = ("item", "position", "reason", "score", "propensity")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One tenant with more videos than one list holds."""
    videos = [video(f"v{n}", f"talk {n}", creator=f"c{n % 40}") for n in range(VIDEOS)]
    with served(tmp_path_factory.mktemp("serve-log"), {"acme": videos}) as started:
        yield started


def logged(service: Served) -> dict[str, list[Json]]:
    """Request id -> the items of that page, as the serve log has them."""

    async def read() -> dict[str, list[Json]]:
        async with Redis.from_url(service.place.redis_url, protocol=2) as redis:
            serves = [entry.serve for entry in await Tail(redis).read({}) if entry.serve]
        return {row[2]: [dict(zip(ITEM, item, strict=True)) for item in row[-1]] for row in serves}

    return finished(read())


def test_every_page_has_its_propensities(service: Served) -> None:
    """Explored items: the share of the catalogue that got a slot, on later pages too; all others: 1."""
    service.events("acme", "somebody", ("like", "v1"))
    pages: list[Json] = [service.feed("acme", "somebody", limit=50)]
    for _ in range(5):  # over the end of the first list
        pages.append(service.feed("acme", "somebody", limit=50, cursor=pages[-1]["next_cursor"]))
    eventually(lambda: len(logged(service)) >= len(pages))
    log = logged(service)
    chances = set()
    for page in pages:
        items = log[page["request_id"]]
        assert [item["position"] for item in items] == [item["position"] for item in page["items"]]
        for item in items:
            if item["reason"] == "explore":
                chances.add(round(item["propensity"], 6))
            else:
                assert item["propensity"] == 1
    assert chances
    assert all(0 < chance <= 20 / (VIDEOS - 250) for chance in chances)
