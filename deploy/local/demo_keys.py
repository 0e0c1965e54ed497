"""`demo.json`: the base URL and the keys of the demo, made once and used again as long as the database knows them."""

from __future__ import annotations

import time
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import TypedDict

import orjson

from retrieval.erasure import rekeyed
from retrieval.files import write_atomically
from retrieval.flags import may_be_held_out
from retrieval.tenants import Scope, Tenant, Tenants, hash_key

FILE = "demo.json"
LABEL = "demo"


class TenantKeys(TypedDict):
    """What a host app is given, and a made-up user of it in the form apps send."""

    id: str
    publishable_key: str
    secret_key: str
    user: str


class DemoKeys(TypedDict):
    """The whole file."""

    base_url: str
    admin_key: str
    tenants: list[TenantKeys]


async def valid_keys(folder: Path, base_url: str, tenant_ids: list[str], tenants: Tenants) -> DemoKeys:
    """A working key of each kind for everyone: the one in the file if the database knows it, else a new one."""
    remembered = _remembered(folder)
    now_s = int(time.time())
    made = {tenant.id: tenant for tenant in await tenants.list()}
    valid = {key.sha256: (key.tenant_id, key.scope) for key in await tenants.keys() if key.valid_at(now_s)}

    async def key(tenant_id: str | None, scope: Scope) -> str:
        old = remembered.get((tenant_id, scope), "")
        if valid.get(hash_key(old)) == (tenant_id, scope):
            return old
        return (await tenants.create_key(tenant_id, scope, LABEL, now_s)).clear

    return DemoKeys(
        base_url=base_url,
        admin_key=await key(None, "adm"),
        tenants=[
            TenantKeys(
                id=name,
                publishable_key=await key(name, "pk"),
                secret_key=await key(name, "sk"),
                user=demo_user(made[name]),
            )
            for name in tenant_ids
        ],
    )


def demo_user(tenant: Tenant) -> str:
    """64 hex digits of a hash: somebody who is in no hold-out, for in there likes turn no feed."""
    users = (sha256(f"demo user {number} of {tenant.id}".encode()).hexdigest() for number in count())
    return next(user for user in users if not may_be_held_out(tenant.id, rekeyed(user, tenant.pepper)))


def write_keys(folder: Path, keys: DemoKeys) -> None:
    """Write the file in one step, readable by its owner only."""
    content = orjson.dumps(keys, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    write_atomically(folder / FILE, content, mode=0o600)


def _remembered(folder: Path) -> dict[tuple[str | None, Scope], str]:
    """The keys of the last run; none when there was none or somebody has damaged the file."""
    try:
        keys: DemoKeys = orjson.loads((folder / FILE).read_bytes())
        found: dict[tuple[str | None, Scope], str] = {(None, "adm"): str(keys["admin_key"])}
        for tenant in keys["tenants"]:
            found[tenant["id"], "pk"] = str(tenant["publishable_key"])
            found[tenant["id"], "sk"] = str(tenant["secret_key"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found
