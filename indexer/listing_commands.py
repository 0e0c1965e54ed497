"""`sweep`: hold catalogues against their CMS's listings now, instead of when they are due."""

from __future__ import annotations

import asyncio
import secrets
import sys
from typing import Annotated

import orjson
import typer

from indexer.listings import opened_sweep
from indexer.settings import IndexerSettings


def sweep(
    tenant: Annotated[str | None, typer.Option(help="tenant id; default: every one with a listing")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="also if it is unchanged, and however many videos would be taken down")
    ] = False,
) -> None:
    """Hold the catalogue against the CMS's listing; says what came of it as JSON. Exit status 1 if a listing failed."""
    outcomes = asyncio.run(_sweep(tenant, force))
    sys.stdout.write(orjson.dumps(outcomes).decode() + "\n")
    sys.exit(1 if any(outcome.startswith("failed") for outcome in outcomes.values()) else 0)


async def _sweep(tenant: str | None, force: bool) -> dict[str, str]:
    async with opened_sweep(IndexerSettings(), f"sweep-{secrets.token_hex(4)}") as sweeping:
        listings = await sweeping.listings.all() if tenant is None else [await sweeping.listings.get(tenant)]
        outcomes = await asyncio.gather(*(sweeping.sweep(one, forced=force) for one in listings))
    return {one.tenant_id: outcome for one, outcome in zip(listings, outcomes, strict=True)}
