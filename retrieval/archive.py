"""The archive: every accepted event and every logged page, 90 days, as two Delta tables.

Their columns are in `retrieval.archive_tables`. Both are partitioned by `date`, the day of `at_s` (UTC), and join on
`request_id`. A table made by an older version gets the columns it lacks. A commit carries how far each
shard of the stream was archived (Delta's application transactions), so rows and place in the stream are written in one
step: after a crash nothing is lost and nothing is there twice, and a second writer that began from the same place is
refused.

Whatever is deleted is gone from the disk when the call returns: old data files and the old versions that named them.
Delta's own statistics leave out the columns about users, because they are copied into the table's log.

Only the indexer writes. deltalake is a heavy library, so the service and the operator's commands import this module
when they are first asked about the past, not at their start. All calls here block.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from arro3.core import RecordBatch, RecordBatchReader, Schema
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    QueryBuilder,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import DeltaError

from retrieval.archive_tables import COLUMNS, EVENTS, batch
from retrieval.arrow_stream import batches
from retrieval.errors import LeaseLost, StoreUnavailable
from retrieval.journal import RETENTION_S
from retrieval.keys import EVERYBODY, SHARDS

_FACTS: Final = {
    "delta.dataSkippingStatsColumns": "tenant,at_s",  # no user, no request: statistics stay in the log
    "delta.logRetentionDuration": "interval 0 days",  # a version that is not needed any more must not name anybody
    "delta.deletedFileRetentionDuration": "interval 0 days",
    "delta.checkpointInterval": "100",
}
_WRITER: Final = WriterProperties(
    compression="ZSTD",
    compression_level=1,
    column_properties={  # no two rows alike: a dictionary would only cost time
        name: ColumnProperties(dictionary_enabled=False) for name in ("event_id", "request_id")
    },
)
FILE_ROWS: Final = 25_000
FILES_A_DAY: Final = 64
"""A compacted day has files of FILE_ROWS rows, or so many files if that would be more: erasing a user rewrites the
files that hold them, one a day, and no others."""
PAGE_LIFE_S: Final = 2 * 3600
"""Events about a page that is older than this are taken to have none: a list can be scrolled for an hour. Without such
a limit, finding the pages of an hour's events would mean to read the pages of a week."""
USERS_AT_ONCE: Final = 200
ORPHANED_H: Final = 1
MANY_FILES: Final = 8
"""A day with so many files more than that is compacted."""


class Archive:
    """Both tables at one place: a folder, or a URL of object storage. Open it once per process."""

    def __init__(self, url: str, storage_options: Mapping[str, str] | None = None) -> None:
        """Opens the tables, and makes them where there are none. Raises StoreUnavailable."""
        if "://" not in url:
            with _translated():
                Path(url).mkdir(parents=True, exist_ok=True)
        self.url = url.rstrip("/")
        self.options = dict(storage_options or {})
        self._tables = {name: self._open(name) for name in COLUMNS}
        self._known: dict[str, tuple[int, dict[int, int]]] = {}

    @property
    def identity(self) -> str:
        """A name that no other archive has, wherever it is moved to."""
        return str(self._tables[EVENTS].metadata().id)

    def table(self, name: str) -> DeltaTable:
        """A table itself, for what this class does not do."""
        return self._tables[name]

    def positions(self, table: str) -> dict[int, int]:
        """How far each shard of the stream is in the table: shard -> position."""
        with _translated():
            self._tables[table].update_incremental()
            return dict(self._places(table))

    def append(
        self, table: str, rows: Sequence[tuple[Any, ...]], *, after: Mapping[int, int], positions: Mapping[int, int]
    ) -> None:
        """Add rows, values in the order of COLUMNS without `date`, and how far the stream is archived with them.

        Raises LeaseLost when the table is not `after` those positions: another process archives. Raises
        StoreUnavailable. Nothing is added then.
        """
        marks = [Transaction(_writer_of(shard), position) for shard, position in positions.items()]
        with _translated():
            version, known = self._tables[table].version(), self._places(table)
            if any(known.get(shard, 0) != after.get(shard, 0) for shard in positions):
                raise LeaseLost(f"another process has written to the table {table}")
            # A writer that is faster from here on makes this commit fail: both name the same shards.
            write_deltalake(
                self._tables[table],
                batch(table, rows),
                mode="append",
                writer_properties=_WRITER,
                commit_properties=CommitProperties(app_transactions=marks),
            )
            if self._tables[table].version() == version + 1:  # nobody else has written in between
                self._known[table] = version + 1, {**known, **positions}

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Rows of a SELECT over `events` and `serves`, as dictionaries. Raises StoreUnavailable."""
        with _translated():
            return [
                dict(zip(batch.schema.names, values, strict=True))
                for batch in batches(self._select(sql))
                for values in zip(*(column.to_pylist() for column in batch.columns), strict=True)
            ]

    def batches(self, sql: str) -> Iterator[RecordBatch]:
        """The same as Arrow record batches, as they come."""
        with _translated():
            yield from batches(self._select(sql))

    def count(self, table: str) -> int:
        """Rows in a table."""
        with _translated():
            return int(self.query(f"SELECT count(*) AS n FROM {table}")[0]["n"])  # noqa: S608 - our own table names

    def oldest_s(self) -> int | None:
        """Unix seconds of the oldest row of both tables, None when both are empty."""
        found = [self.query(f"SELECT min(at_s) AS at_s FROM {table}")[0]["at_s"] for table in COLUMNS]  # noqa: S608
        return min((int(at_s) for at_s in found if at_s is not None), default=None)

    def joined_share(self, *, since_s: int) -> float | None:
        """Share of the events since then whose request is in the serve log, None without events.

        What is missing: events that name no request, pages left out by sampling, ids somebody made up.
        """
        first_s = int(since_s) - PAGE_LIFE_S
        pages = f"date >= '{_day(first_s).isoformat()}' AND at_s >= {first_s}"
        (found,) = self.query(
            "SELECT count(*) AS events, count(s.request_id) AS joined FROM events e LEFT JOIN "  # noqa: S608 - days, a number
            f"(SELECT DISTINCT request_id FROM serves WHERE {pages}) s ON e.request_id = s.request_id "
            f"WHERE e.date >= '{_day(since_s).isoformat()}' AND e.at_s >= {int(since_s)}"
        )
        return found["joined"] / found["events"] if found["events"] else None

    def files(self) -> list[str]:
        """Every data file of both tables, as a URI."""
        return [uri for table in self._tables.values() for uri in table.file_uris()]

    def retain(self, *, now_s: float) -> int:
        """Delete the days whose first second is 90 days old, so that no row is ever older. Returns how many days.

        The rows of one day go together: a file is deleted instead of rewritten, and a row may go up to a day early.
        """
        last = _day(int(now_s) - RETENTION_S)
        gone = 0
        for table in self._tables.values():
            old = [day for day in _days(table) if day <= last]
            if old:
                with _translated():
                    table.delete(f"date <= '{last.isoformat()}'")
                gone += len(old)
        if gone:
            self.sweep()
        return gone

    def erase(self, users: Sequence[tuple[str, str]]) -> dict[tuple[str, str], dict[str, int]]:
        """Delete every row of (tenant, user key) pairs; the number of rows per user and table. EVERYBODY is every user
        of a tenant who is not among the pairs.

        `sweep` afterwards: until then the rows are still in old files. Raises StoreUnavailable.
        """
        counts: dict[tuple[str, str], dict[str, int]] = {user: dict.fromkeys(COLUMNS, 0) for user in users}
        for name, table in self._tables.items():
            for first in range(0, len(users), USERS_AT_ONCE):
                where = _any_of(users[first : first + USERS_AT_ONCE])
                found = self.query(
                    f"SELECT tenant, user_key, count(*) AS n FROM {name} WHERE {where} GROUP BY tenant, user_key"  # noqa: S608
                )
                for row in found:
                    user = row["tenant"], row["user_key"]
                    counts[user if user in counts else (user[0], EVERYBODY)][name] += int(row["n"])
                if found:
                    with _translated():
                        table.delete(where, writer_properties=_WRITER)
        return counts

    def sweep(self) -> int:
        """Remove from the disk what no longer belongs to the newest version: files, and the log of older versions.

        A reader that began on an older version must begin again. Returns how many files of unknown origin are left:
        what a killed writer never committed goes when it is an hour old, because until then its writer may only be
        slow. Raises StoreUnavailable.
        """
        left = 0
        for table in self._tables.values():
            with _translated():
                table.vacuum(0, dry_run=False, enforce_retention_duration=False)
                table.vacuum(ORPHANED_H, dry_run=False, enforce_retention_duration=False, full=True)
                table.create_checkpoint()
                table.cleanup_metadata()
                left += len(table.vacuum(0, dry_run=True, enforce_retention_duration=False, full=True))
        return left

    def compact(self) -> int:
        """Rewrite days of many small files as few, sorted by tenant and user. Returns how many days."""
        done = 0
        for name, table in self._tables.items():
            for day, sizes, rows in _partitions(table):
                wanted = min(-(-rows // FILE_ROWS), FILES_A_DAY)
                if len(sizes) >= MANY_FILES + wanted:
                    self._rewrite(name, table, day, target_bytes=max(sum(sizes) // max(wanted, 1), 1))
                    done += 1
        if done:
            self.sweep()
        return done

    def _rewrite(self, name: str, table: DeltaTable, day: date, *, target_bytes: int) -> None:
        where = f"date = '{day.isoformat()}'"
        select = f"SELECT * FROM {name} WHERE {where} ORDER BY tenant, user_key, at_s"  # noqa: S608 - as above
        with _translated():
            write_deltalake(
                table,
                QueryBuilder().register(name, table).execute(select),
                mode="overwrite",
                predicate=where,
                target_file_size=target_bytes,
                writer_properties=_WRITER,
            )

    def _places(self, table: str) -> Mapping[int, int]:
        """Place of each shard in the version that is loaded. The log is asked once per version that another wrote: for
        64 shards in object storage that is hundreds of requests."""
        version, (known_version, known) = self._tables[table].version(), self._known.get(table, (-1, {}))
        if version != known_version:
            found = {shard: self._tables[table].transaction_version(_writer_of(shard)) for shard in range(SHARDS)}
            known = {shard: position for shard, position in found.items() if position is not None}
            self._known[table] = version, known
        return known

    def _select(self, sql: str) -> RecordBatchReader:
        builder = QueryBuilder()
        for name, table in self._tables.items():
            table.update_incremental()
            builder = builder.register(name, table)
        return builder.execute(sql)

    def _open(self, name: str) -> DeltaTable:
        with _translated():
            table = DeltaTable.create(
                f"{self.url}/{name}",
                Schema(list(COLUMNS[name])),
                mode="ignore",
                partition_by=["date"],
                configuration=_FACTS,
                storage_options=self.options,
            )
            known = {one.name for one in table.schema().fields}
            missing = [one for one in COLUMNS[name] if one.name not in known]
            if missing:
                table.alter.add_columns(DeltaSchema.from_arrow(Schema(missing)).fields)
            return table


class _translated:  # noqa: N801 - reads as a phrase: with _translated()
    """Errors of deltalake as ours."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        if isinstance(error, DeltaError | OSError):
            raise StoreUnavailable(f"archive: {type(error).__name__}: {str(error)[:200]}") from error


def _writer_of(shard: int) -> str:
    return f"shard-{shard:02x}"


def _day(at_s: int) -> date:
    return datetime.fromtimestamp(at_s, UTC).date()


def quoted(text: str) -> str:
    """A text as it stands in a statement."""
    return "'" + text.replace("'", "''") + "'"


def _any_of(users: Sequence[tuple[str, str]]) -> str:
    """A condition for the rows of any of the users."""
    keys_of: dict[str, list[str]] = defaultdict(list)
    for tenant, user_key in users:
        keys_of[tenant].append(quoted(user_key))
    return " OR ".join(
        f"(tenant = {quoted(tenant)}"
        + (")" if quoted(EVERYBODY) in found else f" AND user_key IN ({', '.join(found)}))")
        for tenant, found in keys_of.items()
    )


def _days(table: DeltaTable) -> list[date]:
    return [date.fromisoformat(str(one["date"])) for one in table.partitions()]


def _partitions(table: DeltaTable) -> list[tuple[date, list[int], int]]:
    """(day, size of each file in bytes, rows in all) of each partition."""
    actions = table.get_add_actions(flatten=True)
    names = actions.schema.names
    columns = [
        actions.column(names.index(name)).to_pylist() for name in ("partition.date", "size_bytes", "num_records")
    ]
    sizes: dict[date, list[int]] = defaultdict(list)
    rows: dict[date, int] = defaultdict(int)
    for day, size, records in zip(*columns, strict=True):
        sizes[day].append(size)
        rows[day] += records or 0
    return [(day, sizes[day], rows[day]) for day in sorted(sizes)]
