"""`python -m indexer run | once | status | rebuild`: keep every tenant's index what its catalogue says."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

import orjson
import structlog
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from indexer import telemetry
from indexer.daemon import Daemon
from indexer.embedding import Embedder
from indexer.encoder import EncoderError, ModelError
from indexer.encoders import open_encoder
from indexer.learning import Learning
from indexer.listing_commands import sweep
from indexer.listings import run_sweep
from indexer.priority import step_back
from indexer.progress import showing_progress
from indexer.rebuild import Progress, Rebuild
from indexer.settings import IndexerSettings
from indexer.signal_commands import COMMANDS
from indexer.signal_loop import run_signals
from indexer.status import TenantStatus, status
from retrieval import logs
from retrieval.archive import Archive
from retrieval.catalogue import Catalogue
from retrieval.database import connect
from retrieval.errors import FeedError
from retrieval.leases import Leases
from retrieval.settings import explained
from retrieval.store import Store
from retrieval.vectors import VectorCache

cli = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
for _name, _command in COMMANDS.items():
    cli.command(name=_name)(_command)
cli.command()(sweep)
log = structlog.get_logger("indexer")


@asynccontextmanager
async def daemon(settings: IndexerSettings, on_progress: Progress) -> AsyncIterator[Daemon]:
    """Everything the daemon is made of, opened and closed. Raises EncoderError when the model cannot be used."""
    encoder = open_encoder(settings.model, threads=settings.encoder_threads)
    if encoder.dim != settings.vector_dim:
        raise ModelError(
            f"{settings.model} makes vectors of {encoder.dim} numbers, but FEED_VECTOR_DIM is {settings.vector_dim}"
        )
    engine = connect(settings.database_url)
    holder = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    rebuild = Rebuild(
        Catalogue(engine), Store(settings.snapshot_dir), Embedder(encoder, VectorCache(engine)), settings, on_progress
    )
    try:
        yield Daemon(rebuild, Leases(engine), holder)
    finally:
        await engine.dispose()


@cli.command()
def run() -> None:
    """Keep going until SIGTERM or Ctrl-C."""
    asyncio.run(_run())


@cli.command()
def once() -> None:
    """One pass of the daemon's own loop over every tenant. Exit status 1 if a tenant failed."""
    sys.exit(1 if asyncio.run(_once()) else 0)


@cli.command()
def rebuild(tenant: Annotated[str, typer.Option(help="tenant id")]) -> None:
    """Build a tenant's index from nothing (vectors come from the cache), and switch when it is complete."""
    asyncio.run(_rebuild(tenant))


@cli.command()
def learn(
    tenant: Annotated[str, typer.Option(help="tenant id")],
    use: Annotated[int | None, typer.Option(help="publish this older model again; 0: texts alone", min=0)] = None,
) -> None:
    """Learn from a tenant's archived behaviour and publish it with the index; with --use, go back to a model."""
    number = asyncio.run(_learn(tenant, use))
    sys.stdout.write("too little behaviour: texts alone\n" if number is None else f"model {number} is published\n")


@cli.command(name="status")
def status_(as_json: Annotated[bool, typer.Option("--json", help="one JSON array instead of a table")] = False) -> None:
    """Per tenant: items, versions wanted and published, lag, last error. Exit status 1 if something is stale."""
    tenants = asyncio.run(_status())
    if as_json:
        sys.stdout.write(orjson.dumps([tenant.as_dict() for tenant in tenants]).decode() + "\n")
    else:
        Console().print(_table(tenants))
    sys.exit(1 if any(tenant.stale for tenant in tenants) else 0)


async def _run() -> None:
    settings, stop = IndexerSettings(), asyncio.Event()
    step_back(settings.nice)
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    with showing_progress() as on_progress:
        async with daemon(settings, on_progress) as working:
            log.info("started", holder=working.holder, model=working.rebuild.embedder.model_id)
            watched = telemetry.serve(settings)
            async with watched.looking(working.rebuild.catalogue, working.rebuild.store, stale_s=settings.stale_s):
                signals = run_signals(settings, working.leases, working.holder, stop, watched.of)
                learning = Learning(working, partial(Archive, settings.archive_url))
                sweep = run_sweep(settings, working.holder, stop)
                await asyncio.gather(working.run(stop), signals, sweep, learning.run(stop))
    log.info("stopped")
    # Threads that train an index or embed cannot be interrupted, and nothing is lost with them: do not wait for them.
    sys.stderr.flush()
    os._exit(0)


async def _once() -> int:
    with showing_progress() as on_progress:
        async with daemon(IndexerSettings(), on_progress) as working:
            return await working.once()


async def _rebuild(tenant: str) -> None:
    with showing_progress() as on_progress:
        async with daemon(IndexerSettings(), on_progress) as working:
            await working.rebuild_from_nothing(tenant)


async def _learn(tenant: str, use: int | None) -> int | None:
    settings = IndexerSettings()
    with showing_progress() as on_progress:
        async with daemon(settings, on_progress) as working:
            learning = Learning(working, partial(Archive, settings.archive_url))
            if use is None:
                return await learning.learn(tenant)
            await learning.use(tenant, use)
            return use


async def _status() -> list[TenantStatus]:
    settings = IndexerSettings()
    engine = connect(settings.database_url)
    try:
        return await status(Catalogue(engine), Store(settings.snapshot_dir), stale_s=settings.stale_s)
    finally:
        await engine.dispose()


def _table(tenants: list[TenantStatus]) -> Table:
    table = Table("tenant", "items", "quarantined", "wanted", "published", "lag s", "last error")
    for one in tenants:
        numbers = (one.items, one.quarantined, one.wanted, "-" if one.published is None else one.published)
        style = "red" if one.stale else ""
        table.add_row(one.tenant, *map(str, numbers), f"{one.lag_s:.1f}", one.last_error, style=style)
    return table


def main() -> None:
    """Run a command; what an operator can mend is one line on stderr and exit status 2, never a traceback."""
    logs.configure()
    try:
        cli()
    except ValidationError as error:
        sys.stderr.write(f"indexer: {explained(error)}\n")
        sys.exit(2)
    except (FeedError, EncoderError, OSError) as error:
        sys.stderr.write(f"indexer: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
