"""The audit: complete, newest first, and not even we can change it."""

import pytest
from sqlalchemy import delete, exc, update
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval import audit
from retrieval.audit import Audit
from retrieval.database import writing
from retrieval.errors import StoreUnavailable
from retrieval.tables import AUDIT, GLOBAL
from tests.support.databases import NOW_S


async def note(engine: AsyncEngine, number: int, tenant: str | None) -> None:
    """Write an entry in a transaction of its own."""
    async with writing(engine) as connection:
        await audit.record(
            connection, "test", tenant, who="ada", reason=f"r{number}", now_s=NOW_S + number, after={"n": number}
        )


async def test_entries_come_newest_first_and_by_page(engine: AsyncEngine) -> None:
    """Of everybody or of one tenant; the id of the last entry of a page leads to the next."""
    for number in range(5):
        await note(engine, number, "acme" if number % 2 else None)
    entries = Audit(engine)
    assert [entry.reason for entry in await entries.page()] == ["r4", "r3", "r2", "r1", "r0"]
    assert [entry.reason for entry in await entries.page("acme")] == ["r3", "r1"]
    assert [entry.reason for entry in await entries.page(GLOBAL)] == ["r4", "r2", "r0"]
    first = await entries.page(limit=2)
    assert [entry.reason for entry in await entries.page(before_id=first[-1].id, limit=2)] == ["r2", "r1"]
    newest = first[0]
    assert (newest.who, newest.at_s, newest.before, newest.after) == ("ada", NOW_S + 4, None, {"n": 4})


async def test_an_entry_goes_with_its_change(engine: AsyncEngine) -> None:
    """A transaction that fails leaves no entry behind."""
    with pytest.raises(ZeroDivisionError):
        async with writing(engine) as connection:
            await audit.record(connection, "test", None, who="ada", reason="r", now_s=NOW_S)
            _ = 1 / 0
    assert await Audit(engine).page() == []


@pytest.mark.parametrize("statement", [update(AUDIT).values(who="nobody"), delete(AUDIT)])
async def test_the_database_refuses_to_change_an_entry(engine: AsyncEngine, statement: object) -> None:
    """Append-only is not a habit of ours: both databases enforce it."""
    await note(engine, 1, None)
    with pytest.raises((exc.DBAPIError, StoreUnavailable)):
        async with writing(engine) as connection:
            await connection.execute(statement)  # type: ignore[call-overload]
    assert [entry.who for entry in await Audit(engine).page()] == ["ada"]
