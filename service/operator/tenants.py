"""`tenants` and `keys`: host apps and what they call with."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from retrieval.errors import FeedError
from retrieval.tenants import Scope as KeyScope
from service.admin import instant
from service.operator.console import AsJson, Reason, fail, now_s, opened, run, show, table_of, who
from service.routes.tenants import shape, shape_key

tenants = typer.Typer(no_args_is_help=True, help="Host apps.")
keys = typer.Typer(no_args_is_help=True, help="API keys: pk_ in apps, sk_ between servers, adm_ for operators.")

TenantId = Annotated[str, typer.Argument(help="tenant id")]
KeyId = Annotated[str, typer.Argument(help="key id, as `keys list` shows it")]


@tenants.command("list")
def list_tenants(as_json: AsJson = False) -> None:
    """Every tenant."""

    async def command() -> None:
        async with opened() as desk:
            found = [shape(one) for one in await desk.tenants.list()]
        rows = [(one["id"], one["name"], one["status"], one["catalogue_version"], one["created_at"]) for one in found]
        show(found, as_json, table_of(("tenant", "name", "status", "catalogue version", "created"), rows))

    run(command())


@tenants.command("create")
def create_tenant(
    tenant: TenantId, name: Annotated[str, typer.Option(help="shown to people")] = "", as_json: AsJson = False
) -> None:
    """A new tenant with an empty catalogue, personalisation on, and its first publishable and secret key."""

    async def command() -> None:
        async with opened() as desk:
            made = await desk.tenants.create(tenant, name or tenant, now_s(), who=who())
            clear = {
                scope: (await desk.tenants.create_key(tenant, scope, "first", now_s(), who=who())).clear
                for scope in _FIRST
            }
        show(shape(made) | {"publishable_key": clear["pk"], "secret_key": clear["sk"]}, as_json)

    run(command())


@tenants.command("suspend")
def suspend(tenant: TenantId, reason: Reason) -> None:
    """Stop answering its keys; everything is kept."""
    _status(tenant, reason, suspended=True)


@tenants.command("resume")
def resume(tenant: TenantId, reason: Reason) -> None:
    """Undo `suspend`."""
    _status(tenant, reason, suspended=False)


@tenants.command("purge")
def purge(
    tenant: TenantId,
    reason: Reason,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a suspended tenant from every store, for good. Needs a running indexer; says what was deleted.

    Its audit stays. Interrupted, it can be given again.
    """
    if not reason.strip():
        fail("--reason must say why")

    async def command() -> dict[str, int]:
        async with opened() as desk:
            await desk.purge.check(tenant)
            if not yes and typer.prompt(f"This cannot be undone. Type {tenant} to purge it", err=True) != tenant:
                fail("nothing was purged: that was not its id")
            gone = await desk.purge.purge(tenant, who=who(), reason=reason)
            desk.kill_files.lift(tenant)
            return gone

    gone = run(command())
    show(gone, as_json, table_of(("deleted", ""), gone.items()))


@keys.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="only of this tenant")] = None, as_json: AsJson = False
) -> None:
    """Every key, never its secret."""

    async def command() -> None:
        async with opened() as desk:
            found = [shape_key(key, now_s()) for key in await desk.tenants.keys()]
        found = [key for key in found if tenant is None or key["tenant"] == tenant]
        names = ("id", "tenant", "scope", "label", "valid", "expires_at", "revoked_at")
        show(found, as_json, table_of(names, [[key[name] for name in names] for key in found]))

    run(command())


@keys.command("create")
def create_key(
    scope: Annotated[str, typer.Option(help="pk, sk or adm")],
    tenant: Annotated[str | None, typer.Option(help="tenant id; none for adm")] = None,
    label: Annotated[str, typer.Option(help="what it is for")] = "",
    days: Annotated[int | None, typer.Option(min=1, help="good for so many days; default: until revoked")] = None,
    as_json: AsJson = False,
) -> None:
    """A new key. Its clear text is shown this once."""

    async def command() -> None:
        expires_s = None if days is None else now_s() + days * 86_400
        async with opened() as desk:
            kind: Any = scope  # the store checks it
            new = await desk.tenants.create_key(tenant, kind, label, now_s(), expires_s, who=who())
        show({"id": new.id, "key": new.clear, "expires_at": instant(expires_s)}, as_json)

    run(command())


@keys.command("revoke")
def revoke(key: KeyId, reason: Reason) -> None:
    """End a key now."""

    async def command() -> None:
        async with opened() as desk:
            await desk.tenants.revoke(key, now_s(), who=who(), reason=reason)

    run(command())


@keys.command("expire")
def expire(key: KeyId, reason: Reason, hours: Annotated[float, typer.Option(min=0.01, help="from now")] = 24.0) -> None:
    """Let a key end later: the second half of a rotation, after `keys create`."""

    async def command() -> None:
        async with opened() as desk:
            ends_s = now_s() + round(3600 * hours)
            await desk.tenants.expire_key(key, ends_s, now_s(), who=who(), reason=reason)

    run(command())


_FIRST: tuple[KeyScope, ...] = ("pk", "sk")


def _status(tenant: str, reason: str, *, suspended: bool) -> None:
    async def command() -> None:
        if not reason.strip():
            raise FeedError("--reason must say why")
        async with opened() as desk:
            change = desk.tenants.suspend if suspended else desk.tenants.resume
            await change(tenant, now_s(), who=who(), reason=reason)

    run(command())
