"""Tenants, keys and policies as one immutable value, read from SQL and kept as a last good copy on local disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from ranking.errors import PolicyError
from ranking.policy import GLOBAL as GLOBAL_LAYER
from ranking.policy import TENANT as TENANT_LAYER
from ranking.policy import Layer, Policy, resolve
from retrieval.database import config_version
from retrieval.files import write_atomically
from retrieval.policies import Policies
from retrieval.tables import GLOBAL
from retrieval.tenants import Key, Tenant, Tenants

log = structlog.get_logger("retrieval")


@dataclass(frozen=True)
class Config:
    """All tenants by id, all keys by the hash of their secret, and each tenant's resolved policy with its version.

    `version` is SQL's config version, -1 for "nothing known". `bodies` are the live policy documents as published.
    """

    version: int = -1
    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    keys: Mapping[bytes, Key] = field(default_factory=dict)
    bodies: Mapping[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    policies: Mapping[str, Policy] = field(default_factory=dict)
    policy_versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def refused(self) -> list[str]:
        """Tenants whose published policy is malformed: the last good one is in effect."""
        return [
            tenant for tenant, version in self.policy_versions.items() if version != _published(self.bodies, tenant)
        ]


async def load(engine: AsyncEngine, previous: Config) -> Config:
    """The configuration in SQL now, or `previous` itself if nothing has changed. Raises StoreUnavailable."""
    version = await config_version(engine)  # before the rows: what is committed in between is read again next time
    if version == previous.version:
        return previous
    tenants, policies = Tenants(engine), Policies(engine)
    return _config(
        version,
        await tenants.list(),
        await tenants.keys(),
        {name: (policy.version, policy.body) for name, policy in (await policies.live()).items()},
        previous,
    )


def save(config: Config, path: Path) -> None:
    """Keep `config` for a start with SQL down. Owner-only: it holds the peppers of user ids. Raises OSError."""
    facts = {
        "version": config.version,
        "tenants": [asdict(tenant) for tenant in config.tenants.values()],
        "keys": [asdict(key) for key in config.keys.values()],
        "policies": config.bodies,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, orjson.dumps(facts, default=bytes.hex), mode=0o600)


def restore(path: Path) -> Config:
    """The last good copy, empty (version -1) if there is none or it cannot be read.

    It keeps version -1, so that the first answer of SQL, whatever it is, replaces it.
    """
    try:
        facts = orjson.loads(path.read_bytes())
        tenants = [Tenant(**{**one, "pepper": bytes.fromhex(one["pepper"])}) for one in facts["tenants"]]
        keys = [Key(**{**one, "sha256": bytes.fromhex(one["sha256"])}) for one in facts["keys"]]
        bodies = {name: (int(version), body) for name, (version, body) in facts["policies"].items()}
    except FileNotFoundError:
        return Config()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.error("last_good_copy_unreadable", error=type(error).__name__)
        return Config()
    return _config(-1, tenants, keys, bodies, Config())


def _config(
    version: int,
    tenants: Sequence[Tenant],
    keys: Sequence[Key],
    bodies: Mapping[str, tuple[int, dict[str, Any]]],
    previous: Config,
) -> Config:
    resolved = {tenant.id: _policy(tenant.id, bodies, previous) for tenant in tenants}
    return Config(
        version=version,
        tenants={tenant.id: tenant for tenant in tenants},
        # A key made between the two reads belongs to a tenant that comes with the next one.
        keys={key.sha256: key for key in keys if key.tenant_id is None or key.tenant_id in resolved},
        bodies=bodies,
        policies={name: policy for name, (policy, _) in resolved.items()},
        policy_versions={name: policy_version for name, (_, policy_version) in resolved.items()},
    )


def _policy(tenant: str, bodies: Mapping[str, tuple[int, dict[str, Any]]], previous: Config) -> tuple[Policy, str]:
    """(policy, its version) of a tenant: built-in default < global < its own. A malformed one never takes effect: the
    last good one stays."""
    version = _published(bodies, tenant)
    # The bodies too: another database (a restored one, a new one beside an old copy) counts its versions afresh.
    same = all(bodies.get(layer) == previous.bodies.get(layer) for layer in (GLOBAL, tenant))
    if same and previous.policy_versions.get(tenant) == version:
        return previous.policies[tenant], version
    try:
        layers = [Layer(GLOBAL_LAYER, _layer(bodies, GLOBAL)[1]), Layer(TENANT_LAYER, _layer(bodies, tenant)[1])]
        return resolve(layers), version
    except PolicyError as error:
        log.error("policy_malformed", tenant=tenant, version=version, problems=len(error.problems))
        if tenant in previous.policies:
            return previous.policies[tenant], previous.policy_versions[tenant]
        return resolve(), "0.0"


def _published(bodies: Mapping[str, tuple[int, dict[str, Any]]], tenant: str) -> str:
    """The version of a tenant's policy as it was published: "GLOBAL.OWN"."""
    return f"{_layer(bodies, GLOBAL)[0]}.{_layer(bodies, tenant)[0]}"


def _layer(bodies: Mapping[str, tuple[int, dict[str, Any]]], scope: str) -> tuple[int, dict[str, Any]]:
    return bodies.get(scope, (0, {}))
