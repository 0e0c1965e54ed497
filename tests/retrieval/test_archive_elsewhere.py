"""The archive as others meet it: read by DuckDB and polars, and kept in object storage instead of a folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars
import pytest

from retrieval.archive import MANY_FILES, Archive
from retrieval.archive_tables import COLUMNS, EVENTS, SERVES
from retrieval.errors import LeaseLost, StoreUnavailable
from retrieval.journal import DAY_S
from tests.retrieval.test_archive import CANARY, NOON_S, NOW_S, USER, add, event, serve
from tests.support.object_store import client, object_store
from tests.support.redis_server import free_port

JOIN = """
SELECT e.item, s.mode, s.items[1].reason AS reason FROM events e JOIN serves s ON e.request_id = s.request_id
ORDER BY e.item
"""


DUCKDB = """
import json, sys
import duckdb
for table, files in json.loads(sys.argv[1]).items():
    duckdb.read_parquet(files, hive_partitioning=True).create_view(table)
counted = "SELECT count(*), count(DISTINCT user_key), count(DISTINCT date) FROM events"
print(json.dumps([duckdb.sql(sql).fetchall() for sql in (sys.argv[2], counted)]))
"""


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """A compacted day, some small files after it, an erased user, and both tables joined by request."""
    made = Archive(str(tmp_path / "archive"))
    for n in range(MANY_FILES + 2):
        add(made, EVENTS, [event(n, request_id=f"{n:02x}"), event(100 + n, CANARY)])
    add(made, SERVES, [serve(f"{n:02x}") for n in range(5)])
    made.compact()
    made.erase([("acme", CANARY)])
    made.sweep()
    add(made, EVENTS, [event(50, at_s=NOW_S - DAY_S)])
    return made


def test_duckdb_reads_it(archive: Archive) -> None:
    """The data files that the newest version names, with the partition's date; the tables join."""
    files = {table: archive.table(table).file_uris() for table in COLUMNS}
    # A process of its own: at the end of a long one DuckDB complains about what the others have left.
    done = subprocess.run(
        [sys.executable, "-c", DUCKDB, json.dumps(files), JOIN], capture_output=True, text=True, check=True, timeout=60
    )
    joined, (counted,) = json.loads(done.stdout)
    assert joined == [[n, "personalised", "for_you"] for n in range(5)]
    assert counted == [MANY_FILES + 3, 1, 2]


def test_polars_reads_it(archive: Archive) -> None:
    """By the address of a table, with every column as it is written down, and only the days that are asked for."""
    events = polars.scan_delta(archive.table(EVENTS))
    assert set(events.collect_schema().names()) == {field.name for field in COLUMNS[EVENTS]}
    serves = polars.scan_delta(f"{archive.url}/{SERVES}")
    joined = events.join(serves, on="request_id").sort("item").select("item", "mode").collect()
    assert joined.rows() == [(n, "personalised") for n in range(5)]
    last = events.filter(polars.col("date") == polars.lit(NOW_S // DAY_S).cast(polars.Date)).collect()
    assert len(last) == MANY_FILES + 2 and set(last["user_key"]) == {USER}


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An S3-compatible server with a bucket `archive`, as deltalake is told of it."""
    with object_store(tmp_path_factory.mktemp("bucket")) as options:
        yield options


def stored(options: dict[str, str], prefix: str) -> bytes:
    """Every object under a prefix, names included."""
    found, s3 = b"", client(options)
    for one in s3.list_objects_v2(Bucket="archive", Prefix=prefix).get("Contents", []):
        body = s3.get_object(Bucket="archive", Key=one["Key"])["Body"].read()
        found += one["Key"].encode() + body
    return found


def test_any_delta_reader_can_read_it(archive: Archive) -> None:
    """The oldest protocol, no feature on top of it, and types that every reader since Delta 1.0 knows: Spark's too."""
    known = {"date", "string", "integer", "long", "float"}
    for name in COLUMNS:
        table = archive.table(name)
        protocol = table.protocol()
        assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)
        assert not protocol.reader_features and not protocol.writer_features
        assert set(table.metadata().configuration) == {
            "delta.dataSkippingStatsColumns",
            "delta.logRetentionDuration",
            "delta.deletedFileRetentionDuration",
            "delta.checkpointInterval",
        }
        assert leaves(json.loads(table.schema().to_json())) <= known
        assert not any("deletion" in column for column in table.get_add_actions(flatten=True).schema.names)


def leaves(schema: Any) -> set[str]:
    """The names of the plain types in a Delta schema."""
    if isinstance(schema, str):
        return {schema}
    if schema["type"] == "array":
        return leaves(schema["elementType"])
    return set[str]().union(*(leaves(field["type"]) for field in schema["fields"]))


def test_object_storage_keeps_it_like_a_folder(bucket: dict[str, str]) -> None:
    """Written, opened again, compacted, one user erased and the old days gone: from every object, old versions too."""
    archive = Archive("s3://archive/whole", bucket)
    add(archive, EVENTS, [event(0), event(100, CANARY), event(200, at_s=NOON_S - 95 * DAY_S)])
    for n in range(1, MANY_FILES + 1):
        add(archive, EVENTS, [event(n), event(100 + n, CANARY)])
    add(archive, SERVES, [serve("aa", CANARY), serve("bb")])
    assert CANARY.encode() in stored(bucket, "whole/")
    again = Archive("s3://archive/whole", bucket)
    assert again.positions(EVENTS) == {1: MANY_FILES + 1}
    assert again.compact() == 1
    assert again.retain(now_s=NOW_S) == 1
    counts = again.erase([("acme", CANARY)])
    assert again.sweep() == 0
    assert counts["acme", CANARY] == {EVENTS: MANY_FILES + 1, SERVES: 1}
    assert CANARY.encode() not in stored(bucket, "whole/")
    assert b"date=2026-08" not in stored(bucket, "whole/")
    assert (again.count(EVENTS), again.count(SERVES)) == (MANY_FILES + 1, 1)
    found = polars.scan_delta("s3://archive/whole/events", storage_options=bucket).collect()
    assert set(found["user_key"]) == {USER}


def test_two_writers_of_a_bucket_archive_once(bucket: dict[str, str]) -> None:
    """The second one from the same place is refused by the bucket itself (conditional put), and told."""
    one, other = Archive("s3://archive/two", bucket), Archive("s3://archive/two", bucket)
    one.append(EVENTS, [event(1)], after={}, positions={3: 7})
    with pytest.raises((StoreUnavailable, LeaseLost)):
        other.append(EVENTS, [event(1)], after={}, positions={3: 7})
    assert other.count(EVENTS) == 1


def test_a_bucket_that_is_away_is_said(bucket: dict[str, str]) -> None:
    """An error of ours, soon, and nothing of the credentials in it."""
    nowhere = {**bucket, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}", "max_retries": "0"}
    with pytest.raises(StoreUnavailable) as caught:
        Archive("s3://archive/away", nowhere)
    assert "test" not in str(caught.value).replace("latest", "")
