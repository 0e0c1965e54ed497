"""From what was measured to a fleet: `python -m benchmarks.capacity`; `--write` puts the tables into docs/design.md.

MEASURED is the one place where figures of other commands are entered; each names its command. ASSUMED is what nobody
can measure here: the load asked for, habits of users, prices. Everything else is arithmetic below, so a new measurement
is one edited number and one run. A test holds the tables in docs/design.md against this program.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from types import MappingProxyType
from typing import Final

from indexer.settings import IndexerSettings

DOCUMENT: Final = Path(__file__).parents[1] / "docs/design.md"
BEGIN, END = "<!-- capacity: python -m benchmarks.capacity --write -->", "<!-- end of capacity -->"
DAY_S: Final = 86_400
KEPT_DAYS: Final = 90
GB: Final = 1e9


@dataclass(frozen=True)
class Figure:
    """A number, its unit, and the command that gives it (or why it is assumed)."""

    value: float
    unit: str
    source: str


_SCROLL: Final = "python -m benchmarks.bench_feeds scroll"
_STORES: Final = "python -m benchmarks.stores"
MEASURED: Final[Mapping[str, Figure]] = MappingProxyType(
    {
        # The slowest of the runs in docs/performance.md: a plan is no place for the best day of a machine.
        "worker CPU per feed answer, events included": Figure(1137, "µs", _SCROLL),
        "Redis CPU per feed answer, events included": Figure(131, "µs", _SCROLL),
        "private memory of a worker, 1.2 M videos": Figure(270, "MB", _SCROLL),
        "memory its workers share, 1.2 M videos": Figure(1566, "MB", _SCROLL),
        "snapshot per video": Figure(1230, "B", "python -m benchmarks.open_snapshot"),
        "journal per entry": Figure(16.6, "B", _STORES),
        "known event id": Figure(9.9, "B", _STORES),
        "archive per event": Figure(27.5, "B", _STORES),
        "archive per page": Figure(172, "B", _STORES),
        "events archived by one process": Figure(32_827, "/s", "python benchmarks/signals.py"),
        "texts embedded on 2 cores": Figure(40, "/s", "python -m benchmarks.one_embedding"),
        "popularity of a day, a busy tenant": Figure(285, "MB", "python -m benchmarks.replay_costs"),
        "search of one million videos": Figure(3763, "µs", "python -m benchmarks.index_kinds --million"),
    }
)
ASSUMED: Final[Mapping[str, Figure]] = MappingProxyType(
    {
        "feed answers of a session": Figure(6, "", "a first page, a 304, four more pages: the mix `scroll`"),
        "pages of a session": Figure(5, "", "a 304 shows nothing new"),
        "events of a session": Figure(20, "", "two batches of ten: the mix `scroll`"),
        "items of a page": Figure(20, "", "the default limit"),
        "videos of a tenant": Figure(10_000, "", ""),
        "videos changed a day": Figure(1, "%", "of all"),
        "use of a bought core at peak": Figure(60, "%", "beyond, p99 grows faster than load"),
        "use of a Redis core at peak": Figure(50, "%", "it has one thread"),
        "zones": Figure(3, "", "the loss of one must not be felt"),
        "cores of a service pod": Figure(2, "", "deploy/kubernetes/service.yaml"),
        "memory of a Redis node": Figure(52, "GB", "a common size; a quarter stays free"),
        "a core, monthly": Figure(25, "€", "list prices of 2026, rounded: put yours here"),
        "a GB of memory, monthly": Figure(3, "€", "as above"),
        "a GB of disk, monthly": Figure(0.1, "€", "as above"),
        "a GB of object storage, monthly": Figure(0.023, "€", "as above"),
    }
)
FREE_OF_A_NODE: Final = 0.25
COPIES: Final = 2
"""Redis and PostgreSQL each have a replica."""
KNOWN_DAYS: Final = 3
"""How long an event id is known: retrieval/stream.py."""
SQL_BYTES_PER_VIDEO: Final = 2_000 + 1_600
"""A row and its cached vector: docs/design.md, data model."""
CONFIG_POLLS_PER_S: Final = 2
WORLD_VIDEOS: Final = 1.2e6
"""Of the world that memory was measured with: 120 tenants."""
GENERATIONS: Final = 2
"""Room for a base that is folded anew while the old one is still mapped."""
REPLACED_GB: Final[float] = IndexerSettings.model_fields["kept_mb"].default / 1e3
"""FEED_KEPT_MB: what a tenant's generations of the last day may take."""


@dataclass(frozen=True)
class Load:
    """What is asked for. `journal_entries`: FEED_JOURNAL_ENTRIES."""

    name: str
    peak_per_s: float
    average_per_s: float
    tenants: int
    users: float
    journal_entries: int


ASKED: Final = Load("as asked", 3_000, 600, 120, 12e6, 18_432)
LOADS: Final = (
    ASKED,
    replace(ASKED, name="as asked, short journals", journal_entries=2_048),
    Load("10x, short journals", 30_000, 6_000, 1_200, 120e6, 2_048),
)


def measured(name: str) -> float:
    """A measured figure."""
    return MEASURED[name].value


def assumed(name: str) -> float:
    """An assumed figure; a percentage as a fraction."""
    figure = ASSUMED[name]
    return figure.value / 100 if figure.unit == "%" else figure.value


def per_answer(kind: str) -> float:
    """Pages or events that go with one feed answer."""
    return assumed(f"{kind} of a session") / assumed("feed answers of a session")


def videos(load: Load) -> float:
    """Of all tenants."""
    return load.tenants * assumed("videos of a tenant")


def service_cores(load: Load) -> float:
    """Busy at peak."""
    return load.peak_per_s * measured("worker CPU per feed answer, events included") / 1e6


def pods(load: Load) -> int:
    """So many that the rest is no busier than wanted when a zone is away."""
    zones = assumed("zones")
    bought = service_cores(load) / assumed("use of a bought core at peak") * zones / (zones - 1)
    return max(ceil(bought / assumed("cores of a service pod")), int(zones))


def pod_gb(load: Load) -> float:
    """What its workers share, and what each has for itself; both grow with the videos."""
    own = assumed("cores of a service pod") * measured("private memory of a worker, 1.2 M videos")
    return (own + measured("memory its workers share, 1.2 M videos")) / 1e3 * videos(load) / WORLD_VIDEOS


def snapshots_gb(load: Load) -> float:
    """One generation of everybody."""
    return videos(load) * measured("snapshot per video") / GB


def volume_gb(load: Load) -> float:
    """What the shared volume must hold at most."""
    kept_gb = REPLACED_GB + measured("popularity of a day, a busy tenant") / 1e3
    return snapshots_gb(load) * GENERATIONS + load.tenants * kept_gb


def redis_cores(load: Load) -> float:
    """Busy at peak."""
    return load.peak_per_s * measured("Redis CPU per feed answer, events included") / 1e6


def journal_entries(load: Load) -> float:
    """Of a user after 90 days like the average: what was served, and what they did with it; no more than are kept."""
    a_feed = per_answer("pages") * assumed("items of a page") + per_answer("events")
    return min(KEPT_DAYS * DAY_S * load.average_per_s / load.users * a_feed, load.journal_entries)


def redis_gb(load: Load) -> float:
    """Journals, and the event ids that are known for three days."""
    ids = load.average_per_s * per_answer("events") * DAY_S * KNOWN_DAYS * measured("known event id")
    return (load.users * journal_entries(load) * measured("journal per entry") + ids) / GB


def redis_nodes(load: Load) -> int:
    """Primaries, by memory or by CPU, whatever is more."""
    by_memory = redis_gb(load) / (assumed("memory of a Redis node") * (1 - FREE_OF_A_NODE))
    return ceil(max(by_memory, redis_cores(load) / assumed("use of a Redis core at peak")))


def archived_events(load: Load) -> float:
    """Of 90 days."""
    return load.average_per_s * per_answer("events") * DAY_S * KEPT_DAYS


def archive_gb(load: Load) -> float:
    """Of 90 days, both tables."""
    shown = load.average_per_s * per_answer("pages") * DAY_S * KEPT_DAYS * measured("archive per page")
    return (archived_events(load) * measured("archive per event") + shown) / GB


def events_per_s(load: Load) -> float:
    """At peak."""
    return load.peak_per_s * per_answer("events")


def sql_gb(load: Load) -> float:
    """Videos and their cached vectors."""
    return videos(load) * SQL_BYTES_PER_VIDEO / GB


def monthly_euros(load: Load) -> float:
    """Everything bought, PostgreSQL of two cores and the indexer included."""
    cores = pods(load) * assumed("cores of a service pod") + 2 * COPIES + 2
    memory_gb = pods(load) * pod_gb(load) + redis_nodes(load) * COPIES * assumed("memory of a Redis node")
    disk_gb = sql_gb(load) * COPIES + volume_gb(load)
    return (
        cores * assumed("a core, monthly")
        + memory_gb * assumed("a GB of memory, monthly")
        + disk_gb * assumed("a GB of disk, monthly")
        + archive_gb(load) * assumed("a GB of object storage, monthly")
    )


ROWS: Final[Mapping[str, Callable[[Load], str]]] = MappingProxyType(
    {
        "feeds a second, peak (average)": lambda load: f"{load.peak_per_s:,.0f} ({load.average_per_s:,.0f})",
        "tenants, users": lambda load: f"{load.tenants:,}, {load.users / 1e6:,.0f} M",
        "`FEED_JOURNAL_ENTRIES`": lambda load: f"{load.journal_entries:,}",
        "service: busy cores at peak": lambda load: f"{service_cores(load):,.1f}",
        "service: pods of 2 cores, a zone may be away": lambda load: f"{pods(load):,}",
        "service: memory of a pod": lambda load: f"{pod_gb(load):,.1f} GB",
        "Redis: busy cores at peak": lambda load: f"{redis_cores(load):,.1f}",
        "Redis: entries of a journal": lambda load: f"{journal_entries(load):,.0f}",
        "Redis: memory": lambda load: f"{redis_gb(load):,.0f} GB",
        "Redis: primaries of 52 GB, each with a replica": lambda load: f"{redis_nodes(load):,}",
        "archive: 90 days": lambda load: f"{archive_gb(load):,.0f} GB, {archived_events(load) / 1e9:,.0f} G events",
        "archive: events a second, peak": lambda load: f"{events_per_s(load):,.0f}",
        "archive: of one process's speed": lambda load: (
            f"{events_per_s(load) / measured('events archived by one process'):.0%}"
        ),
        "PostgreSQL: size": lambda load: f"{sql_gb(load):,.1f} GB",
        "PostgreSQL: version polls a second": lambda load: (
            f"{pods(load) * assumed('cores of a service pod') * CONFIG_POLLS_PER_S:,.0f}"
        ),
        "snapshots: shared volume, at most": lambda load: f"{volume_gb(load):,.0f} GB",
        "indexer: embeddings a second": lambda load: f"{videos(load) * assumed('videos changed a day') / DAY_S:,.2f}",
        "indexer: a new model for everything, on 2 cores": lambda load: (
            f"{videos(load) / measured('texts embedded on 2 cores') / 3600:,.1f} h"
        ),
        "a month": lambda load: f"€ {monthly_euros(load):,.0f}",
        "a month per million users": lambda load: f"€ {1e6 * monthly_euros(load) / load.users:,.0f}",
    }
)
"""What to buy or to watch: its name, and what it is for a load."""


def fleet_table(loads: Sequence[Load]) -> str:
    """A row of ROWS each, a column per load."""
    rows = [(name, *(shown(load) for load in loads)) for name, shown in ROWS.items()]
    return _table(("", *(load.name for load in loads)), rows)


def figures_table(figures: Mapping[str, Figure], title: str, why: str) -> str:
    """A row per figure with where it is from."""
    rows = [
        (name, f"{one.value:,.10g} {one.unit}".strip(), f"`{one.source}`" if why == "command" else one.source)
        for name, one in figures.items()
    ]
    return _table((title, "value", why), rows)


def engines_table(asked: Load) -> str:
    """Each embedded default, how far it reaches, and what takes over at which setting."""
    use = assumed("use of a bought core at peak")
    core_us = measured("worker CPU per feed answer, events included")
    redis_us = measured("Redis CPU per feed answer, events included")
    of_machine = 2 * use * 1e6 / (core_us + redis_us)
    of_redis = assumed("use of a Redis core at peak") * 1e6 / redis_us
    users_16gb = 16 * GB * (1 - FREE_OF_A_NODE) / (journal_entries(asked) * measured("journal per entry"))
    day_gb = archive_gb(asked) / KEPT_DAYS
    archived = measured("events archived by one process")
    search_s = measured("search of one million videos") / 1e6
    rows = [
        ("one machine, `make run`", f"{of_machine:,.0f} feeds/s on 2 cores", "Kubernetes", "`deploy/kubernetes`"),
        ("SQLite file", "the second machine", "PostgreSQL", "`FEED_DATABASE_URL`"),
        ("Valkey beside it", f"the second machine, or {users_16gb / 1e3:,.0f} k users as active as asked in 16 GB",
         "a managed Redis or Valkey with a replica", "`FEED_REDIS_URL`"),
        ("one Redis", f"{of_redis:,.0f} feeds/s, or 52 GB", "Redis Cluster: keys carry their slot, the client is "
         "not yet a cluster client", "code: `service/resources.py`"),
        ("snapshots in a folder", "the second machine", "a shared volume (ReadWriteMany)", "`FEED_SNAPSHOT_DIR`"),
        ("archive in a folder", f"the second machine, or the disk: {day_gb:,.1f} GB a day as asked",
         "object storage, any S3", "`FEED_ARCHIVE_URL`"),
        ("`report`, DataFusion in one process", "some hundred GB read at once", "Spark or a warehouse over the same "
         "Delta tables", "none"),
        ("one archiving process", f"{archived:,.0f} events/s", "shards divided between indexers; places are kept per "
         "shard already", "code: `indexer/signal_loop.py`"),
        ("faiss in each worker", f"a tenant of some million videos ({1e3 * search_s:.1f} ms CPU a search at one "
         "million)", "Milvus or another vector store behind `retrieval/index.py`", "code"),
        ("MiniLM on CPU", f"{measured('texts embedded on 2 cores'):,.0f} changed texts/s", "more cores, or a GPU "
         "behind the same `Encoder`", "`FEED_MODEL`, `FEED_ENCODER_THREADS`"),
    ]  # fmt: skip
    return _table(("embedded default", "reaches to", "then", "by"), rows)


def document() -> str:
    """All tables as markdown."""
    parts = [
        figures_table(MEASURED, "measured", "command"),
        figures_table(ASSUMED, "assumed", "why"),
        fleet_table(LOADS),
        engines_table(ASKED),
    ]
    return "\n\n".join(parts)


def written(page: str) -> str:
    """The page with the tables of today between its two marks. Raises ValueError when it has no marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{DOCUMENT.name} has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n\n{document()}\n\n{END}{after}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print the tables, or write them into the design document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into docs/design.md, between the marks")
    if parser.parse_args().write:
        DOCUMENT.write_text(written(DOCUMENT.read_text()))
    else:
        print(document())


if __name__ == "__main__":
    main()
