"""`status`: the whole system on one screen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Annotated, Any

import typer
from rich.console import Console

from retrieval.errors import FeedError, SnapshotCorrupt
from retrieval.flags import Flags, is_killed
from retrieval.tables import GLOBAL
from retrieval.tenants import EVERYWHERE
from service.admin import instant
from service.operator.console import AsJson, Desk, cell, now_s, opened, run, scope_of, show, table_of
from service.operator.flags import known

PATIENCE_S = 3.0


def audit(
    scope: Annotated[str | None, typer.Option(help=f"tenant id, or {EVERYWHERE}; default: everybody")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 30,
    as_json: AsJson = False,
) -> None:
    """Who changed what, and why, newest first."""

    async def command() -> list[dict[str, Any]]:
        async with opened() as desk:
            entries = await desk.audit.page(None if scope is None else scope_of(scope), limit=limit)
        return [
            {"id": one.id, "at": instant(one.at_s), "who": one.who, "action": one.action,
             "scope": one.tenant_id or EVERYWHERE, "why": one.reason, "from": one.before, "to": one.after}
            for one in entries
        ]  # fmt: skip

    found = run(command())
    names = ("at", "who", "action", "scope", "why", "to")
    show(found, as_json, table_of(names, [[_short(one[name]) for name in names] for one in found]))


def _short(value: Any) -> str:
    text = cell(value)
    return text if len(text) <= 120 else text[:119] + "…"


def status(as_json: AsJson = False) -> None:
    """Stores, tenants, flags, policies, indexes and deliveries. Exit status 1 if something wants attention."""

    async def command() -> dict[str, Any]:
        async with opened() as desk:
            return await gathered(desk)

    found = run(command())
    if as_json:
        show(found, True)
    else:
        _print(found)
    raise typer.Exit(1 if found["attention"] else 0)


async def gathered(desk: Desk) -> dict[str, Any]:
    """All of it as JSON. Never raises because a store is away: it says so."""
    attention: list[str] = []

    async def ask(store: str, answer: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await answer
        except (FeedError, TimeoutError) as error:
            attention.append(f"{store}: {str(error) or 'no answer'}")
            return None

    tenants = await ask("sql", desk.tenants.list())
    await ask("redis", desk.flags.mirror.all())
    by_scope, _ = await known(desk)
    flags = Flags(by_scope, desk.kill_files.read())
    said: dict[str, Any] = {"at": instant(now_s()), "tenants": [], "attention": attention}
    attention += [
        f"{scope or EVERYWHERE} is killed: {flags.killed_here.get(scope) or by_scope[scope].reason}"
        for scope in sorted({*by_scope, *flags.killed_here})
        if is_killed(flags, scope)
    ]
    if tenants is None:
        return said
    policies = await ask("sql", desk.policies.live()) or {}
    waiting = await ask("sql", desk.deliveries.counts()) or {}
    for tenant in tenants:
        flag = by_scope.get(tenant.id)
        counts = await ask("sql", desk.catalogue.counts(tenant.id)) or {}
        said["tenants"].append(
            {
                "tenant": tenant.id,
                "status": tenant.status,
                "flag": "unknown" if flag is None else "killed" if flag.killed else flag.state,
                "policy": f"{_version(policies, GLOBAL)}.{_version(policies, tenant.id)}",
                "videos": counts.get("published"),
                "quarantined": counts.get("quarantined"),
                **_index(desk, tenant.id, tenant.version, attention),
                "deliveries_waiting": waiting.get(tenant.id, 0),
            }
        )
    return said


def _index(desk: Desk, tenant: str, wanted: int, attention: list[str]) -> dict[str, Any]:
    try:
        manifest = desk.store.current(tenant)
    except SnapshotCorrupt as error:
        attention.append(f"index of {tenant}: {error}")
        return {"generation": None, "indexed": f"? of {wanted}"}
    if manifest is None:
        return {"generation": None, "indexed": f"0 of {wanted}"}
    return {"generation": manifest.generation, "indexed": f"{manifest.version} of {wanted}"}


def _version(policies: dict[str, Any], scope: str) -> int:
    return policies[scope].version if scope in policies else 0


def _print(found: dict[str, Any]) -> None:
    console = Console()
    if found["tenants"]:
        titles = [name.replace("_", " ").replace("deliveries waiting", "waiting") for name in found["tenants"][0]]
        console.print(table_of(titles, [list(one.values()) for one in found["tenants"]]))
    for one in found["attention"]:
        console.print(one, style="red", markup=False, highlight=False)
    if not found["attention"]:
        console.print("nothing wants attention", style="green")
