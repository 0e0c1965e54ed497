"""`listings`: where each tenant's CMS lists its videos. The indexer looks there; `indexer sweep` does it now."""

from __future__ import annotations

from typing import Annotated

import typer

from retrieval.cms_listings import DEFAULT_EVERY_S, DEFAULT_GONE_PERCENT, CmsListing
from service.operator.console import AsJson, Reason, now_s, opened, run, show, table_of, who
from service.routes.listings import shape

listings = typer.Typer(no_args_is_help=True, help="Listings of CMSs, for what lost webhooks left out.")

TenantId = Annotated[str, typer.Argument(help="tenant id")]


@listings.command("list")
def list_listings(as_json: AsJson = False) -> None:
    """Every listing, and how the last look at it ended."""

    async def command() -> None:
        async with opened() as desk:
            found = [shape(one) for one in await desk.listings.all()]
        names = ("tenant", "url", "every_s", "done_at", "outcome")
        show(found, as_json, table_of(names, [[one[name] for name in names] for one in found]))

    run(command())


@listings.command("set")
def set_listing(
    tenant: TenantId,
    url: Annotated[str, typer.Argument(help="https://…, JSON Lines, a video a line")],
    every_s: Annotated[int, typer.Option(help="how often it is looked at")] = DEFAULT_EVERY_S,
    most_gone_percent: Annotated[
        int, typer.Option(help="a listing that lacks more of the videos takes none down")
    ] = DEFAULT_GONE_PERCENT,
    reason: Reason = "",
) -> None:
    """Look at this listing from now on, beginning at once."""

    async def command() -> None:
        async with opened() as desk:
            wanted = CmsListing(tenant, url, every_s, most_gone_percent)
            await desk.listings.set(wanted, now_s(), who=who(), reason=reason)

    run(command())


@listings.command("remove")
def remove_listing(tenant: TenantId, reason: Reason = "") -> None:
    """Look no more; what was taken over stays."""

    async def command() -> None:
        async with opened() as desk:
            await desk.listings.remove(tenant, now_s(), who=who(), reason=reason)

    run(command())
