"""Spark reads the archive: as Delta's own reader does, but for Delta's jars. `make spark`; needs Java.

Spark reads the log of each table (checkpoint, then commits), takes the schema from it, which Delta writes in Spark's
own notation, and the data files that the newest version names.
"""

from __future__ import annotations

import json
import os
import subprocess

from retrieval.archive import MANY_FILES, Archive
from retrieval.archive_tables import COLUMNS
from tests.retrieval.test_archive_elsewhere import JOIN, archive

__all__ = ["archive"]

SPARK = """
import json, sys
from pathlib import Path
from pyspark.sql import SparkSession
from pyspark.sql.types import StructType
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
for name in ("events", "serves"):
    folder = Path(sys.argv[1]) / name
    log = folder / "_delta_log"
    since = json.loads((log / "_last_checkpoint").read_text())["version"]
    commits = sorted(path for path in log.glob("*.json") if int(path.stem) > since)
    files, schema = set(), None
    for source in [spark.read.parquet(str(log / f"{since:020d}.checkpoint.parquet")),
                   *(spark.read.json(str(path)) for path in commits)]:
        for action in source.collect():
            action = action.asDict(recursive=True)
            if action.get("metaData"):
                schema = StructType.fromJson(json.loads(action["metaData"]["schemaString"]))
            if action.get("remove"):
                files.discard(action["remove"]["path"])
            if action.get("add"):
                files.add(action["add"]["path"])
    read = spark.read.schema(schema).option("basePath", str(folder)).parquet(*(str(folder / path) for path in files))
    assert read.columns and set(read.columns) == {field.name for field in schema}
    read.createOrReplaceTempView(name)
counted = "SELECT count(*), count(DISTINCT user_key), count(DISTINCT date) FROM events"
print(json.dumps([[list(row) for row in spark.sql(sql).collect()] for sql in (sys.argv[2], counted)]))
"""


def test_spark_reads_it(archive: Archive) -> None:
    """A compacted day, an erased user, later commits: the same rows and the same join as DuckDB and polars find."""
    assert set(COLUMNS) == {"events", "serves"}
    join = JOIN.replace("s.items[1]", "s.items[0]")  # SQL's lists begin at 1, Spark's at 0
    command = [os.environ["SPARK_PYTHON"], "-c", SPARK, archive.url, join]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    joined, (counted,) = json.loads(done.stdout.splitlines()[-1])
    assert joined == [[n, "personalised", "for_you"] for n in range(5)]
    assert counted == [MANY_FILES + 3, 1, 2]
