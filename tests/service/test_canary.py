"""The canary: it measures what happens, says so when it does not, and is in nobody's feed but its own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest

from service import canary
from service.canary import Canary, Late, Misplaced, keep_singing
from tests.support.running import System, system, video

SMALL = [video("a", "Bread"), video("b", "Trains")]


@pytest.fixture(scope="module")
def place(redis_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with a customer and a canary's tenant."""
    with system(tmp_path_factory.mktemp("canary"), redis_database, {"customer": SMALL, "canary": []}) as running:
        yield running


@asynccontextmanager
async def at(place: System, publishable: str = "canary", hidden: str = "canary") -> AsyncIterator[Canary]:
    """A canary with these tenants' keys."""
    keys = place.tenants[publishable].publishable, place.tenants[hidden].secret
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=place.base_url, limits=limits) as client:
        yield Canary(client, *keys)


def measured(what: str) -> float:
    """What was measured last, seconds."""
    return float(canary.LAST.labels(what)._value.get())


async def test_a_round_measures_all_three(place: System) -> None:
    """A change, an event and a take-down, each as long as it took; the customer's feed has none of it."""
    async with at(place) as one:
        await one.check()
        await one.sing(1)
        await one.sing(2)
    assert 0 < measured("visible") < 10
    assert 0 <= measured("event") < 5
    assert 0 <= measured("gone") < 5
    assert set(place.scrolled("customer")) == {"a", "b"}


@pytest.mark.parametrize(("publishable", "hidden"), [("customer", "canary"), ("canary", "customer")])
async def test_the_keys_of_a_customer_are_refused(place: System, publishable: str, hidden: str) -> None:
    """Before anything is written."""
    async with at(place, publishable, hidden) as one:
        with pytest.raises(Misplaced, match="FEED_CANARY_KEYS"):
            await one.check()
    assert set(place.scrolled("customer")) == {"a", "b"}


async def test_what_never_comes_is_late(place: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the indexer stopped a new title is not seen; the limit is what is recorded."""
    monkeypatch.setattr(canary, "LIMIT_S", 0.5)
    place.daemons[-1].process.send_signal(signal.SIGSTOP)
    try:
        async with at(place) as one:
            with pytest.raises(Late, match="visible"):
                await one.sing(3)
    finally:
        place.daemons[-1].process.send_signal(signal.SIGCONT)
    assert measured("visible") == 0.5


async def test_an_api_that_is_away_is_tried_again() -> None:
    """A failed round is counted and the next one begins."""
    failed = canary.ROUNDS.labels("failed")
    before = failed._value.get()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await keep_singing("http://127.0.0.1:9", "pk_x,sk_y", every_s=0.01)
    assert failed._value.get() > before + 1


@pytest.mark.parametrize("keys", ["", "pk_only", "sk_a,pk_b", "pk_a;sk_b"])
async def test_keys_that_cannot_be_are_refused_at_once(keys: str) -> None:
    """The setting is named."""
    with pytest.raises(Misplaced, match="FEED_CANARY_KEYS"):
        await keep_singing("http://127.0.0.1:9", keys, every_s=1)
