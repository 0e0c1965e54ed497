"""`replay`: a page that was served, made again, and what it would be under another policy."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from service.admin import instant
from service.explain import video_ids
from service.operator.console import AsJson, Desk, now_s, opened, read_json, run, show, table_of
from service.replay import Made, Replay
from service.replay import replay as replayed


def replay(
    request_id: Annotated[str, typer.Argument(help="of a page of the last 24 hours")],
    policy: Annotated[
        Path | None, typer.Option(help="what the page would be under this policy of the tenant, as JSON; - for stdin")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a served page again from the logs. Exit status 1 if it is not the same page."""
    document = None if policy is None else read_json(policy)

    async def command() -> Replay:
        async with opened() as desk:
            return await _replayed(desk, request_id, document)

    again = run(command())
    said = said_of(again)
    if as_json:
        show(said, True)
    else:
        _print(said)
    raise typer.Exit(0 if again.identical else 1)


async def _replayed(desk: Desk, request_id: str, document: Mapping[str, Any] | None) -> Replay:
    served = await desk.serves.find(request_id, now_s=now_s())
    past = await desk.past(served.tenant)
    other = None if document is None else await past.policy(served, document)
    return await replayed(past, served, other)


def said_of(again: Replay) -> dict[str, Any]:
    """A replay as JSON."""
    served = again.served
    names = video_ids(again.made.listed.view, [one.item for one in served.items])
    was = {one.item: one.position for one in served.items}
    said: dict[str, Any] = {
        "request_id": served.request_id,
        "tenant": served.tenant,
        "at": instant(served.at_s),
        "mode": served.mode,
        "generation": served.generation,
        "policy_version": served.policy_version,
        "identical": again.identical,
        "served": [
            {"position": one.position, "id": name, "reason": one.reason}
            for one, name in zip(served.items, names, strict=True)
        ],
        "replayed": _page(again.made, was),
    }
    return said if again.other is None else said | {"other": _page(again.other, was)}


def _page(made: Made, was: Mapping[int, int]) -> list[dict[str, Any]]:
    page = made.page
    names = video_ids(made.listed.view, made.items)
    return [
        {"position": position, "id": name, "reason": reason, "was": was.get(item)}
        for position, (item, name, reason) in enumerate(
            zip(made.items, names, page.reasons, strict=True), page.position
        )
    ]


def _print(said: Mapping[str, Any]) -> None:
    facts = f"generation {said['generation']}, policy {said['policy_version']}, {said['mode']}, {said['at']}"
    Console().print(f"{said['tenant']} {said['request_id']}: {facts}")
    pages = [said["served"], said["replayed"], *([said["other"]] if "other" in said else [])]
    rows = [
        [number, *(cell for one in slots for cell in _cells(one))]
        for number, slots in enumerate(zip_longest(*pages), said["served"][0]["position"])
    ]
    columns = ("", "served", "reason", "made again", "reason", "other policy", "reason, was")
    Console().print(table_of(columns[: 1 + 2 * len(pages)], rows))
    Console().print("identical" if said["identical"] else "NOT identical")


def _cells(one: Mapping[str, Any] | None) -> tuple[Any, Any]:
    if one is None:
        return None, None
    was = one.get("was")
    moved = "" if was in (None, one["position"]) else f", was {was}"
    return one["id"], f"{one['reason']}{moved}"
