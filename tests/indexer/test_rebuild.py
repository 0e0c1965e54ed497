"""Bringing a tenant up to date: what changed is published, what did not change costs nothing, what breaks is mended."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from indexer.generations import Base, Contents, Items, fold
from indexer.rebuild import Tenant
from ranking import maturity
from retrieval import catalogue
from retrieval.errors import NotFound, SnapshotCorrupt
from retrieval.rows import Rows
from retrieval.snapshot import Snapshot
from retrieval.store import Store
from tests.support.indexing import HookedEncoder, Indexing, names
from tests.support.running import POISON, video
from tests.support.tiny_encoder import TinyEncoder


async def test_one_more_video_costs_one_embedding(indexing: Indexing) -> None:
    """And an unchanged catalogue costs none, also for an indexer that knows nothing yet."""
    await indexing.put_many("acme", range(30))
    await indexing.daemon().once()
    assert len(indexing.encoder.texts_encoded) == 30
    await indexing.put_many("acme", range(30))
    await indexing.daemon().once()
    assert len(indexing.encoder.texts_encoded) == 30
    await indexing.put("acme", video("one-more", "a new one"))
    await indexing.daemon().once()
    assert indexing.encoder.texts_encoded[30:] == ["a new one"]
    assert indexing.shown("acme") == sorted([*names(range(30)), "one-more"])


async def test_a_change_of_the_card_alone_embeds_nothing(indexing: Indexing) -> None:
    """A new poster is published with the vector the text already has."""
    await indexing.put("acme", video("a", "bread"))
    await indexing.daemon().once()
    await indexing.put("acme", video("a", "bread", poster_url="https://cdn.example/new.jpg"))
    await indexing.daemon().once()
    assert indexing.encoder.texts_encoded == ["bread"]
    snapshot = indexing.snapshot("acme")
    assert b"new.jpg" in snapshot.cards(snapshot.rows(np.array([0], np.uint32)))[0]


async def test_a_poison_text_is_listed_and_its_neighbours_are_published(indexing: Indexing) -> None:
    """Until its text is mended: then it is shown, and listed no more."""
    await indexing.put("acme", video("good", "bread"), video("bad", f"a {POISON}"), video("better", "trains"))
    assert await indexing.daemon().once() == 0, "a poison item is no failure of its tenant"
    assert indexing.shown("acme") == ["better", "good"]
    [listed] = await indexing.catalogue.page("acme", status="quarantined")
    assert listed.id == "bad"
    assert POISON in (listed.quarantine or "")
    await indexing.put("acme", video("bad", "mended"))
    await indexing.daemon().once()
    assert indexing.shown("acme") == ["bad", "better", "good"]
    assert not await indexing.catalogue.page("acme", status="quarantined")


async def test_a_text_that_turns_poison_takes_its_video_down(indexing: Indexing) -> None:
    """Its old words are not what the CMS wants to be shown any more."""
    await indexing.put("acme", video("a", "bread"), video("b", "trains"))
    await indexing.daemon().once()
    await indexing.put("acme", video("a", POISON))
    await indexing.daemon().once()
    assert indexing.shown("acme") == ["b"]


async def test_drafts_and_removed_videos_are_not_served(indexing: Indexing) -> None:
    """A draft appears when it is published, a removed one disappears, and comes back under its own number."""
    await indexing.put("acme", video("a", "bread"), video("b", "trains", status="draft"))
    daemon = indexing.daemon()
    await daemon.once()
    assert indexing.shown("acme") == ["a"]
    assert indexing.encoder.texts_encoded == ["bread"], "a draft is not embedded either"
    await indexing.put("acme", video("b", "trains"))
    await daemon.once()
    number = indexing.snapshot("acme").find("b")
    await indexing.remove("acme", "b")
    await daemon.once()
    assert indexing.shown("acme") == ["a"]
    await indexing.put("acme", video("b", "trains"))
    await daemon.once()
    assert indexing.snapshot("acme").find("b") == number


async def test_an_own_vector_is_what_is_searched(indexing: Indexing) -> None:
    """The CMS's embedding is used as it came, scaled to length 1; no text is encoded for it."""
    own = [0.0] * TinyEncoder.dim
    own[4] = 5.0
    await indexing.put("acme", video("own", "whatever", vector=own), *(video(f"v{n}", f"bread {n}") for n in range(20)))
    await indexing.daemon().once()
    snapshot = indexing.snapshot("acme")
    unit = np.zeros((1, TinyEncoder.dim), np.float32)
    unit[0, 4] = 1.0
    rows, cosine = snapshot.search(unit, 1, snapshot.live)
    assert snapshot.cards(rows[0])[0].startswith(b'{"id":"own"')
    assert cosine[0, 0] == pytest.approx(1.0, abs=1e-3)
    assert len(indexing.encoder.texts_encoded) == 20


async def test_an_own_vector_of_another_length_is_quarantined(indexing: Indexing) -> None:
    """After a change of model, what the CMS computed for the old one has no place in the new index."""

    class Wider(TinyEncoder):
        dim = 48

    await indexing.put("acme", video("own", "whatever", vector=[1.0] * TinyEncoder.dim), video("a", "bread"))
    await indexing.daemon().once()
    assert indexing.shown("acme") == ["a", "own"]
    await indexing.daemon(Wider("wider")).once()
    assert indexing.shown("acme") == ["a"]
    assert indexing.snapshot("acme").dim == 48
    [listed] = await indexing.catalogue.page("acme", status="quarantined")
    assert (listed.id, listed.quarantine) == ("own", "own vector has 32 numbers, the model's have 48")


async def test_a_new_model_is_built_beside_and_switched_to_when_complete(indexing: Indexing) -> None:
    """While it embeds, the old generation serves, whole; then every vector is the new model's."""
    await indexing.put_many("acme", range(1200))
    await indexing.daemon().once()
    old = indexing.store.pointer("acme")
    seen = []
    encoder = HookedEncoder(lambda _texts: seen.append(indexing.store.pointer("acme")), "new model")
    await indexing.daemon(encoder, part_items=10).once()
    assert len(seen) > 10
    assert set(seen) == {old}
    snapshot = indexing.snapshot("acme")
    assert snapshot.model == encoder.model_id
    expected = encoder.encode([f"bread {n}" for n in range(1200)])
    assert np.allclose(snapshot.vectors(snapshot.rows(np.arange(1200, dtype=np.uint32))), expected, atol=1e-3)


async def test_a_new_table_of_ratings_is_in_every_row(indexing: Indexing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows keep the age they were written with, so the index is built anew; nothing is embedded for it."""
    await indexing.put("acme", video("a", "bread", ratings=[{"system": "fsk", "value": "12"}]), video("b", "trains"))
    await indexing.daemon().once()
    monkeypatch.setitem(maturity.RATINGS["fsk"], "12", 16)
    await indexing.daemon().once()
    assert indexing.snapshot("acme").column("min_age", np.arange(1)).tolist() == [12]
    monkeypatch.setattr("indexer.rebuild.TABLE_VERSION", maturity.TABLE_VERSION + 1)
    await indexing.daemon().once()
    assert indexing.snapshot("acme").column("min_age", np.arange(1)).tolist() == [16]
    assert indexing.shown("acme") == ["a", "b"]
    assert len(indexing.encoder.texts_encoded) == 2
    built = indexing.store.pointer("acme")
    await indexing.daemon().once()
    assert indexing.store.pointer("acme") == built


async def test_a_long_catch_up_is_published_in_parts(indexing: Indexing) -> None:
    """A first start shows a beginning soon; each part at least doubles what is there, and claims no version."""
    await indexing.put_many("acme", range(1200))
    seen: list[tuple[int, int]] = []

    def look(_texts: Sequence[str]) -> None:
        manifest = indexing.store.current("acme")
        if manifest is not None:
            seen.append((indexing.store.open(manifest).n_items, manifest.version))

    await indexing.daemon(HookedEncoder(look), part_items=100).once()
    assert sorted({items for items, _ in seen}) == [500, 1000]
    assert {version for _, version in seen} == {0}
    manifest = indexing.store.current("acme")
    assert manifest is not None
    assert (manifest.generation, manifest.version) == (3, 1)
    assert indexing.snapshot("acme").n_items == 1200
    assert indexing.on_progress[-1] == ("acme", 1200, 1200)


async def test_a_first_load_joins_each_row_once(indexing: Indexing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks wait for their part: who joined all rows with each chunk would take hours for a million."""
    joined: list[int] = []
    changed = Contents.changed

    def noted(contents: Contents, rows: Rows, gone: Items) -> Contents:
        joined.append(len(rows))
        return changed(contents, rows, gone)

    monkeypatch.setattr(Contents, "changed", noted)
    monkeypatch.setattr(catalogue, "READ_ROWS", 5)
    await indexing.put_many("acme", range(200))
    await indexing.daemon(part_items=5).once()
    assert joined == [5, 5, 10, 20, 40, 80, 40]
    assert indexing.shown("acme") == names(range(200))


async def test_an_interrupted_catch_up_goes_on_where_it_was(indexing: Indexing) -> None:
    """What was embedded before the crash is not embedded again, and nothing is missing afterwards."""
    await indexing.put_many("acme", range(1200))
    encoded: list[str] = []

    def die(texts: Sequence[str]) -> None:
        if len(encoded) > 700:
            raise OSError("as if killed")
        encoded.extend(texts)

    dying = indexing.daemon(HookedEncoder(die), part_items=100)
    assert await dying.once() == 1
    assert indexing.snapshot("acme").n_items == 500
    await indexing.daemon(indexing.encoder, part_items=100).once()
    assert len(indexing.encoder.texts_encoded) == 1200 - len(encoded)
    assert indexing.snapshot("acme").n_items == 1200


async def test_a_removed_video_is_remembered_and_not_encoded(indexing: Indexing) -> None:
    """Its vector stays at hand, in an index made from nothing too; a draft that never was anything leaves no trace."""
    await indexing.put("acme", video("a", "bread"), video("b", "trains"), video("c", "chess", status="draft"))
    daemon = indexing.daemon()
    await daemon.once()
    snapshot = indexing.snapshot("acme")
    number = snapshot.find("b")
    before = snapshot.vectors(snapshot.rows(np.array([number], np.uint32)))
    await indexing.remove("acme", "b", "c")
    await daemon.once()
    await daemon.rebuild_from_nothing("acme")
    assert indexing.encoder.texts_encoded == ["bread", "trains"]
    assert indexing.shown("acme") == ["a"]
    snapshot = indexing.snapshot("acme")
    assert snapshot.n_items == 1 and snapshot.n_rows == 8
    assert snapshot.find("c") is None
    assert np.array_equal(snapshot.vectors(snapshot.rows(np.array([number], np.uint32))), before)


# --- folding


async def test_what_lies_beside_the_base_is_folded_into_it(indexing: Indexing) -> None:
    """When enough has changed, a new base is built in the background, and nothing is lost or doubled."""
    await indexing.put_many("acme", range(50))
    daemon = indexing.daemon(fold_min_items=5)
    await daemon.once()
    await indexing.put_many("acme", range(45, 60), words="trains")
    await indexing.remove("acme", "v0")
    await daemon.once()
    snapshot = indexing.snapshot("acme")
    assert [len(segment) for segment in snapshot.segments] == [60], "v0 is remembered"
    assert not len(snapshot.dead)
    assert indexing.shown("acme") == names(range(1, 60))


async def test_changes_while_folding_stay_visible(indexing: Indexing) -> None:
    """What is published during a fold lies beside the new base afterwards."""
    await indexing.put_many("acme", range(50))
    rebuild = indexing.daemon(fold_min_items=5).rebuild
    tenant = Tenant("acme")
    while await rebuild.catch_up(tenant):
        pass
    await indexing.put_many("acme", range(50, 70))
    await rebuild.catch_up(tenant)
    assert tenant.fold is not None
    await tenant.fold
    folding, tenant.fold = tenant.fold, None
    await indexing.put_many("acme", [3, 70], words="trains")
    await indexing.remove("acme", "v4")
    await rebuild.catch_up(tenant)
    tenant.fold = folding
    await rebuild.catch_up(tenant)
    snapshot = indexing.snapshot("acme")
    assert [len(segment) for segment in snapshot.segments] == [70, 3], "v4 is remembered"
    assert sorted(snapshot.dead.tolist()) == [3, 4]
    assert indexing.shown("acme") == sorted(set(names(range(71))) - {"v4"})


async def test_a_base_folded_during_a_long_catch_up_is_not_swept(
    indexing: Indexing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No generation names it yet, and it may wait for hours; it is used in the end all the same."""
    begin, folded = threading.Event(), threading.Event()

    def late_fold(store: Store, snapshot: Snapshot) -> Base:
        begin.wait(10)
        base = fold(store, snapshot)
        folded.set()
        return base

    def hours_pass(_texts: Sequence[str]) -> None:
        if tenant.fold is not None:
            begin.set()
            assert folded.wait(10)
            for path in (indexing.store.root / "acme" / "segments").iterdir():
                os.utime(path, (1e9, 1e9))

    monkeypatch.setattr("indexer.rebuild.fold", late_fold)
    rebuild = indexing.daemon(HookedEncoder(hours_pass), fold_min_items=5, part_items=1).rebuild
    tenant = Tenant("acme")
    for numbers in (range(50), range(50, 70)):
        await indexing.put_many("acme", numbers)
        await rebuild.catch_up(tenant)
    await indexing.put_many("acme", range(70, 1300))
    await rebuild.catch_up(tenant)
    assert tenant.fold is not None
    assert await rebuild.catch_up(tenant)
    snapshot = indexing.snapshot("acme")
    assert [len(segment) for segment in snapshot.segments] == [70, 1230]


# --- damage


def flip(paths: Iterable[Path]) -> None:
    """One bit in the middle of each file."""
    for path in paths:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "CURRENT unreadable": lambda folder: (folder / "CURRENT").write_bytes(b"{"),
    "CURRENT gone": lambda folder: (folder / "CURRENT").unlink(),
    "manifest flipped": lambda folder: flip((folder / "generations").iterdir()),
    "rows flipped": lambda folder: flip((folder / "segments").glob("*/rows.bin")),
    "vectors flipped": lambda folder: flip((folder / "segments").glob("*/vectors.faiss")),
    "segments gone": lambda folder: shutil.rmtree(folder / "segments"),
    "everything gone": shutil.rmtree,
}


async def damaged(indexing: Indexing, damage: str) -> Store:
    """Two generations of `acme`, then the damage."""
    await indexing.put_many("acme", range(20))
    await indexing.daemon().once()
    await indexing.put_many("acme", [20])
    await indexing.daemon().once()
    DAMAGE[damage](indexing.store.root / "acme")
    return indexing.store


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damage_is_mended_by_the_next_indexer(indexing: Indexing, damage: str) -> None:
    """It finds out when it opens what is there, and builds the index anew; no text is embedded again."""
    await damaged(indexing, damage)
    assert await indexing.daemon().once() == 0
    assert indexing.shown("acme") == names(range(21))
    assert len(indexing.encoder.texts_encoded) == 21


@pytest.mark.parametrize("damage", ["CURRENT unreadable", "CURRENT gone", "everything gone"])
async def test_a_running_indexer_notices_that_current_is_damaged(indexing: Indexing, damage: str) -> None:
    """Without any change of the catalogue: a worker that starts now must find something to serve."""
    await indexing.put_many("acme", range(20))
    daemon = indexing.daemon()
    await daemon.once()
    await indexing.put_many("acme", [20])
    await daemon.once()
    DAMAGE[damage](indexing.store.root / "acme")
    await daemon.once()
    assert indexing.shown("acme") == names(range(21))


async def test_a_segment_lost_under_a_running_indexer_is_written_again(indexing: Indexing) -> None:
    """It still has the base in memory; what it must not do is publish a generation nobody else can open."""
    await indexing.put_many("acme", range(20))
    daemon = indexing.daemon()
    await daemon.once()
    before = indexing.store.newest_generation("acme")
    DAMAGE["segments gone"](indexing.store.root / "acme")
    await indexing.put_many("acme", [20])
    assert await daemon.once() == 1
    assert indexing.store.newest_generation("acme") == before
    with pytest.raises(SnapshotCorrupt):
        indexing.snapshot("acme")
    daemon.attempts["acme"].retry_at_s = 0.0
    assert await daemon.once() == 0
    assert indexing.shown("acme") == names(range(21))


async def test_a_rebuild_from_nothing_switches_when_it_is_complete(indexing: Indexing) -> None:
    """The operator's way out: everything is written anew, from cached vectors."""
    await indexing.put_many("acme", range(20))
    daemon = indexing.daemon()
    await daemon.once()
    before = {path.name for path in (indexing.store.root / "acme" / "segments").iterdir()}
    await indexing.daemon(holder="operator").rebuild_from_nothing("acme")
    manifest = indexing.store.current("acme")
    assert manifest is not None
    assert not {name for name, _ in manifest.segments} & before
    assert len(indexing.encoder.texts_encoded) == 20
    await indexing.put_many("acme", [20])
    await daemon.once()
    assert indexing.shown("acme") == names(range(21)), "who was running goes on from the rebuilt one"


async def test_a_rebuild_waits_for_whoever_is_at_the_tenant(indexing: Indexing) -> None:
    """Otherwise a tenant with many changes could never be rebuilt: somebody would always publish first."""
    await indexing.put_many("acme", range(5))
    operator = indexing.daemon(holder="operator")
    token = await operator.leases.acquire("index:acme", "somebody", 60, int(time.time()))
    assert token is not None
    rebuilding = asyncio.create_task(operator.rebuild_from_nothing("acme"))
    await asyncio.sleep(0.1)
    assert indexing.store.current("acme") is None
    await operator.leases.release("index:acme", "somebody", token)
    await rebuilding
    assert indexing.shown("acme") == names(range(5))


async def test_an_unknown_tenant_cannot_be_rebuilt(indexing: Indexing) -> None:
    """NotFound, and no folder for it."""
    with pytest.raises(NotFound):
        await indexing.daemon().rebuild_from_nothing("nobody")
    assert not (indexing.store.root / "nobody").exists()
