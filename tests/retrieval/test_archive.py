"""The archive: exactly once, ninety days, and nothing of an erased user in any file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from retrieval.archive import MANY_FILES, Archive
from retrieval.archive_tables import COLUMNS, EVENTS, SERVES
from retrieval.errors import LeaseLost, StoreUnavailable
from retrieval.journal import DAY_S
from retrieval.serves import SERVE_FIELDS, Serve, ServedItem

NOW_S = 1_795_000_000
NOON_S = NOW_S // DAY_S * DAY_S + DAY_S // 2
USER, CANARY = "0123456789abcdef0123456789abcdef", "canary5678canary5678canary5678ca"


def event(n: int, user: str = USER, at_s: int = NOW_S, request_id: str = "aa") -> tuple[Any, ...]:
    """One row of the events table."""
    return ("acme", user, f"{n:032x}", 4, n, at_s, at_s, None, request_id, None)


def serve(request_id: str, user: str = USER, at_s: int = NOW_S, items: int = 2) -> tuple[Any, ...]:
    """One row of the serves table."""
    page = [ServedItem(item, item, "for_you", 0.5) for item in range(items)]
    down, degraded = ([7, 9], ["all_seen"]) if items else ([], [])
    facts = ("acme", user, request_id, at_s, "personalised", "home", 3, "1.2", 9, 0)
    return Serve(*facts, down=down, degraded=degraded, items=page).row()


def add(archive: Archive, table: str, rows: Sequence[tuple[Any, ...]], shard: int = 1) -> None:
    """Append rows as if they were the next of this shard."""
    place = archive.positions(table).get(shard, 0)
    archive.append(table, rows, after={shard: place}, positions={shard: place + 1})


def stored_bytes(folder: Path) -> bytes:
    """Everything that is on the disk, names included."""
    return b"".join(str(path).encode() + path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """An empty archive."""
    return Archive(str(tmp_path / "archive"))


def test_rows_come_back_as_they_were_added(archive: Archive) -> None:
    """Every column of both tables, lists and missing values too, and they join on the request."""
    add(archive, EVENTS, [event(1), event(2, request_id="")])
    add(archive, SERVES, [serve("aa"), serve("bb", items=0)])
    (joined,) = archive.query("SELECT e.item, s.mode FROM events e JOIN serves s ON e.request_id = s.request_id")
    assert joined == {"item": 1, "mode": "personalised"}
    for table, row in ((EVENTS, event(1)), (SERVES, serve("aa"))):
        found = archive.query(f"SELECT * FROM {table} WHERE request_id = 'aa'")  # noqa: S608 - a table of ours
        names = [field.name for field in COLUMNS[table]][1:]
        expected = dict(zip(names, row, strict=True))
        if table == SERVES:
            parts = ("item", "position", "reason", "score", "propensity")
            expected["items"] = [dict(zip(parts, item, strict=True)) for item in row[-1]]
        assert [{name: one[name] for name in names} for one in found] == [expected]


def test_a_table_of_an_older_version_gets_the_columns_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was archived before stays, without a value there; what comes now is complete."""
    new = ("chain", "down", "degraded")
    old = tuple(one for one in COLUMNS[SERVES] if one.name not in new)
    places = [at for at, one in enumerate(COLUMNS[SERVES][1:]) if one.name not in new]
    with monkeypatch.context() as earlier:
        earlier.setitem(cast("dict[str, Any]", COLUMNS), SERVES, old)
        add(Archive(str(tmp_path)), SERVES, [tuple(serve("aa")[at] for at in places)])
    now = Archive(str(tmp_path))
    add(now, SERVES, [serve("bb")])
    found = now.query("SELECT chain, down, degraded, surface FROM serves ORDER BY request_id")
    assert found[0] == {"chain": None, "down": None, "degraded": None, "surface": "home"}
    assert found[1] == {"chain": "", "down": [7, 9], "degraded": ["all_seen"], "surface": "home"}


def test_the_columns_are_the_fields_of_a_page() -> None:
    """The stream's entries go into the table as they are."""
    assert tuple(one.name for one in COLUMNS[SERVES][1:]) == SERVE_FIELDS


def test_rows_and_place_are_one_step(archive: Archive, tmp_path: Path) -> None:
    """A program that starts again finds how far it was."""
    archive.append(EVENTS, [event(1)], after={}, positions={3: 7, 63: 9})
    assert Archive(str(tmp_path / "archive")).positions(EVENTS) == {3: 7, 63: 9}
    assert archive.positions(SERVES) == {}


def test_a_second_writer_from_the_same_place_is_refused(archive: Archive, tmp_path: Path) -> None:
    """Two programs that read the same entries: one adds them, the other is told, whichever order they look in."""
    other = Archive(str(tmp_path / "archive"))
    archive.append(EVENTS, [event(1)], after={}, positions={3: 7})
    with pytest.raises(StoreUnavailable):  # it has not looked: the commit itself fails
        other.append(EVENTS, [event(1)], after={}, positions={3: 7})
    assert other.count(EVENTS) == 1
    with pytest.raises(LeaseLost):  # it has looked since
        other.append(EVENTS, [event(1)], after={}, positions={3: 7})
    assert archive.count(EVENTS) == 1


def test_writers_of_different_shards_do_not_disturb_each_other(archive: Archive, tmp_path: Path) -> None:
    """Nothing but the place in a shard's own stream is contended for."""
    other = Archive(str(tmp_path / "archive"))
    archive.append(EVENTS, [event(1)], after={}, positions={1: 7})
    other.append(EVENTS, [event(2)], after={}, positions={2: 7})
    assert archive.count(EVENTS) == 2


@pytest.mark.parametrize(("days", "left"), [(0, 1), (89, 1), (90, 0), (91, 0)])
def test_nothing_is_older_than_ninety_days(archive: Archive, tmp_path: Path, days: int, left: int) -> None:
    """On day 89 an event is there, from day 90 on it is on no disk: no file, no old version, no statistics."""
    add(archive, EVENTS, [event(1, CANARY, NOON_S)])
    add(archive, SERVES, [serve("aa", CANARY, NOON_S)])
    archive.retain(now_s=NOON_S + days * DAY_S)
    assert archive.count(EVENTS) == archive.count(SERVES) == left
    assert (CANARY.encode() in stored_bytes(tmp_path)) == bool(left)
    assert len(list((tmp_path / "archive" / EVENTS).glob("date=*/*.parquet"))) == left


def test_younger_days_stay_untouched(archive: Archive) -> None:
    """Only the days that are old go, and the oldest row that is left says how old."""
    add(archive, EVENTS, [event(n, at_s=NOON_S - n * DAY_S) for n in range(100)])
    archive.retain(now_s=NOON_S)
    assert archive.count(EVENTS) == 90
    assert archive.oldest_s() == NOON_S - 89 * DAY_S


def test_an_erased_user_is_in_no_byte(archive: Archive, tmp_path: Path) -> None:
    """Rows, the files that held them, older versions, and the predicate in the table's own history."""
    for n in range(3):
        add(archive, EVENTS, [event(10 * n + k, CANARY if k % 2 else USER, NOW_S - n * DAY_S) for k in range(10)])
    add(archive, SERVES, [serve("aa", CANARY), serve("bb")])
    assert CANARY.encode() in stored_bytes(tmp_path)
    counts = archive.erase([("acme", CANARY), ("acme", "e" * 32), ("other", USER)])
    assert archive.sweep() == 0
    assert counts["acme", CANARY] == {EVENTS: 15, SERVES: 1}
    assert counts["other", USER] == {EVENTS: 0, SERVES: 0}
    assert CANARY.encode() not in stored_bytes(tmp_path)
    assert (archive.count(EVENTS), archive.count(SERVES)) == (15, 1)


def test_erasing_does_not_move_the_place(archive: Archive) -> None:
    """What was archived is still known to be: it must not come back from the stream."""
    archive.append(EVENTS, [event(1, CANARY)], after={}, positions={3: 7})
    archive.erase([("acme", CANARY)])
    archive.sweep()
    assert archive.positions(EVENTS) == {3: 7}


def test_many_small_files_become_few(archive: Archive) -> None:
    """The same rows and places in fewer files, sorted by tenant and user."""
    for n in range(MANY_FILES + 2):
        add(archive, EVENTS, [event(n, f"{n:032x}"), event(100 + n, "f" * 32)])
    rows = archive.query("SELECT * FROM events ORDER BY event_id")
    assert archive.compact() == 1
    assert len(archive.files()) == 1
    assert archive.query("SELECT * FROM events ORDER BY event_id") == rows
    assert archive.positions(EVENTS) == {1: MANY_FILES + 2}
    users = [row["user_key"] for row in archive.query("SELECT user_key FROM events")]
    assert users == sorted(users)
    assert archive.compact() == 0


def test_what_a_killed_writer_left_is_noticed(archive: Archive, tmp_path: Path) -> None:
    """A file no version names may hold anybody: it is reported until it is old enough to be removed."""
    add(archive, EVENTS, [event(1)])
    (day,) = (tmp_path / "archive" / EVENTS).glob("date=*")
    orphan = day / "part-00000-00000000-0000-0000-0000-000000000000-c000.zstd.parquet"
    orphan.write_bytes(CANARY.encode())
    assert archive.sweep() == 1
    assert orphan.exists()


def test_a_place_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    """An error of ours, for the loop that tries again."""
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreUnavailable):
        Archive(str(tmp_path / "file"))
