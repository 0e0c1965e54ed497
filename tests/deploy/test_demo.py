"""The demo's own content: real, valid, small, loaded once, and never in the way of what a person changed since."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from deploy.local import demo as demo_module
from deploy.local.demo import Demo
from deploy.local.demo_file import VIDEOS_FILE, newest_about, read_videos
from deploy.local.demo_keys import demo_user, write_keys
from deploy.local.progress import Embedded
from deploy.local.tenants import TENANTS, DemoTenant
from deploy.local.up import TRY_LIKES, TRY_TOPIC
from ranking.policy import validate
from retrieval.catalogue import Catalogue
from retrieval.database import connect
from retrieval.erasure import rekeyed
from retrieval.flags import may_be_held_out
from retrieval.settings import StoreSettings
from retrieval.tenants import Tenant, Tenants
from retrieval.videos import VideoIn, parse_videos

FEW = 3


@pytest.fixture
async def engine(settings: StoreSettings) -> AsyncIterator[AsyncEngine]:
    """A second look at the demo's database."""
    engine = connect(settings.database_url)
    yield engine
    await engine.dispose()


@pytest.fixture
def settings(tmp_path: Path) -> StoreSettings:
    """Stores in a folder of this test."""
    return StoreSettings(
        database_url=f"sqlite:///{tmp_path / 'feed.db'}", snapshot_dir=tmp_path / "snapshots", vector_dim=384
    )


def test_the_file_holds_valid_videos_of_eight_tenants_of_different_sizes() -> None:
    """Everything in it passes the checks of the API, and the file is small."""
    videos = read_videos()
    assert list(videos) == [tenant.id for tenant in TENANTS]
    sizes = [len(of_tenant) for of_tenant in videos.values()]
    assert len(set(sizes)) == len(sizes) >= 6 and sizes[-1] < 50 < sizes[0]
    assert not [refused for of_tenant in videos.values() for refused in parse_videos(of_tenant, 384).rejected]
    assert VIDEOS_FILE.stat().st_size <= 3_000_000


def test_the_file_holds_several_languages_and_topics() -> None:
    """Whoever tries hints, rules or likes finds something to try them on."""
    everything = [video for of_tenant in read_videos().values() for video in of_tenant]
    assert {"en", "es", "fr", None} <= {video["language"] for video in everything}
    assert len({name for video in everything for name in video["categories"]}) > 12
    assert len(newest_about(TRY_TOPIC, TENANTS[0].id, TRY_LIKES)) == TRY_LIKES


@pytest.mark.parametrize("tenant", TENANTS, ids=lambda tenant: tenant.id)
def test_every_policy_is_valid(tenant: DemoTenant) -> None:
    """What the demo publishes is what the API would let a content team publish."""
    assert validate(tenant.policy) == []


def test_no_two_tenants_have_the_same_policy() -> None:
    """Weights and rules differ, so their feeds can be compared."""
    for i, tenant in enumerate(TENANTS):
        for other in TENANTS[:i]:
            assert tenant.policy["weights"] != other.policy["weights"]
            assert tenant.policy["rules"] != other.policy["rules"]


def test_every_rule_aims_at_something() -> None:
    """A playlist or category that no video of the tenant has would be a rule without effect."""
    videos = read_videos()
    for tenant in TENANTS:
        known = {name for video in videos[tenant.id] for name in [*video["categories"], *video["playlists"]]}
        known |= {video["language"] for video in videos[tenant.id]}
        for rule in tenant.policy["rules"]:
            target = rule.get("target", {})
            [wanted, *_] = (
                [target["playlist"]]
                if "playlist" in target
                else [name for names in target.get("filter", {"any": [next(iter(known))]}).values() for name in names]
            )
            assert wanted in known, (tenant.id, rule["id"])


async def test_loading_again_changes_nothing(tmp_path: Path, settings: StoreSettings, engine: AsyncEngine) -> None:
    """No version moves, so nothing is embedded or built again."""
    async with Demo(tmp_path, settings) as demo:
        assert await demo.load(FEW) == {tenant.id: FEW for tenant in TENANTS}
        versions = await Catalogue(engine).versions()
        assert await demo.load(FEW) == {tenant.id: FEW for tenant in TENANTS}
        (tmp_path / "loaded").unlink()  # as if the first run had been interrupted at its end
        await demo.load(FEW)
        assert await Catalogue(engine).versions() == versions
        assert await demo.embedded() == Embedded(0, FEW * len(TENANTS))
        assert (await demo.unpublished()).keys() == versions.keys()


async def test_an_interrupted_first_run_is_completed(
    tmp_path: Path, settings: StoreSettings, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after some tenants, the next run brings the others and keeps the first."""
    async with Demo(tmp_path, settings) as demo:
        monkeypatch.setattr(demo_module, "TENANTS", (*TENANTS[:2], None))
        with pytest.raises(AttributeError):
            await demo.load(FEW)
        monkeypatch.setattr(demo_module, "TENANTS", TENANTS)
        await demo.load(FEW)
        catalogue = Catalogue(engine)
        assert await catalogue.versions() == {tenant.id: 1 for tenant in TENANTS}


async def test_an_edited_video_stays_edited(tmp_path: Path, settings: StoreSettings, engine: AsyncEngine) -> None:
    """The demo is loaded once; a person's change is not undone by the next start."""
    async with Demo(tmp_path, settings) as demo:
        await demo.load(FEW)
        tenant = TENANTS[0].id
        first = {**read_videos(FEW)[tenant][0], "title": "changed by hand"}
        catalogue = Catalogue(engine)
        await catalogue.upsert(tenant, [VideoIn.model_validate(first)], int(time.time()))
        await demo.load(FEW)
        assert (await catalogue.get(tenant, first["id"])).title == "changed by hand"


async def test_keys_are_made_once_and_replaced_when_they_end(
    tmp_path: Path, settings: StoreSettings, engine: AsyncEngine
) -> None:
    """The same keys after a restart, a new one for a revoked one, and nobody else may read the file."""
    url = "http://127.0.0.1:8080"
    async with Demo(tmp_path, settings) as demo:
        await demo.load(FEW)
        keys = await demo.keys(url)
        write_keys(tmp_path, keys)
        assert (tmp_path / "demo.json").stat().st_mode & 0o777 == 0o600
        assert await demo.keys(url) == keys
        tenants = Tenants(engine)
        revoked = next(key for key in await tenants.keys() if key.tenant_id == TENANTS[1].id and key.scope == "sk")
        await tenants.revoke(revoked.id, int(time.time()))
        renewed = await demo.keys(url)
        assert renewed["tenants"][1]["secret_key"] != keys["tenants"][1]["secret_key"]
        renewed["tenants"][1]["secret_key"] = keys["tenants"][1]["secret_key"]
        assert renewed == keys


def test_who_tries_the_demo_is_in_no_hold_out() -> None:
    """Whatever the tenant's pepper is: its made-up user, as apps send one, is somebody whose likes turn the feed."""
    for number in range(200):
        tenant = Tenant("pycon", "PyCon", "active", number.to_bytes(32, "big"), 1, 0)
        user = demo_user(tenant)
        assert re.fullmatch("[0-9a-f]{64}", user)
        assert not may_be_held_out("pycon", rekeyed(user, tenant.pepper))


async def test_a_damaged_key_file_costs_new_keys_only(tmp_path: Path, settings: StoreSettings) -> None:
    """Half a file, another kind of file: the demo starts all the same."""
    async with Demo(tmp_path, settings) as demo:
        await demo.load(FEW)
        for content in ("", "{", "[]", '{"admin_key": 5, "tenants": [{}]}'):
            (tmp_path / "demo.json").write_text(content)
            keys = await demo.keys("http://127.0.0.1:8080")
            assert keys["admin_key"].startswith("adm_") and len(keys["tenants"]) == len(TENANTS)
