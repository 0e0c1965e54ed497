"""`import` and `export`: a whole catalogue as JSON Lines, one video a line, as PUT /v1/admin/videos takes it."""

from __future__ import annotations

import gzip
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from retrieval import audit
from retrieval.database import writing
from retrieval.mirror import BATCH, Mirror
from retrieval.videos import OPEN_END_S, OPEN_START_S, Video
from service.operator.console import AsJson, Desk, TenantName, now_s, opened, run, show, who

MAX_LINE_BYTES: Final = 4 << 20
FIELDS: Final = (
    "id", "title", "media_url", "description", "transcript", "tags", "categories", "creator", "playlists", "language",
    "countries", "poster_url", "duration_s", "status",
)  # fmt: skip


def import_(
    file: Annotated[Path, typer.Argument(help="JSON Lines, also as .gz; - for standard input")],
    tenant: TenantName,
    mirror: Annotated[bool, typer.Option(help="afterwards take down every video that is not in the file")] = False,
    as_json: AsJson = False,
) -> None:
    """Create or change videos by the thousand. Visible within seconds of the end; running it again changes nothing.

    Lines that are refused are listed and left out. Exit status 1 if there were any. --mirror makes the catalogue what
    the file says: the way to reconcile with a CMS whose webhooks were lost.
    """

    async def command() -> dict[str, Any]:
        async with opened() as desk:
            await desk.tenants.get(tenant)
            return await imported(desk, tenant, file, mirror=mirror)

    found = run(command())
    for problem in found["problems"]:
        sys.stderr.write(f"line {problem['line']}: {problem['detail']}\n")
    show(found if as_json else {name: value for name, value in found.items() if name != "problems"}, as_json)
    raise typer.Exit(1 if found["refused"] else 0)


def export(
    tenant: TenantName,
    file: Annotated[Path, typer.Argument(help="where to; .gz is compressed; - for standard output")] = Path("-"),
) -> None:
    """Every video that is not taken down, by id, as `import` takes it."""

    async def command() -> int:
        async with opened() as desk:
            await desk.tenants.get(tenant)
            return await exported(desk, tenant, file)

    sys.stderr.write(f"{run(command())} videos\n")


async def imported(desk: Desk, tenant: str, file: Path, *, mirror: bool) -> dict[str, Any]:
    """What became of the lines of a file. Raises NotFound, StoreUnavailable, OSError."""
    began = time.monotonic()
    mirroring = Mirror(desk.catalogue, tenant, desk.settings.vector_dim, now_s())
    with _lines(file) as lines:
        while batch := list(islice(lines, BATCH)):
            await mirroring.add(batch)
    if mirror:
        await mirroring.take_down_missing()
    async with writing(desk.engine) as connection:
        after = {**mirroring.counts, "file": file.name}
        note: dict[str, Any] = {"who": who(), "reason": "", "now_s": now_s(), "after": after}
        await audit.record(connection, "catalogue.import", tenant, **note)
    seconds, counts = time.monotonic() - began, mirroring.counts
    return {
        **counts, "seconds": round(seconds, 2),
        "per_second": round((sum(counts.values()) - counts["removed"]) / max(seconds, 1e-9)),
        "problems": [{"line": line, "id": name, "detail": said} for line, name, said in mirroring.problems],
    }  # fmt: skip


async def exported(desk: Desk, tenant: str, file: Path) -> int:
    """Write every video that is not taken down; how many. Raises StoreUnavailable, OSError."""
    done, after = 0, ""
    with _written(file) as out, _progress("exporting") as bar:
        counts = await desk.catalogue.counts(tenant)
        total = counts["published"] + counts["draft"]
        while page := await desk.catalogue.page(tenant, after, BATCH):
            out.writelines(
                orjson.dumps(as_input(video), option=orjson.OPT_APPEND_NEWLINE)
                for video in page
                if video.status != "removed"
            )
            done += sum(video.status != "removed" for video in page)
            after = page[-1].id
            bar(done, total)
    return done


def as_input(video: Video) -> dict[str, Any]:
    """A stored video as the API would take it, without what is empty anyway."""
    said = {name: getattr(video, name) for name in FIELDS}
    said["ratings"] = [{"system": rating.system, "value": rating.value} for rating in video.ratings]
    said["published_at"] = _instant(video.published_s)
    said["available_from"] = None if video.available_from_s == OPEN_START_S else _instant(video.available_from_s)
    said["available_until"] = None if video.available_until_s == OPEN_END_S else _instant(video.available_until_s)
    said["vector"] = None if video.vector is None else video.vector.tolist()
    return {name: value for name, value in said.items() if value not in (None, "", (), [])}


@contextmanager
def _lines(file: Path) -> Iterator[Iterator[tuple[int, Any]]]:
    """(line number, decoded value) of each line that is not empty; moves a bar by bytes read where a person watches."""
    if str(file) == "-":
        yield _decoded(sys.stdin.buffer, lambda: None)
        return
    total = file.stat().st_size
    with file.open("rb") as raw, _progress("importing") as bar:
        text = gzip.GzipFile(fileobj=raw) if file.suffix == ".gz" else raw
        yield _decoded(text, lambda: bar(raw.tell(), total))


def _decoded(text: IO[bytes] | gzip.GzipFile, on_batch: Callable[[], None]) -> Iterator[tuple[int, Any]]:
    number = 0
    while line := text.readline(MAX_LINE_BYTES):
        number += 1
        if line.strip():
            try:
                yield number, orjson.loads(line)
            except orjson.JSONDecodeError:
                yield number, None  # `parse_videos` says what is wrong with it
        if number % BATCH == 0:
            on_batch()


@contextmanager
def _written(file: Path) -> Iterator[IO[bytes]]:
    if str(file) == "-":
        yield sys.stdout.buffer
    elif file.suffix == ".gz":
        with gzip.open(file, "wb", compresslevel=6) as out:
            yield out  # type: ignore[misc]  # GzipFile is a binary file in all but name
    else:
        with file.open("wb") as plain:
            yield plain


@contextmanager
def _progress(what: str) -> Iterator[Any]:
    """A callback (done, total) that moves a bar where a person watches."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    columns = (TextColumn(what), BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _instant(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")
