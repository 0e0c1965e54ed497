"""`flags`, `kill` and `revive`: who gets a personalised feed, and the switch that always works."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from typing import Annotated, Any

import typer

from retrieval.errors import StoreUnavailable
from retrieval.flag_stores import FILE, REDIS, SQL, SQL_PATIENCE_S
from retrieval.flags import Flag, merged
from retrieval.tables import GLOBAL
from retrieval.tenants import EVERYWHERE
from service.admin import instant
from service.auth import rekeyed
from service.operator.console import (
    AsJson,
    Desk,
    Reason,
    Scope,
    fail,
    opened,
    run,
    scope_of,
    show,
    table_of,
    who,
)

flags = typer.Typer(no_args_is_help=True, help="Personalisation: off, on, a percentage, an allow-list, the hold-out.")


@flags.command("list")
def list_flags(as_json: AsJson = False) -> None:
    """Every flag, as the newest of SQL and Redis has it, and the kill files of this machine."""

    async def command() -> None:
        async with opened() as desk:
            found, away = await known(desk)
            files = desk.kill_files.read()
        rows = [shaped(scope, flag) for scope, flag in sorted(found.items())]
        rows += [
            {"scope": scope or EVERYWHERE, "state": "killed", "why": why, "in": FILE} for scope, why in files.items()
        ]
        names = {"scope": "scope", "state": "state", "percentage": "%", "holdout_percent": "hold-out %",
                 "allowed_users": "allowed", "why": "why", "who": "who", "at": "since"}  # fmt: skip
        table = table_of(tuple(names.values()), [[row.get(name) for name in names] for row in rows], _away(away))
        show(rows, as_json, table)

    run(command())


@flags.command("set")
def set_flag(
    scope: Scope,
    state: Annotated[str, typer.Option(help="on, off, percentage or killed")],
    reason: Reason,
    percentage: Annotated[float | None, typer.Option(help="0 to 100, with --state percentage")] = None,
    holdout: Annotated[float | None, typer.Option(help="permanent hold-out, 1 to 5 percent")] = None,
    allow: Annotated[list[str] | None, typer.Option(help="user id as the app sends it; repeatable")] = None,
    as_json: AsJson = False,
) -> None:
    """Change a flag. In every worker within a second."""

    async def command() -> None:
        change: dict[str, Any] = {"state": state, "reason": reason}
        given = {"percentage": percentage, "holdout_percent": holdout}
        change |= {name: value for name, value in given.items() if value is not None}
        async with opened() as desk:
            if allow is not None:
                pepper = (await desk.tenants.get(scope)).pepper
                change["allow"] = [rekeyed(one, pepper, "/allow") for one in allow]
            show(await flip(desk, scope_of(scope), change), as_json)

    run(command())


def kill(
    reason: Reason,
    tenant: Annotated[str | None, typer.Option(help="only this tenant; default: all of them")] = None,
    local: Annotated[bool, typer.Option(help="also by a file on this machine, which needs no store at all")] = False,
    as_json: AsJson = False,
) -> None:
    """Switch personalisation off, for a tenant or for all, wherever that can be said: SQL, Redis, a file.

    With neither SQL nor Redis the file is written in any case: then run this on every machine.
    """

    async def command() -> None:
        scope = tenant or GLOBAL
        async with opened() as desk:
            said: dict[str, Any] = {}
            try:
                said = await flip(desk, scope, {"state": "killed", "reason": reason})
            except StoreUnavailable as error:
                said = {"scope": scope or EVERYWHERE, "state": "killed", "why": reason, "in": [], "away": str(error)}
            if local or not said["in"]:
                said["file"] = str(desk.kill_files.kill(scope, reason))
                said["in"] = [*said["in"], FILE]
        show(said, as_json)

    run(command())


def revive(
    reason: Reason,
    tenant: Annotated[str | None, typer.Option(help="only this tenant; default: what was killed for all")] = None,
    as_json: AsJson = False,
) -> None:
    """End a kill: what was there before it holds again. Removes this machine's kill file too."""

    async def command() -> None:
        scope = tenant or GLOBAL
        async with opened() as desk:
            by_scope, away = await known(desk)
            flag = by_scope.get(scope)
            removed = desk.kill_files.lift(scope)
            said: dict[str, Any] = {"scope": scope or EVERYWHERE, "in": []}
            if flag is not None and flag.killed:
                change = {"state": flag.state, "percentage": flag.percentage, "reason": reason}
                said = await flip(desk, scope, change)
            elif not removed:
                fail(_away(away) or f"{scope or EVERYWHERE} is not killed")
        show(said | {"file_removed": removed}, as_json)

    run(command())


async def known(desk: Desk) -> tuple[dict[str, Flag], list[str]]:
    """(the newest of every flag, the stores that do not answer)."""

    async def read(name: str, asked: Awaitable[Mapping[str, Flag]]) -> Mapping[str, Flag]:
        try:
            async with asyncio.timeout(SQL_PATIENCE_S):
                return await asked
        except (StoreUnavailable, TimeoutError):
            away.append(name)
            return {}

    away: list[str] = []
    copies = await asyncio.gather(read(SQL, desk.flags.table.all()), read(REDIS, desk.flags.mirror.all()))
    return merged(*copies), away


async def flip(desk: Desk, scope: str, change: dict[str, Any]) -> dict[str, Any]:
    """Change a flag in every store that answers. Raises like `FlagStores.set`."""
    now_ms = int(time.time() * 1000)
    flag, stored_in = await desk.flags.set(scope, change, author=who(), if_version=None, now_ms=now_ms)
    return shaped(scope, flag) | {"in": list(stored_in)}


def shaped(scope: str, flag: Flag) -> dict[str, Any]:
    """A flag for showing; users are only counted."""
    return {
        "scope": scope or EVERYWHERE,
        "state": f"killed (beneath: {flag.state})" if flag.killed else flag.state,
        "percentage": flag.percentage if flag.state == "percentage" else None,
        "holdout_percent": flag.holdout_percent,
        "allowed_users": len(flag.allow),
        "why": flag.reason,
        "who": flag.author,
        "at": instant(flag.changed_s),
    }


def _away(stores: list[str]) -> str | None:
    return f"not answering: {', '.join(sorted(stores))}" if stores else None
