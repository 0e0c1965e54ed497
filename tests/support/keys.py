"""Keys of every kind for tests that ask with each of them."""

from __future__ import annotations

from retrieval.database import connect
from retrieval.tenants import NewKey, Scope, Tenants
from tests.support.running import finished
from tests.support.served import Served


def new_key(service: Served, tenant: str | None, scope: Scope, *, expires_s: int | None = None) -> NewKey:
    """A key that the service knows by now."""

    async def make() -> NewKey:
        engine = connect(service.place.database_url)
        try:
            return await Tenants(engine).create_key(tenant, scope, "test", service.now_s, expires_s)
        finally:
            await engine.dispose()

    before = service.resources.live.config.version
    made = finished(make())
    service.configured(before)
    return made


def change_tenants(service: Served, method: str, *arguments: object) -> None:
    """Call a method of Tenants and wait until the service knows."""

    async def call() -> None:
        engine = connect(service.place.database_url)
        try:
            await getattr(Tenants(engine), method)(*arguments)
        finally:
            await engine.dispose()

    before = service.resources.live.config.version
    finished(call())
    service.configured(before)
