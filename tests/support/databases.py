"""Fixtures: the same test on both databases, each test with a fresh, migrated one of its own.

`database_url` runs a test twice, on SQLite and on PostgreSQL; `sqlite_url` and `postgres_url` give one of them.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval.database import connect, migrate
from retrieval.tables import CONFIG, METADATA
from retrieval.tenants import Tenants
from tests.support.postgres import postgres_server

NOW_S = 1_750_000_000
TABLES = ", ".join(table.name for table in METADATA.sorted_tables if table is not CONFIG)
EMPTY_POSTGRES = f"""
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
TRUNCATE {TABLES};
UPDATE config SET version = 1;
"""  # noqa: S608 - the names are those of our own tables
_numbers = count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The session's PostgreSQL server: the URL of a database from which others can be created."""
    try:
        with postgres_server() as url:
            yield url
    except FileNotFoundError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def migrated_postgres(postgres: str) -> str:
    """A migrated database on that server. One for all tests: emptying it takes a tenth of the time of a new one."""
    _execute(postgres, "CREATE DATABASE migrated")
    url = _database(postgres, "migrated")
    asyncio.run(migrate(url))
    return url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    asyncio.run(migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """A migrated, empty SQLite database."""
    shutil.copyfile(migrated_sqlite, tmp_path / "feed.db")
    return f"sqlite:///{tmp_path / 'feed.db'}"


@pytest.fixture
def postgres_url(migrated_postgres: str) -> str:
    """A migrated, empty PostgreSQL database."""
    _execute(migrated_postgres, EMPTY_POSTGRES)
    return migrated_postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated, empty database, once of each kind."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database nobody has migrated, once of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'new folder' / 'feed.db'}"
        return
    server: str = request.getfixturevalue("postgres")
    name = f"empty_{next(_numbers)}"
    _execute(server, f"CREATE DATABASE {name}")
    yield _database(server, name)
    _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine for `database_url`."""
    engine = connect(database_url)
    yield engine
    await engine.dispose()


@pytest.fixture
async def tenant(engine: AsyncEngine) -> str:
    """The id of a tenant with an empty catalogue."""
    return (await Tenants(engine).create("acme", "Acme", NOW_S)).id


def _database(server: str, name: str) -> str:
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def _execute(server: str, statement: str) -> None:
    async def execute() -> None:
        connection = await asyncpg.connect(server)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(execute())
