"""Tenants and their keys, on both databases."""

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval.database import config_version
from retrieval.errors import AlreadyExists, InvalidInput, NotFound
from retrieval.tenants import Scope, Tenants, hash_key
from tests.support.databases import NOW_S


@pytest.fixture
def tenants(engine: AsyncEngine) -> Tenants:
    """The tenants of the test's own database."""
    return Tenants(engine)


async def test_a_tenant_comes_back_as_it_was_created(tenants: Tenants) -> None:
    """Active, empty, with a pepper of its own."""
    made = await tenants.create("acme", "Acme TV", NOW_S)
    assert (made.id, made.name, made.status, made.version, made.created_s) == ("acme", "Acme TV", "active", 0, NOW_S)
    assert len(made.pepper) == 32
    other = await tenants.create("0-b", "B", NOW_S)
    assert made.pepper != other.pepper
    assert await tenants.get("acme") == made
    assert await tenants.list() == [other, made]
    assert repr(made.pepper) not in repr(made)


async def test_an_id_can_be_taken_once(tenants: Tenants) -> None:
    """A second tenant of the same name does not replace the first."""
    made = await tenants.create("acme", "Acme", NOW_S)
    with pytest.raises(AlreadyExists, match="acme"):
        await tenants.create("acme", "Impostor", NOW_S)
    assert await tenants.list() == [made]


@pytest.mark.parametrize("tenant_id", ["", "-a", "A", "a b", "a" * 64, "ä", "a\n", "a/b", "a\0"])
async def test_an_id_is_a_slug(tenants: Tenants, tenant_id: str) -> None:
    """Ids become parts of paths and keys, so they are plain."""
    with pytest.raises(InvalidInput) as caught:
        await tenants.create(tenant_id, "Name", NOW_S)
    assert [problem.pointer for problem in caught.value.problems] == ["/id"]


async def test_suspending_can_be_undone(tenants: Tenants) -> None:
    """Nothing is lost by being suspended."""
    await tenants.create("acme", "Acme", NOW_S)
    await tenants.suspend("acme", NOW_S)
    assert (await tenants.get("acme")).status == "suspended"
    await tenants.resume("acme", NOW_S)
    assert (await tenants.get("acme")).status == "active"
    for name in ("nobody", "a\0"):
        for attempt in (tenants.suspend(name, NOW_S), tenants.resume(name, NOW_S), tenants.get(name)):
            with pytest.raises(NotFound):
                await attempt


async def test_a_key_is_shown_once_and_kept_hashed(tenants: Tenants) -> None:
    """The clear text is nowhere but in the answer; its hash finds the tenant and the scope."""
    await tenants.create("acme", "Acme", NOW_S)
    new = await tenants.create_key("acme", "pk", "the app", NOW_S, NOW_S + 10)
    scope, _, secret = new.clear.partition("_")
    assert scope == "pk" and len(secret) == 43
    assert new.clear not in repr(new)
    (key,) = await tenants.keys()
    assert key.sha256 == hash_key(new.clear) and len(key.sha256) == 32
    assert (key.id, key.tenant_id, key.scope, key.label) == (new.id, "acme", "pk", "the app")
    assert (key.created_s, key.expires_s, key.revoked_s) == (NOW_S, NOW_S + 10, None)


async def test_keys_rotate_with_overlap(tenants: Tenants) -> None:
    """Old and new are valid together until the old one's expiry, to the second."""
    await tenants.create("acme", "Acme", NOW_S)
    old = await tenants.create_key("acme", "sk", "old", NOW_S)
    new = await tenants.create_key("acme", "sk", "new", NOW_S + 1)
    await tenants.expire_key(old.id, NOW_S + 60, NOW_S)
    keys = {key.id: key for key in await tenants.keys()}
    assert keys[old.id].valid_at(NOW_S + 59) and not keys[old.id].valid_at(NOW_S + 60)
    assert keys[new.id].valid_at(NOW_S + 10**9)


async def test_a_revoked_key_is_over_at_once(tenants: Tenants) -> None:
    """Revoking counts from the first time, whatever the expiry says."""
    key = await tenants.create_key(None, "adm", "operator", NOW_S)
    await tenants.revoke(key.id, NOW_S + 1)
    await tenants.revoke(key.id, NOW_S + 2)
    (kept,) = await tenants.keys()
    assert kept.revoked_s == NOW_S + 1 and not kept.valid_at(NOW_S)
    with pytest.raises(NotFound):
        await tenants.revoke("key_nobody", NOW_S)
    with pytest.raises(NotFound):
        await tenants.expire_key("key_nobody", NOW_S, NOW_S)


@pytest.mark.parametrize(("tenant_id", "scope"), [(None, "pk"), (None, "sk"), ("acme", "adm")])
async def test_a_key_is_of_a_tenant_or_of_the_operator(tenants: Tenants, tenant_id: str | None, scope: Scope) -> None:
    """No key of a tenant reaches the operator's functions, and none of an app is without a tenant."""
    await tenants.create("acme", "Acme", NOW_S)
    with pytest.raises(InvalidInput, match="/tenant"):
        await tenants.create_key(tenant_id, scope, "", NOW_S)
    assert await tenants.keys() == []


async def test_a_key_needs_sense(tenants: Tenants) -> None:
    """An unknown tenant, an expiry in the past and an endless label are refused."""
    with pytest.raises(NotFound):
        await tenants.create_key("nobody", "pk", "", NOW_S)
    with pytest.raises(InvalidInput, match=r"/label.*/expires_at"):
        await tenants.create_key(None, "adm", "x" * 201, NOW_S, NOW_S)


async def test_every_change_moves_the_config_version(tenants: Tenants, engine: AsyncEngine) -> None:
    """Workers poll one number: each write moves it, a refused write and a read do not."""
    seen = [await config_version(engine)]

    async def moved() -> bool:
        seen.append(await config_version(engine))
        return seen[-1] > seen[-2]

    await tenants.create("acme", "Acme", NOW_S)
    assert await moved()
    key = await tenants.create_key("acme", "pk", "", NOW_S)
    assert await moved()
    await tenants.expire_key(key.id, NOW_S + 5, NOW_S)
    assert await moved()
    await tenants.revoke(key.id, NOW_S)
    assert await moved()
    await tenants.suspend("acme", NOW_S)
    assert await moved()
    await tenants.resume("acme", NOW_S)
    assert await moved()
    with pytest.raises(AlreadyExists):
        await tenants.create("acme", "Acme", NOW_S)
    await tenants.list()
    await tenants.keys()
    assert not await moved()


def test_any_text_can_be_hashed() -> None:
    """A key comes from a header: whatever it holds, looking it up does not raise."""
    assert len({hash_key(clear) for clear in ("", "pk_a", "pk_b", "\ud800", "\0")}) == 5
