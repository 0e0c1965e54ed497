"""What all commands share: the opened stores, who is typing, and how an answer is shown."""

from __future__ import annotations

import asyncio
import getpass
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import orjson
import typer
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncEngine

from ranking.errors import PolicyError
from retrieval import config as configs
from retrieval.audit import Audit
from retrieval.catalogue import Catalogue
from retrieval.cms_listings import CmsListings
from retrieval.config import Config
from retrieval.counters import Counters, Popularity, popularity
from retrieval.database import connect
from retrieval.deliveries import Deliveries
from retrieval.erasure import Erasures
from retrieval.errors import FeedError, NotFound, StoreUnavailable
from retrieval.flag_stores import FlagMirror, FlagStores, FlagTable, KillFiles
from retrieval.journal import Journals
from retrieval.playlists import Playlists
from retrieval.policies import Policies
from retrieval.popularity_log import PopularityLog
from retrieval.purge import Purge
from retrieval.serve_log import ServeLog
from retrieval.snapshot import Snapshot
from retrieval.store import Store
from retrieval.tables import GLOBAL
from retrieval.tenants import EVERYWHERE, Tenants
from retrieval.view import View
from service.past import Past
from service.publishing import Publishing
from service.settings import ServiceSettings

T = TypeVar("T")

REDIS_TIMEOUT_S = 2.0
ARCHIVE_LIMIT_S = 120.0
COULD_NOT = 2

AsJson = Annotated[bool, typer.Option("--json", help="one JSON value instead of a table")]
Reason = Annotated[str, typer.Option(help="why; goes into the audit")]
TenantName = Annotated[str, typer.Option(help="tenant id")]
Scope = Annotated[str, typer.Option(help=f"tenant id, or {EVERYWHERE}")]


@dataclass(frozen=True)
class Desk:
    """The stores, as an operator reaches them. `Served`: tenants as they are served now, opened when asked for."""

    settings: ServiceSettings
    engine: AsyncEngine
    redis: Redis

    @cached_property
    def tenants(self) -> Tenants:
        return Tenants(self.engine)

    @cached_property
    def policies(self) -> Policies:
        return Policies(self.engine)

    @cached_property
    def playlists(self) -> Playlists:
        return Playlists(self.engine)

    @cached_property
    def catalogue(self) -> Catalogue:
        return Catalogue(self.engine)

    @cached_property
    def deliveries(self) -> Deliveries:
        return Deliveries(self.engine)

    @cached_property
    def listings(self) -> CmsListings:
        return CmsListings(self.engine)

    @cached_property
    def audit(self) -> Audit:
        return Audit(self.engine)

    @cached_property
    def flags(self) -> FlagStores:
        return FlagStores(FlagTable(self.engine), FlagMirror(self.redis))

    @cached_property
    def kill_files(self) -> KillFiles:
        return KillFiles(self.settings.state_dir)

    @cached_property
    def store(self) -> Store:
        return Store(self.settings.snapshot_dir)

    @cached_property
    def journals(self) -> Journals:
        return Journals(self.redis)

    @cached_property
    def purge(self) -> Purge:
        return Purge(self.engine, Erasures(self.redis), self.store, self.flags)

    @cached_property
    def serves(self) -> ServeLog:
        return ServeLog(self.redis, self.settings.archive_url, limit_s=ARCHIVE_LIMIT_S)

    async def past(self, tenant: str) -> Past:
        """What it takes to make a tenant's pages of the last day again. Raises NotFound, StoreUnavailable."""
        served, versions = await self.served([tenant]), PopularityLog(self.settings.snapshot_dir)
        return Past(self.serves, self.journals, self.policies, self.store, versions, served.view)

    async def served(self, tenants: Sequence[str] | None = None) -> Served:
        """The given tenants (default: all) as the service would show them. Raises NotFound, StoreUnavailable."""
        config = await configs.load(self.engine, Config())
        wanted = list(config.tenants) if tenants is None else list(tenants)
        for tenant in wanted:
            if tenant not in config.tenants:
                raise NotFound("tenant", tenant)
        return Served(config, {tenant: await self._view(config, tenant) for tenant in wanted})

    async def publishing(self, scope: str) -> Publishing:
        """What judges a policy of a tenant, or of all."""
        return Publishing(self.policies, self.playlists, await self.served(None if scope == GLOBAL else [scope]))

    async def _view(self, config: Config, tenant: str) -> View:
        manifest = self.store.current(tenant)
        snapshot = Snapshot.empty(tenant, self.settings.vector_dim) if manifest is None else self.store.open(manifest)
        try:
            popular = popularity(await Counters(self.redis).windows(tenant))
        except StoreUnavailable:
            popular = Popularity.nothing()
        of = config.tenants[tenant], config.policies[tenant], config.policy_versions[tenant]
        return await asyncio.to_thread(View.of, *of, snapshot, popular)


@dataclass(frozen=True)
class Served:
    """Tenants as the service would show them."""

    config: Config
    views: dict[str, View]

    def view(self, tenant: str) -> View:
        """Raises NotFound."""
        if tenant not in self.views:
            raise NotFound("tenant", tenant)
        return self.views[tenant]


@asynccontextmanager
async def opened() -> AsyncIterator[Desk]:
    """The stores of the environment's settings. Opens no connection before one is needed."""
    settings = ServiceSettings()
    engine = connect(settings.database_url)
    redis = Redis.from_url(
        settings.redis_url,
        protocol=2,
        socket_timeout=REDIS_TIMEOUT_S,
        socket_connect_timeout=REDIS_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        yield Desk(settings, engine, redis)
    finally:
        await redis.aclose()
        await engine.dispose()


def run(command: Coroutine[Any, Any, T]) -> T:
    """Run a command to its end; what an operator can mend is one line on stderr and exit status 2, no traceback."""
    try:
        return asyncio.run(command)
    except PolicyError as error:
        fail(str(error))
    except (FeedError, OSError) as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    """Say why not, and end."""
    sys.stderr.write(f"service: {message}\n")
    raise typer.Exit(COULD_NOT)


def show(value: Any, as_json: bool, table: Table | None = None) -> None:
    """The answer: `value` as one line of JSON, or the table (or, without one, the value's own fields)."""
    if as_json:
        sys.stdout.write(orjson.dumps(value, default=str).decode() + "\n")
    elif table is not None:
        Console().print(table)
    else:
        Console().print(fields(value))


def table_of(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> Table:
    """A table; None is shown as -, and no cell is taken for markup."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")  # an id that is cut short cannot be copied
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    return table


def read_json(file: Path) -> Any:
    """The JSON in a file, or on standard input for "-"; the end of the command if it is none."""
    content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        fail(f"{file} is not JSON: {error}")


def fields(value: dict[str, Any]) -> Table:
    """A record as a table of two columns."""
    table = table_of(("", ""), value.items())
    table.show_header = False
    return table


def cell(value: Any) -> str:
    """One value as a person reads it."""
    if value is None or value == "":
        return "-"
    if isinstance(value, dict | list):
        return escape(orjson.dumps(value).decode())
    return escape(f"{value + 0.0:.4g}" if isinstance(value, float) else str(value))  # + 0.0: no sign on a zero


def scope_of(name: str) -> str:
    """The scope as the stores call it."""
    return GLOBAL if name == EVERYWHERE else name


def tenant_or_all(name: str) -> str | None:
    """The tenant as `Policies` calls it."""
    return None if name == EVERYWHERE else name


def who() -> str:
    """Who is typing, for the audit."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):
        return "cli"


def now_s() -> int:
    """Unix seconds."""
    return int(time.time())
