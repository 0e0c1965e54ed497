"""Policy versions are immutable, numbered without a gap, and never published over each other; on both databases."""

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval.database import config_version
from retrieval.errors import InvalidInput, NotFound, VersionMismatch
from retrieval.policies import Policies
from retrieval.tables import GLOBAL
from tests.support.databases import NOW_S


@pytest.fixture
def policies(engine: AsyncEngine) -> Policies:
    """The policies of the test's own database."""
    return Policies(engine)


async def test_the_last_published_is_live(policies: Policies, tenant: str) -> None:
    """Versions count from 1, per tenant and for the global policy; the history keeps all, newest first."""
    assert await policies.live() == {}
    assert await policies.publish(tenant, {"weights": {"similarity": 0.5}}, "ada", "first", 0, NOW_S) == 1
    assert await policies.publish(tenant, {"rules": [], "name": "ü"}, "bob", "second", 1, NOW_S + 5) == 2
    assert await policies.publish(None, {}, "ops", "for all", 0, NOW_S) == 1
    live = await policies.live()
    assert set(live) == {tenant, GLOBAL}
    assert (live[tenant].version, live[tenant].body) == (2, {"rules": [], "name": "ü"})
    assert (live[tenant].author, live[tenant].reason, live[tenant].published_s) == ("bob", "second", NOW_S + 5)
    assert [one.version for one in await policies.history(tenant)] == [2, 1]
    assert [one.version for one in await policies.history(tenant, limit=1)] == [2]
    assert (await policies.history(tenant))[1].body == {"weights": {"similarity": 0.5}}
    assert [one.tenant_id for one in await policies.history(None)] == [GLOBAL]


async def test_who_started_from_an_old_version_is_refused(policies: Policies, tenant: str) -> None:
    """Nobody's change is lost unseen: the error says which version is current."""
    await policies.publish(tenant, {"a": 1}, "ada", "r", 0, NOW_S)
    for stale in (0, 2, -1):
        with pytest.raises(VersionMismatch) as caught:
            await policies.publish(tenant, {"a": 2}, "bob", "r", stale, NOW_S)
        assert (caught.value.expected, caught.value.current) == (stale, 1)
    assert len(await policies.history(tenant)) == 1


async def test_of_two_at_once_one_wins(policies: Policies, tenant: str) -> None:
    """Ten authors start from the same version: one is published, nine are told."""
    results = await asyncio.gather(
        *(policies.publish(tenant, {"by": number}, "a", "r", 0, NOW_S) for number in range(10)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["VersionMismatch"] * 9 + ["int"]
    assert len(await policies.history(tenant)) == 1


async def test_publishing_moves_the_config_version(policies: Policies, tenant: str, engine: AsyncEngine) -> None:
    """Workers notice a new policy by the one number they poll; a refused one moves nothing."""
    before = await config_version(engine)
    await policies.publish(tenant, {}, "ada", "r", 0, NOW_S)
    assert await config_version(engine) == before + 1
    with pytest.raises(VersionMismatch):
        await policies.publish(tenant, {}, "ada", "r", 0, NOW_S)
    assert await config_version(engine) == before + 1


async def test_author_and_reason_are_mandatory(policies: Policies, tenant: str) -> None:
    """The history answers who and why, so both must be there, and printable."""
    for author, reason in (("", "r"), ("a", ""), ("a\0", "r"), ("a", "x" * 501)):
        with pytest.raises(InvalidInput):
            await policies.publish(tenant, {}, author, reason, 0, NOW_S)
    with pytest.raises(NotFound):
        await policies.publish("nobody", {}, "a", "r", 0, NOW_S)
    assert await policies.live() == {}
