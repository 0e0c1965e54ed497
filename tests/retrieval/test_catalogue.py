"""Videos are stored once, numbered for ever, and no change of them is ever missed; on both databases."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval.catalogue import Catalogue, Poison, Upserted
from retrieval.database import connect
from retrieval.errors import InvalidInput, NotFound
from retrieval.tenants import Tenants
from retrieval.videos import OPEN_END_S, Rating, Video, VideoIn, embedded_text, parse_videos, text_hash
from tests.support.databases import NOW_S

DIM = 3
POISON: list[dict[str, object]] = [
    {"title": "a\0"},
    {"title": "\ud800"},
    {"vector": [0, 0, 0]},
    {"description": "x" * 5_000_000},
]
# Forks before it opens anything, so that the imports are paid for once.
WRITE = """
import asyncio, os, sys
from retrieval.catalogue import Catalogue
from retrieval.database import connect
from retrieval.videos import VideoIn

async def write(name):
    engine = connect(sys.argv[1])
    for number in range(100):
        video = VideoIn.model_validate({"id": f"{name}-{number}", "title": "t", "media_url": "https://h/1"})
        await Catalogue(engine).upsert("acme", [video], number)
    await engine.dispose()

children = []
for name in range(5):
    children.append(os.fork())
    if not children[-1]:
        asyncio.run(write(name))
        sys.exit()
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


@pytest.fixture
def catalogue(engine: AsyncEngine) -> Catalogue:
    """The catalogue of the test's own database."""
    return Catalogue(engine)


@pytest.fixture
async def second(database_url: str) -> AsyncIterator[Catalogue]:
    """The same catalogue as another process would have it: over its own connections."""
    engine = connect(database_url)
    yield Catalogue(engine)
    await engine.dispose()


def video(video_id: str, **fields: object) -> VideoIn:
    """A valid video."""
    raw: dict[str, Any] = {"id": video_id, "title": f"About {video_id}", "media_url": "https://cdn.example.com/1.mp4"}
    parsed = parse_videos([raw | fields], DIM)
    assert not parsed.rejected, parsed.rejected
    return parsed.accepted[0].video


async def read(catalogue: Catalogue, tenant_id: str, since_version: int) -> tuple[int, list[Video]]:
    """All changes at once."""
    changes = await catalogue.changes(tenant_id, since_version)
    return changes.version, [one async for chunk in changes.chunks() for one in chunk]


async def test_a_video_comes_back_as_it_was_sent(catalogue: Catalogue, tenant: str) -> None:
    """Every field survives the database, in the types the indexer works with."""
    sent = video(
        "v/1 ü🎬",
        description="d",
        transcript="t",
        tags=["a", "b"],
        categories=["c"],
        creator="Ada",
        playlists=["p"],
        language="en",
        countries=["DE"],
        ratings=[{"system": "FSK", "value": "12"}],
        poster_url="https://h/p",
        duration_s=7,
        published_at="2026-11-22T12:00:00Z",
        available_from="2026-11-22T12:00:00Z",
        available_until="2026-11-23T12:00:00Z",
        status="draft",
        vector=[3, 0, 4],
    )
    result = await catalogue.upsert(tenant, [sent], NOW_S)
    assert result == Upserted(1, ["created"])
    kept = await catalogue.get(tenant, sent.id)
    for name in ("id", "title", "description", "transcript", "creator", "language", "media_url", "poster_url"):
        assert getattr(kept, name) == getattr(sent, name)
    assert (kept.tags, kept.categories, kept.playlists, kept.countries) == (("a", "b"), ("c",), ("p",), ("DE",))
    assert kept.ratings == (Rating(system="FSK", value="12"),)
    assert (kept.duration_s, kept.published_s, kept.available_from_s) == (7, sent.published_s, sent.available_from_s)
    assert kept.available_until_s == sent.available_until_s
    assert kept.vector is not None and kept.vector.dtype == np.float32
    assert kept.vector.tolist() == pytest.approx([0.6, 0, 0.8])
    assert (kept.item, kept.status, kept.version, kept.quarantine) == (0, "draft", 1, None)
    assert kept.created_s == kept.updated_s == NOW_S


async def test_what_was_left_out_is_open(catalogue: Catalogue, tenant: str) -> None:
    """No window is no limit; no publication time is the moment of arrival, and stays it."""
    await catalogue.upsert(tenant, [video("v")], NOW_S)
    await catalogue.upsert(tenant, [video("v", title="Other")], NOW_S + 9)
    kept = await catalogue.get(tenant, "v")
    assert (kept.available_from_s, kept.available_until_s) == (0, OPEN_END_S)
    assert (kept.published_s, kept.created_s, kept.updated_s) == (NOW_S, NOW_S, NOW_S + 9)
    assert kept.text_hash == text_hash(embedded_text(kept))


async def test_only_a_difference_moves_the_version(catalogue: Catalogue, tenant: str) -> None:
    """Sending a catalogue again wakes nobody; one different video carries the new version alone."""
    batch = [video("a"), video("b")]
    assert await catalogue.upsert(tenant, batch, NOW_S) == Upserted(1, ["created", "created"])
    assert await catalogue.upsert(tenant, batch, NOW_S + 1) == Upserted(1, ["unchanged", "unchanged"])
    batch = [video("c"), video("b", duration_s=5), video("a")]
    assert await catalogue.upsert(tenant, batch, NOW_S + 2) == Upserted(2, ["created", "updated", "unchanged"])
    version, changed = await read(catalogue, tenant, 1)
    assert version == 2 and [one.id for one in changed] == ["b", "c"]
    assert await catalogue.upsert(tenant, [], NOW_S) == Upserted(2, [])


async def test_a_new_own_vector_is_a_change(catalogue: Catalogue, tenant: str) -> None:
    """The text is the same, the vector is not: the item's hash differs, so its vector is taken anew."""
    await catalogue.upsert(tenant, [video("v", vector=[1, 0, 0])], NOW_S)
    before = await catalogue.get(tenant, "v")
    assert (await catalogue.upsert(tenant, [video("v", vector=[0, 1, 0])], NOW_S)).outcomes == ["updated"]
    after = await catalogue.get(tenant, "v")
    assert before.text_hash != after.text_hash
    await catalogue.upsert(tenant, [video("v")], NOW_S)
    assert (await catalogue.get(tenant, "v")).vector is None


async def test_a_removed_video_keeps_its_number(catalogue: Catalogue, tenant: str) -> None:
    """Taking down is a change; so is coming back, even with the same content, under the same item number."""
    await catalogue.upsert(tenant, [video("a"), video("b")], NOW_S)
    result = await catalogue.remove(tenant, ["b", "nobody", "b\0"], NOW_S + 1)
    assert (result.version, result.outcomes) == (2, ["removed", "not_found", "not_found"])
    assert (await catalogue.remove(tenant, ["b"], NOW_S + 2)).outcomes == ["unchanged"]
    version, changed = await read(catalogue, tenant, 1)
    assert version == 2 and [(one.item, one.status) for one in changed] == [(1, "removed")]
    assert await catalogue.upsert(tenant, [video("b"), video("c")], NOW_S) == Upserted(3, ["updated", "created"])
    assert [(await catalogue.get(tenant, name)).item for name in "abc"] == [0, 1, 2]


async def test_tenants_are_apart(catalogue: Catalogue, tenant: str, engine: AsyncEngine) -> None:
    """The same id in two tenants is two videos, each numbered from 0, and neither sees the other's."""
    await Tenants(engine).create("other", "Other", NOW_S)
    await catalogue.upsert(tenant, [video("a"), video("b")], NOW_S)
    await catalogue.upsert("other", [video("b", title="Theirs")], NOW_S)
    assert (await catalogue.get("other", "b")).item == 0
    assert (await catalogue.get(tenant, "b")).title == "About b"
    assert [one.id for one in await catalogue.page("other")] == ["b"]
    with pytest.raises(NotFound):
        await catalogue.get("other", "a")
    assert await catalogue.versions() == {tenant: 1, "other": 1}
    await Tenants(engine).suspend("other", NOW_S)
    assert await catalogue.versions() == {tenant: 1}


async def test_an_unknown_tenant_is_not_found(catalogue: Catalogue) -> None:
    """No method invents a tenant, whatever its name is made of."""
    for name in ("nobody", "", "a\0b", "\ud800"):
        with pytest.raises(NotFound):
            await catalogue.upsert(name, [video("a")], NOW_S)
        with pytest.raises(NotFound):
            await catalogue.remove(name, ["a"], NOW_S)
        with pytest.raises(NotFound):
            await catalogue.changes(name, 0)
        with pytest.raises(NotFound):
            await catalogue.get(name, "a")


async def test_an_id_that_comes_twice_is_refused_whole(catalogue: Catalogue, tenant: str) -> None:
    """parse_videos rejects copies; a caller that went round it stores nothing."""
    with pytest.raises(InvalidInput):
        await catalogue.upsert(tenant, [video("a"), video("a")], NOW_S)
    assert await catalogue.page(tenant) == []


async def test_a_poison_item_never_blocks_its_batch(catalogue: Catalogue, tenant: str) -> None:
    """The good videos of a batch are stored; the others come back with their problems."""
    good: dict[str, object] = {"id": "good", "title": "Good", "media_url": "https://h/1"}
    bad = [good | {"id": f"bad{number}"} | change for number, change in enumerate(POISON)]
    parsed = parse_videos([*bad, good, None], DIM)
    await catalogue.upsert(tenant, [one.video for one in parsed.accepted], NOW_S)
    assert [one.id for one in await catalogue.page(tenant)] == ["good"]
    assert [one.index for one in parsed.rejected] == [0, 1, 2, 3, 5]


async def test_pages_cover_everything_once(catalogue: Catalogue, tenant: str) -> None:
    """Walking by the last id shows every video once, in the same order on both databases."""
    names = ["b", "a", "B", "ä", "_", "z", "10", "9", "🎬"]
    await catalogue.upsert(tenant, [video(name) for name in names], NOW_S)
    await catalogue.remove(tenant, ["z"], NOW_S)
    walked: list[str] = []
    while page := await catalogue.page(tenant, walked[-1] if walked else "", limit=2):
        walked += [one.id for one in page]
    assert walked == sorted(names)
    assert [one.id for one in await catalogue.page(tenant, status="removed")] == ["z"]
    assert len(await catalogue.page(tenant, status="published")) == len(names) - 1
    for broken in ("a\0", "\ud800"):
        with pytest.raises(InvalidInput):
            await catalogue.page(tenant, broken)


async def test_a_large_batch_is_read_back_in_chunks(catalogue: Catalogue, tenant: str) -> None:
    """More videos than one statement takes or one chunk holds: all come, once, in order of their numbers."""
    batch = [video(f"v{number}") for number in range(1_100)]
    await catalogue.upsert(tenant, batch, NOW_S)
    assert set((await catalogue.upsert(tenant, batch, NOW_S)).outcomes) == {"unchanged"}
    changes = await catalogue.changes(tenant, 0)
    chunks = [chunk async for chunk in changes.chunks()]
    assert [len(chunk) for chunk in chunks] == [500, 500, 100]
    assert [one.item for chunk in chunks for one in chunk] == changes.items.tolist() == list(range(1_100))
    assert (await catalogue.remove(tenant, [one.id for one in batch], NOW_S)).version == 2
    assert (await catalogue.counts(tenant))["removed"] == 1_100


async def test_quarantine_is_noted_without_a_change(catalogue: Catalogue, tenant: str) -> None:
    """The indexer's own note moves no version, so it does not wake itself; the video is listed with the reason."""
    await catalogue.upsert(tenant, [video("good"), video("bad")], NOW_S)
    bad = await catalogue.get(tenant, "bad")
    await catalogue.quarantine(tenant, [Poison(bad.item, bad.text_hash, "cannot\0 be embedded" + "x" * 1000)])
    (listed,) = await catalogue.page(tenant, status="quarantined")
    assert listed.id == "bad" and listed.quarantine is not None and listed.quarantine.startswith("cannot  be embedded")
    assert listed.version == 1 and await catalogue.versions() == {tenant: 1}
    assert (await read(catalogue, tenant, 1)) == (1, [])
    assert await catalogue.counts(tenant) == {"published": 2, "draft": 0, "removed": 0, "quarantined": 1}
    await catalogue.quarantine(tenant, [Poison(bad.item, bad.text_hash, None)])
    await catalogue.quarantine(tenant, [])
    assert await catalogue.page(tenant, status="quarantined") == []


async def test_quarantine_ends_with_the_text_and_only_with_it(catalogue: Catalogue, tenant: str) -> None:
    """A new poster does not heal a text; a new text does; and the old text's verdict does not hit the new one."""
    await catalogue.upsert(tenant, [video("v")], NOW_S)
    old = await catalogue.get(tenant, "v")
    verdict = Poison(old.item, old.text_hash, "poison")
    await catalogue.quarantine(tenant, [verdict])
    await catalogue.upsert(tenant, [video("v", poster_url="https://h/p")], NOW_S)
    assert (await catalogue.get(tenant, "v")).quarantine == "poison"
    await catalogue.upsert(tenant, [video("v", title="Better")], NOW_S)
    assert (await catalogue.get(tenant, "v")).quarantine is None
    await catalogue.quarantine(tenant, [verdict])
    assert (await catalogue.get(tenant, "v")).quarantine is None


async def test_a_reader_never_misses_a_change(catalogue: Catalogue, second: Catalogue, tenant: str) -> None:
    """While four writers commit, a polling reader that only asks for what is new ends with everything.

    Red when the rows are read before the version.
    """
    seen: dict[str, int] = {}
    since = 0
    done = asyncio.Event()

    async def write(writer: int) -> None:
        for number in range(25):
            names = [f"{writer}-{number}", f"{writer}-{random.randrange(number + 1)}"]
            batch = [video(name, duration_s=number) for name in dict.fromkeys(names)]
            await catalogue.upsert(tenant, batch, NOW_S)

    async def poll() -> int:
        version, changed = await read(second, tenant, since)
        for one in changed:
            assert one.version >= seen.get(one.id, 0), "a version went back"
            seen[one.id] = one.version
        return version

    async def follow() -> None:
        nonlocal since
        while not done.is_set():
            since = await poll()

    reader = asyncio.create_task(follow())
    await asyncio.gather(*(write(writer) for writer in range(4)))
    done.set()
    await reader
    since = await poll()
    assert seen == {one.id: one.version for one in await catalogue.page(tenant, limit=1000)}
    assert len(seen) == 100 and since == (await catalogue.versions())[tenant] == max(seen.values())


async def test_concurrent_upserts_share_no_number(catalogue: Catalogue, second: Catalogue, tenant: str) -> None:
    """Two processes sending new videos at once: each gets numbers of its own, without a gap."""
    batches: Sequence[tuple[Catalogue, list[VideoIn]]] = [
        (catalogue if number % 2 else second, [video(f"{number}-{one}") for one in range(5)]) for number in range(20)
    ]
    await asyncio.gather(*(into.upsert(tenant, batch, NOW_S) for into, batch in batches))
    items = [one.item for one in await catalogue.page(tenant, limit=1000)]
    assert sorted(items) == list(range(100))
    assert (await catalogue.versions())[tenant] == 20


async def test_concurrent_upserts_of_one_video_are_one_after_the_other(
    catalogue: Catalogue, second: Catalogue, tenant: str
) -> None:
    """The same new id from two sides is created once."""
    results = await asyncio.gather(*(into.upsert(tenant, [video("v")], NOW_S) for into in (catalogue, second) * 4))
    assert sorted(result.outcomes[0] for result in results) == ["created"] + ["unchanged"] * 7


async def test_five_processes_lose_no_write_on_sqlite(sqlite_url: str) -> None:
    """500 commits of five processes on one file: all are there, none was refused as locked."""
    engine = connect(sqlite_url)
    await Tenants(engine).create("acme", "Acme", NOW_S)
    writers = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", WRITE, sqlite_url, cwd=Path.cwd()
    )
    assert await writers.wait() == 0
    kept = await Catalogue(engine).page("acme", limit=1000)
    assert sorted(one.item for one in kept) == list(range(500))
    assert await Catalogue(engine).versions() == {"acme": 500}
    await engine.dispose()
