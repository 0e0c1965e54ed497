"""Tenants, keys and policies in memory: read when they change, kept for a start without SQL, never half a policy."""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval.config import Config, load, restore, save
from retrieval.database import connect
from retrieval.policies import Policies
from retrieval.tenants import Tenants, hash_key
from tests.support.databases import NOW_S


@pytest.fixture
async def engine(sqlite_url: str) -> AsyncIterator[AsyncEngine]:
    engine = connect(sqlite_url)
    yield engine
    await engine.dispose()


async def shop(engine: AsyncEngine) -> str:
    """Two tenants, a key and a policy; the key in clear text."""
    tenants = Tenants(engine)
    for name in ("acme", "other"):
        await tenants.create(name, name, NOW_S)
    await publish(engine, "acme", {"weights": {"similarity": 0.9}}, 0)
    return (await tenants.create_key("acme", "pk", "app", NOW_S)).clear


async def publish(engine: AsyncEngine, tenant: str | None, body: dict[str, Any], if_version: int) -> None:
    await Policies(engine).publish(tenant, body, "ada", "test", if_version, NOW_S)


async def test_everything_sql_knows_is_loaded(engine: AsyncEngine) -> None:
    """Tenants by id, keys by their hash, and a resolved policy for each tenant."""
    clear = await shop(engine)
    config = await load(engine, Config())
    assert sorted(config.tenants) == ["acme", "other"]
    assert config.keys[hash_key(clear)].tenant_id == "acme"
    assert config.policies["acme"].weights != config.policies["other"].weights
    assert config.policy_versions == {"acme": "0.1", "other": "0.0"}


async def test_a_key_without_its_tenant_is_no_key_yet(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant that is made between the reads of tenants and keys comes whole with the next look."""
    before = await Tenants(engine).list()
    clear = await shop(engine)
    with monkeypatch.context() as patch:
        patch.setattr(Tenants, "list", AsyncMock(return_value=before))
        assert not (await load(engine, Config())).keys
    assert hash_key(clear) in (await load(engine, Config())).keys


async def test_nothing_new_is_the_same_object(engine: AsyncEngine) -> None:
    """A worker asks each second; only a change makes a new configuration, and it keeps the policies that stayed."""
    await shop(engine)
    config = await load(engine, Config())
    assert await load(engine, config) is config
    await publish(engine, "other", {"weights": {"popularity": 0.1}}, 0)
    newer = await load(engine, config)
    assert newer is not config
    assert newer.policies["acme"] is config.policies["acme"]
    assert newer.policies["other"] != config.policies["other"]


async def test_a_global_policy_reaches_every_tenant(engine: AsyncEngine) -> None:
    """Under the tenants' own, which win."""
    await shop(engine)
    before = await load(engine, Config())
    await publish(engine, None, {"weights": {"similarity": 0.3}}, 0)
    after = await load(engine, before)
    assert after.policies["other"].weights != before.policies["other"].weights
    assert after.policies["acme"].weights["similarity"] == before.policies["acme"].weights["similarity"]


async def test_a_malformed_policy_never_takes_effect(engine: AsyncEngine) -> None:
    """The last good one stays; where there was none, the default."""
    await shop(engine)
    good = await load(engine, Config())
    await publish(engine, "acme", {"weights": {"similarity": "a lot"}}, 1)
    bad = await load(engine, good)
    assert bad.policies["acme"] is good.policies["acme"]
    assert bad.policy_versions["acme"] == "0.1", "and says which one it is"
    fresh = await load(engine, Config())
    assert fresh.policies["acme"].weights == fresh.policies["other"].weights
    assert fresh.policy_versions["acme"] == "0.0"
    assert (good.refused, bad.refused, fresh.refused) == ([], ["acme"], ["acme"])


async def test_the_copy_is_the_configuration(engine: AsyncEngine, tmp_path: Path) -> None:
    """Tenants with their peppers, keys and policies; nobody else may read the file."""
    clear = await shop(engine)
    config = await load(engine, Config())
    path = tmp_path / "state" / "config.json"
    save(config, path)
    kept = restore(path)
    assert (kept.tenants, kept.keys) == (config.tenants, config.keys)
    assert [p.weights for p in kept.policies.values()] == [p.weights for p in config.policies.values()]
    assert kept.policy_versions == config.policy_versions
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert clear not in path.read_text()


async def test_what_sql_says_replaces_the_copy(engine: AsyncEngine, tmp_path: Path) -> None:
    """Whatever version the copy had: the database may be another one."""
    await shop(engine)
    save(await load(engine, Config()), tmp_path / "config.json")
    await Tenants(engine).create("third", "third", NOW_S)
    assert "third" in (await load(engine, restore(tmp_path / "config.json"))).tenants


async def test_a_policy_of_another_database_is_not_taken_for_ours(engine: AsyncEngine, tmp_path: Path) -> None:
    """A new database counts its versions afresh: version 0.1 of the copy need not be version 0.1 of SQL."""
    await shop(engine)
    config = await load(engine, Config())
    save(config, tmp_path / "config.json")
    facts = json.loads((tmp_path / "config.json").read_text())
    facts["policies"]["acme"][1] = {"weights": {"similarity": 0.123}}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    other = restore(tmp_path / "config.json")
    assert other.policies["acme"].weights["similarity"] == 0.123
    assert (await load(engine, other)).policies["acme"].weights["similarity"] == 0.9


def test_no_copy_is_nothing_known(tmp_path: Path) -> None:
    """A first start: no tenants, and the first answer of SQL is news."""
    assert restore(tmp_path / "config.json") == Config()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(json_values | st.fixed_dictionaries({"tenants": json_values, "keys": json_values, "policies": json_values}))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_copy_however_damaged_stops_a_start(tmp_path: Path, content: object) -> None:
    """It is ignored, and SQL is asked."""
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert restore(tmp_path / "config.json").version == -1


@given(st.binary(max_size=50))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_that_are_no_json_are_no_copy(tmp_path: Path, content: bytes) -> None:
    """Random bytes, an empty file."""
    (tmp_path / "config.json").write_bytes(content)
    assert restore(tmp_path / "config.json").version == -1
