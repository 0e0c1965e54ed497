"""Commands about signals: `signals`, `erase`, `rebuild-journals`. The table COMMANDS is added to the indexer's own."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Annotated, Any, Final

import orjson
import typer

from indexer import telemetry
from indexer.rebuild_journals import rebuild_journals
from indexer.settings import IndexerSettings
from indexer.signal_loop import SignalLoop, opened_signals, run_signals
from retrieval.database import connect
from retrieval.erasure import Erasures, Receipt, rekeyed
from retrieval.errors import InvalidInput, LeaseLost, Problem
from retrieval.leases import Leases
from retrieval.tenants import Tenants

LOOK_EVERY_S: Final = 0.2
USER_ID_CHARS: Final = 128


def signals(
    once: Annotated[bool, typer.Option("--once", help="one pass, then say how things are as JSON, and end")] = False,
) -> None:
    """Archive and count events, erase users, remove what is 90 days old; `run` does it too. Until SIGTERM or Ctrl-C."""
    if once:
        _say(asyncio.run(_once()))
    else:
        asyncio.run(_run())


def erase(tenant: Annotated[str, typer.Argument(help="tenant id")]) -> None:
    """Erase one user: reads the id, as the app sends it in Feed-User, from standard input. Waits for the receipt."""
    user_id = sys.stdin.readline().strip()
    if not 0 < len(user_id) <= USER_ID_CHARS:
        raise InvalidInput([Problem("", f"write a user id of at most {USER_ID_CHARS} characters to standard input")])
    receipt = asyncio.run(_erase(tenant, user_id))
    _say({"state": receipt.state, "asked_s": receipt.asked_s, "done_s": receipt.done_s, "counts": dict(receipt.counts)})


def rebuild_journals_(
    entries: Annotated[int, typer.Option(help="entries kept per user, as FEED_JOURNAL_ENTRIES")] = 4096,
) -> None:
    """Make the journals again from the archive, after Redis has lost them. The service may go on."""
    _say({"journals": asyncio.run(_rebuild_journals(entries))})


COMMANDS: Final[Mapping[str, Callable[..., None]]] = MappingProxyType(
    {"signals": signals, "erase": erase, "rebuild-journals": rebuild_journals_}
)


@asynccontextmanager
async def _loop() -> AsyncIterator[SignalLoop]:
    settings = IndexerSettings()
    engine = connect(settings.database_url)
    try:
        async with opened_signals(settings, Leases(engine), _holder()) as loop:
            yield loop
    finally:
        await engine.dispose()


async def _run() -> None:
    settings, stop = IndexerSettings(), asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    engine = connect(settings.database_url)
    try:
        await run_signals(settings, Leases(engine), _holder(), stop, telemetry.serve(settings).of)
    finally:
        await engine.dispose()


async def _once() -> dict[str, float | None]:
    async with _loop() as loop:
        return (await loop.once()).as_dict()


async def _erase(tenant: str, user_id: str) -> Receipt:
    async with _loop() as loop:
        signals = loop.signals
        engine = connect(signals.settings.database_url)
        try:
            pepper = (await Tenants(engine).get(tenant)).pepper
        finally:
            await engine.dispose()
        await signals.tail.claim(signals.archive.identity)  # another deployment's daemon would never do it
        erasures = Erasures(signals.redis)
        erasure_id = await erasures.ask(tenant, rekeyed(user_id, pepper), now_s=int(signals.clock()))
        while (receipt := await erasures.receipt(tenant, erasure_id)).state != "done":
            try:
                await loop.once()
            except LeaseLost:  # a daemon runs: it will do it
                await asyncio.sleep(LOOK_EVERY_S)
        return receipt


async def _rebuild_journals(cap: int) -> int:
    async with _loop() as loop:
        signals = loop.signals
        return await rebuild_journals(signals.archive, signals.journals, cap=cap, now_s=signals.clock())


def _holder() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def _say(facts: Mapping[str, Any]) -> None:
    sys.stdout.write(orjson.dumps(dict(facts)).decode() + "\n")
