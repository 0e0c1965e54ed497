"""One SQL database, SQLite or PostgreSQL by URL: connecting, transactions, migrating, and the errors of both drivers.

Every statement of this package runs inside `reading` or `writing`. They are the one place where a driver's errors
become `StoreUnavailable`, and where a writer takes SQLite's write lock before it reads.
"""

import asyncio
import errno
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar
from urllib.parse import quote
from weakref import WeakKeyDictionary

import orjson
from sqlalchemy import Connection, Table, event, exc, make_url, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from retrieval.errors import InvalidInput, Problem, StoreUnavailable
from retrieval.tables import CONFIG

BUSY_TIMEOUT_S: Final = 5
CONNECT_TIMEOUT_S: Final = 5
COMMAND_TIMEOUT_S: Final = 60
FAILED_OPEN_S: Final = 0.05
CHUNK: Final = 1_000
"""Values in one IN list: well under SQLite's 32,766 and PostgreSQL's 32,767 parameters, and plans stay quick."""

_MIGRATIONS = Path(__file__).with_name("migrations")
_MIGRATION_LOCK = 0x5EED  # any number, the same in every process: the advisory lock two migrating processes meet at
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
_OUR_MISTAKES = (exc.IntegrityError, exc.ProgrammingError, exc.DataError, exc.NotSupportedError)
_INVALID_DATA = "22"  # the SQLSTATE class that SQLAlchemy does not turn into its DataError for asyncpg

T = TypeVar("T")
_turns: Final[WeakKeyDictionary[AsyncEngine, asyncio.Lock]] = WeakKeyDictionary()


def connect(url: str) -> AsyncEngine:
    """An engine for `sqlite:///path/file.db` or `postgresql://user@host/name`; opens and creates nothing yet.

    SQLite runs in WAL mode (readers never wait for a writer), waits up to 5 s for another process's writer, and syncs
    each commit: the catalogue is the truth, and its writes are few and large.
    Raises InvalidInput for any other URL.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        # Only `migrate` creates the file: a mistyped path would otherwise become an empty database without a word.
        existing = parsed.set(database=f"file:{quote(str(parsed.database))}", query={"uri": "true", "mode": "rw"})
        engine = create_async_engine(existing, json_serializer=_json, json_deserializer=orjson.loads)
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    return create_async_engine(
        parsed,
        json_serializer=_json,
        json_deserializer=orjson.loads,
        pool_pre_ping=True,  # a server that was restarted costs one round trip, not one failed call per connection
        connect_args={"timeout": CONNECT_TIMEOUT_S, "command_timeout": COMMAND_TIMEOUT_S},
    )


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection for statements that change nothing. Raises StoreUnavailable."""
    with _translated(engine):
        async with _connected(engine) as connection:
            yield connection


@asynccontextmanager
async def writing(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """One transaction: committed at the end of the block, rolled back by an exception. Raises StoreUnavailable."""
    with _translated(engine):
        async with _turn(engine), _connected(engine) as connection:
            # SQLite: a transaction that begins by reading cannot become a writer once another one has written.
            await connection.execution_options(sqlite_begin="BEGIN IMMEDIATE")
            async with connection.begin():
                yield connection


async def migrate(url: str) -> None:
    """Bring the schema to the newest version; does nothing when it is. Safe in several processes at once.

    Creates the folder and the file of an SQLite database. Raises StoreUnavailable, InvalidInput.
    """
    engine = connect(url)
    try:
        if engine.dialect.name == "sqlite":
            with _translated(engine):
                _create_sqlite(Path(str(make_url(url).database)))
        async with writing(engine) as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
            await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()


async def wipe(engine: AsyncEngine) -> None:
    """Leave no byte of deleted rows in SQLite's files; takes as long as copying them, and nobody can write meanwhile.
    PostgreSQL keeps them until it writes over them, or until VACUUM FULL. Raises StoreUnavailable."""
    if engine.dialect.name == "sqlite":
        with _translated(engine):
            await asyncio.to_thread(_vacuum, f"{engine.url.database}?mode=rw")


async def config_version(engine: AsyncEngine) -> int:
    """A counter that has grown whenever a tenant, a key or a policy differs; cheap enough to ask every second."""
    async with reading(engine) as connection:
        return int((await connection.execute(select(CONFIG.c.version))).scalar_one())


async def bump_config(connection: AsyncConnection) -> None:
    """Move the config version. Must be a transaction's first statement.

    Its row lock puts the commits in order: who reads the version and then the rows never misses one committed late.
    """
    await connection.execute(update(CONFIG).values(version=CONFIG.c.version + 1))


def insert(connection: AsyncConnection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that knows ON CONFLICT; the two dialects differ in nothing but the import."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def chunks(values: Sequence[T], size: int = CHUNK) -> Iterator[list[T]]:
    """`values` in lists of at most `size`, for IN lists."""
    remaining = iter(values)
    while chunk := list(islice(remaining, size)):
        yield chunk


def storable(value: str) -> bool:
    """Whether both databases can hold this text; a name that cannot be stored cannot exist either."""
    return "\0" not in value and not any("\ud800" <= char <= "\udfff" for char in value)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except exc.ArgumentError:
        parsed = URL.create("")
    driver = _DRIVERS.get(parsed.drivername.partition("+")[0])
    if driver is None or (driver.startswith("sqlite") and parsed.database in (None, "", ":memory:")):
        allowed = "a URL like sqlite:///var/feed.db or postgresql://user@host/name"
        raise InvalidInput([Problem("/database_url", f"expected {allowed}")])
    return parsed.set(drivername=driver)


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _create_sqlite(path: Path) -> None:
    """An empty database that is born in WAL mode: switching one that others already use fails as locked."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        newborn = Path(folder) / path.name
        with closing(sqlite3.connect(newborn)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
        with suppress(FileExistsError):  # another process was quicker
            path.hardlink_to(newborn)


def _vacuum(uri: str) -> None:
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as connection:
        connection.execute("VACUUM")
        (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise sqlite3.OperationalError("the log is being read, and still holds deleted rows; try again")


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver would begin transactions by itself, and never an immediate one
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))


def _upgrade(connection: Connection) -> None:
    from alembic import command  # here, for no worker migrates: a twentieth of what it imports
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@asynccontextmanager
async def _turn(engine: AsyncEngine) -> AsyncIterator[None]:
    """Those of this process who write into SQLite do so one after the other, first come, first served.

    Left to its lock, whoever tries at the right moment is next, and the unlucky are refused after BUSY_TIMEOUT_S.
    """
    if engine.dialect.name != "sqlite":
        yield
        return
    turn = _turns.setdefault(engine, asyncio.Lock())
    async with asyncio.timeout(COMMAND_TIMEOUT_S):
        await turn.acquire()
    try:
        yield
    finally:
        turn.release()


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    connection = engine.connect()
    try:
        await connection.start()
    except Exception:
        # The driver's thread of a file that could not be opened still has a word for the event loop, and complains on
        # standard error if that has ended meanwhile.
        await asyncio.sleep(FAILED_OPEN_S)
        raise
    try:
        yield connection
    finally:
        await connection.close()


@contextmanager
def _translated(engine: AsyncEngine) -> Iterator[None]:
    """What the drivers raise when a database is away, locked, full or broken becomes StoreUnavailable.

    Errors that only a mistake in our own statements can cause stay what they are.
    """
    try:
        yield
    except (exc.DBAPIError, exc.TimeoutError, sqlite3.Error, OSError) as error:
        if _is_our_mistake(error):
            raise
        raise _unavailable(engine, error) from error


def _is_our_mistake(error: Exception) -> bool:
    sqlstate = getattr(getattr(error, "orig", None), "sqlstate", None)
    return isinstance(error, _OUR_MISTAKES) or (sqlstate or "").startswith(_INVALID_DATA)


def _unavailable(engine: AsyncEngine, error: Exception) -> StoreUnavailable:
    name = engine.url.render_as_string(hide_password=True)
    cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig else error
    if _is_disk_full(cause):
        return StoreUnavailable(f"{name}: database or disk is full; free some space, then try again", disk_full=True)
    return StoreUnavailable(f"{name}: {' '.join(str(cause).split()) or type(cause).__name__}")


def _is_disk_full(cause: BaseException) -> bool:
    return (
        getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL  # sqlite3
        or getattr(cause, "sqlstate", None) == "53100"  # asyncpg
        or (isinstance(cause, OSError) and cause.errno == errno.ENOSPC)
    )
