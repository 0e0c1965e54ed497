"""One page a turn: in order, with everything else done in between."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from service.turns import Turns


async def test_between_two_turns_the_loop_does_everything_else() -> None:
    """Ten at once: they come in order, and something that is always ready runs between any two of them."""
    turns, seen, over = Turns(), [], asyncio.Event()

    async def other() -> None:
        while not over.is_set():
            seen.append("other")
            await asyncio.sleep(0)

    async def page(number: int) -> None:
        await turns()
        seen.append(str(number))

    beside = asyncio.create_task(other())
    await asyncio.gather(*(page(number) for number in range(10)))
    over.set()
    await beside
    pages = [one for one in seen if one != "other"]
    assert pages == [str(number) for number in range(10)]
    places = [place for place, one in enumerate(seen) if one != "other"]
    assert all("other" in seen[a:b] for a, b in pairwise(places))


async def test_who_goes_away_holds_nobody_up() -> None:
    """A request that was cancelled while it waited is passed over, and the turns go on afterwards."""
    turns, done = Turns(), []

    async def page(number: int) -> None:
        await turns()
        done.append(number)

    pages = [asyncio.create_task(page(number)) for number in range(5)]
    await asyncio.sleep(0)
    pages[2].cancel()
    await asyncio.gather(*pages, return_exceptions=True)
    await page(9)
    assert done == [0, 1, 3, 4, 9]
