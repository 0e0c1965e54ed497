"""Connecting, migrating and failing, on both databases."""

import asyncio
import sys
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval.database import chunks, config_version, connect, migrate, reading, storable, writing
from retrieval.errors import InvalidInput, StoreUnavailable
from retrieval.tables import METADATA

MIGRATE = "import asyncio, sys; from retrieval.database import migrate; asyncio.run(migrate(sys.argv[1]))"
CRASH = """
import asyncio, sys
from retrieval.database import config_version, connect

async def crash():
    await config_version(connect(sys.argv[1]))
    sys.exit(3)

asyncio.run(crash())
"""


async def test_migrating_gives_exactly_the_tables_of_the_code(empty_database_url: str) -> None:
    """The migrations and tables.py describe the same schema."""

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, METADATA))

    await migrate(empty_database_url)
    engine = connect(empty_database_url)
    async with reading(engine) as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


async def test_migrating_again_changes_nothing(database_url: str, engine: AsyncEngine) -> None:
    """A second start finds its database as it left it."""
    await migrate(database_url)
    assert await config_version(engine) == 1


async def test_two_processes_may_migrate_at_once(empty_database_url: str) -> None:
    """Daemon and service start together on an empty database: both succeed."""
    command = (sys.executable, "-W", "error", "-c", MIGRATE, empty_database_url)
    processes = [await asyncio.create_subprocess_exec(*command, cwd=Path.cwd()) for _ in range(2)]
    assert [await process.wait() for process in processes] == [0, 0]
    engine = connect(empty_database_url)
    assert await config_version(engine) == 1
    await engine.dispose()


async def test_many_tasks_may_migrate_at_once(empty_database_url: str) -> None:
    """No interleaving of several migrations fails or doubles the one config row."""
    await asyncio.gather(*(migrate(empty_database_url) for _ in range(6)))
    engine = connect(empty_database_url)
    assert await config_version(engine) == 1
    await engine.dispose()


async def test_a_process_that_fails_with_open_connections_ends(sqlite_url: str) -> None:
    """A connection's thread does not keep a process alive that forgot, or had no time, to close it."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", CRASH, sqlite_url, cwd=Path.cwd())
    try:
        assert await asyncio.wait_for(process.wait(), 20) == 3
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_sqlite_settings_hold_on_every_connection(sqlite_url: str) -> None:
    """WAL, the busy time-out, full sync and foreign keys are on, whichever connection of the pool answers."""
    engine = connect(sqlite_url)
    async with reading(engine) as first, reading(engine) as second:
        for connection in (first, second):
            values = [
                (await connection.execute(text(f"PRAGMA {name}"))).scalar()
                for name in ("journal_mode", "busy_timeout", "synchronous", "foreign_keys")
            ]
            assert values == ["wal", 5000, 2, 1]
    await engine.dispose()


async def test_an_exception_rolls_the_transaction_back(engine: AsyncEngine) -> None:
    """Nothing of a failed block is stored."""
    with pytest.raises(RuntimeError):
        async with writing(engine) as connection:
            await connection.execute(text("UPDATE config SET version = 99"))
            raise RuntimeError
    assert await config_version(engine) == 1


async def test_a_mistake_of_ours_is_not_called_an_outage(engine: AsyncEngine) -> None:
    """A broken constraint reaches the developer as it is."""
    with pytest.raises(IntegrityError):
        async with writing(engine) as connection:
            await connection.execute(text("INSERT INTO config (id, version) VALUES (2, 1)"))


async def test_a_wrong_statement_is_not_called_an_outage(postgres_url: str) -> None:
    """PostgreSQL tells a wrong statement from an outage (SQLite calls both operational)."""
    engine = connect(postgres_url)
    with pytest.raises(ProgrammingError):
        async with reading(engine) as connection:
            await connection.execute(text("SELECT nothing FROM nowhere"))
    await engine.dispose()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://postgres@127.0.0.1:1/feed",
        "postgresql://postgres@/feed?host=/nonexistent",
        "postgresql://postgres@name.invalid/feed",
    ],
)
async def test_a_database_that_is_away_is_unavailable(url: str) -> None:
    """Refused connections, missing sockets and unknown hosts are one error, naming the database."""
    engine = connect(url)
    with pytest.raises(StoreUnavailable, match="feed") as caught:
        await config_version(engine)
    assert not caught.value.disk_full
    await engine.dispose()


async def test_only_migrating_creates_a_file(tmp_path: Path) -> None:
    """A mistyped path is an error, not an empty database; odd characters in a path are just characters."""
    path = tmp_path / "100% #1? ü" / "feed.db"
    path.parent.mkdir()
    url = f"sqlite:///{str(path).replace('?', '%3F')}"
    engine = connect(url)
    with pytest.raises(StoreUnavailable, match="unable to open database file"):
        await config_version(engine)
    for thread in threading.enumerate():  # aiosqlite leaves the thread of a failed connection to end by itself
        if "_connection_worker_thread" in thread.name:
            await asyncio.to_thread(thread.join)
    assert not path.exists()
    await migrate(url)
    assert await config_version(engine) == 1 and path.exists()
    await engine.dispose()


async def test_data_that_cannot_be_stored_is_not_called_an_outage(postgres_url: str) -> None:
    """PostgreSQL refuses NUL in text: no retry would help, so nobody is told to wait."""
    engine = connect(postgres_url)
    with pytest.raises(DBAPIError, match="0x00"):
        async with reading(engine) as connection:
            await connection.execute(text("SELECT CAST(:text AS TEXT)"), {"text": "a\0b"})
    await engine.dispose()


async def test_a_database_that_does_not_exist_is_unavailable(postgres: str) -> None:
    """The server is there, but not the database."""
    engine = connect(postgres.replace("/postgres?", "/missing?"))
    with pytest.raises(StoreUnavailable, match='database "missing" does not exist'):
        await config_version(engine)
    await engine.dispose()


async def test_a_connection_cut_in_a_transaction_is_unavailable_once(postgres_url: str) -> None:
    """The server restarts: the running call fails, the next one connects anew."""
    engine = connect(postgres_url)
    with pytest.raises(StoreUnavailable):
        async with writing(engine) as connection:
            own = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar()
            other = connect(postgres_url)
            async with writing(other) as killer:
                await killer.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": own})
            await other.dispose()
            await connection.execute(text("SELECT 1"))
    assert await config_version(engine) == 1
    await engine.dispose()


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    """Somebody's text file is neither read nor overwritten."""
    path = tmp_path / "feed.db"
    path.write_text("not a database\n" * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        await migrate(f"sqlite:///{path}")
    assert path.read_text().startswith("not a database")


async def test_a_writer_that_never_ends_makes_others_unavailable(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A locked SQLite database is waited for, then reported."""
    monkeypatch.setattr("retrieval.database.BUSY_TIMEOUT_S", 0)
    one, two = connect(sqlite_url), connect(sqlite_url)
    async with writing(one):
        with pytest.raises(StoreUnavailable, match="locked"):
            async with writing(two):
                pass
        assert await config_version(two) == 1, "a reader does not wait"
    await one.dispose()
    await two.dispose()


async def test_writers_take_turns(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """First come, first served, however long those before take together: nobody is unlucky."""
    monkeypatch.setattr("retrieval.database.BUSY_TIMEOUT_S", 0)  # for connections made from now on: no second chance
    engine, served = connect(sqlite_url), []

    async def write(writer: int) -> None:
        async with writing(engine) as connection:
            await connection.execute(text("UPDATE config SET version = version + 1"))
            await asyncio.sleep(0.02)
        served.append(writer)

    await asyncio.gather(*(write(writer) for writer in range(12)))
    assert served == list(range(12))
    assert await config_version(engine) == 1 + 12
    await engine.dispose()


async def test_a_full_disk_says_so_and_stores_nothing(sqlite_url: str) -> None:
    """No room: a clear message, nothing half-written, and writing works again when there is room."""
    engine = connect(sqlite_url)
    row = {"name": "n", "holder": "x" * 500_000}
    statement = text("INSERT INTO leases (name, holder, expires_s, token) VALUES (:name, :holder, 0, 0)")
    async with writing(engine) as connection:
        pages = (await connection.execute(text("PRAGMA page_count"))).scalar()
        await connection.execute(text(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(StoreUnavailable, match="database or disk is full") as caught:
        async with writing(engine) as connection:
            await connection.execute(statement, row)
    assert caught.value.disk_full
    async with writing(engine) as connection:
        await connection.execute(text("PRAGMA max_page_count = 1000000"))
        await connection.execute(statement, row)
    async with reading(engine) as connection:
        assert (await connection.execute(text("SELECT count(*) FROM leases"))).scalar() == 1
    await engine.dispose()


@pytest.mark.parametrize("url", ["", "mysql://host/feed", "sqlite://", "sqlite:///:memory:", "feed.db", "://"])
def test_other_urls_are_refused(url: str) -> None:
    """A setting that cannot work is named with what is allowed; a memory database would be one per connection."""
    with pytest.raises(InvalidInput, match=r"sqlite:///var/feed\.db"):
        connect(url)


async def test_a_password_stays_out_of_the_message() -> None:
    """Errors are logged; a password in the URL is not."""
    engine = connect("postgresql://feed:hunter2@127.0.0.1:1/feed")
    with pytest.raises(StoreUnavailable) as caught:
        await config_version(engine)
    assert "hunter2" not in str(caught.value)
    await engine.dispose()


def test_chunks_lose_nothing() -> None:
    """Chunks in a row are the list again, and none is too long."""
    assert list(chunks([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]
    assert list(chunks([], 2)) == []


def test_what_a_database_cannot_hold_is_known() -> None:
    """NUL and lone surrogates break one driver or the other."""
    assert storable("Straße 🎬") and not storable("a\0b") and not storable("\ud800")
