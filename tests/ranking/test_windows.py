"""Windows in local time: half-open, and right across daylight saving."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.columns import OPEN_UNTIL_S
from ranking.errors import Problem
from ranking.windows import Window, read_window, utc_s

PARIS = ZoneInfo("Europe/Paris")
ZONES = ("Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia", "America/St_Johns")


def at(text: str) -> int:
    """UTC seconds of a UTC time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def window(**document: object) -> tuple[Window, list[Problem]]:
    """Read a window whose document has "from" and "until" as start and end."""
    problems: list[Problem] = []
    names = {"start": "from", "end": "until"}
    return read_window({names.get(key, key): value for key, value in document.items()}, "/window", problems), problems


def test_local_time_is_resolved_to_utc() -> None:
    """Summer in Paris is two hours ahead of UTC, winter one."""
    opened, problems = window(start="2026-07-01T18:30", end="2026-12-01T18:30", zone="Europe/Paris")
    assert not problems
    assert (opened.from_s, opened.until_s) == (at("2026-07-01T16:30"), at("2026-12-01T17:30"))
    assert (opened.start, opened.end, opened.zone) == ("2026-07-01T18:30", "2026-12-01T18:30", "Europe/Paris")


def test_an_end_may_stay_open() -> None:
    """Without until it never closes, without from it was always open."""
    assert window(start="2026-07-01T00:00", zone="UTC")[0].until_s == OPEN_UNTIL_S
    assert window(end="2026-07-01T00:00", zone="UTC")[0].from_s == 0


@pytest.mark.parametrize("skipped", ["2026-03-29T02:00", "2026-03-29T02:30", "2026-03-29T02:59:59"])
def test_a_time_skipped_in_spring_is_the_moment_of_the_jump(skipped: str) -> None:
    """Paris jumps from 02:00 to 03:00, which is 01:00 UTC."""
    assert utc_s(datetime.fromisoformat(skipped), PARIS) == at("2026-03-29T01:00")


def test_a_window_may_begin_in_the_skipped_hour() -> None:
    """From 02:30 (skipped) to 03:10 it is open for the ten minutes that exist."""
    opened, problems = window(start="2026-03-29T02:30", end="2026-03-29T03:10", zone="Europe/Paris")
    assert not problems
    assert opened.until_s - opened.from_s == 600


def test_a_time_repeated_in_autumn_is_its_first_occurrence() -> None:
    """02:30 comes at 00:30 UTC and again at 01:30 UTC."""
    assert utc_s(datetime(2026, 10, 25, 2, 30), PARIS) == at("2026-10-25T00:30")


@given(st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31)), st.integers(1, 10_000), st.sampled_from(ZONES))
def test_the_order_of_local_times_is_never_reversed(local: datetime, later_s: int, zone: str) -> None:
    """However the clocks are put, a later wall-clock time is not an earlier moment."""
    local = local.replace(microsecond=0)
    assert utc_s(local, ZoneInfo(zone)) <= utc_s(local + timedelta(seconds=later_s), ZoneInfo(zone))


@given(st.integers(at("2000-01-02T00:00"), at("2099-12-30T00:00")), st.sampled_from(ZONES))
def test_a_moment_comes_back_unless_it_is_a_repetition(moment_s: int, zone: str) -> None:
    """UTC to local and back is the same moment, or in a repeated hour the first one with that wall-clock time."""
    local = datetime.fromtimestamp(moment_s, ZoneInfo(zone))
    back_s = utc_s(local.replace(tzinfo=None, fold=0), ZoneInfo(zone))
    assert back_s < moment_s if local.fold else back_s == moment_s


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({"start": "2026-07-02T00:00", "end": "2026-07-01T00:00", "zone": "UTC"}, "/window/until"),
        ({"start": "2026-07-01T00:00", "end": "2026-07-01T00:00", "zone": "UTC"}, "/window/until"),
        ({"start": "2026-07-01T00:00", "zone": "Europe/Atlantis"}, "/window/zone"),
        ({"start": "2026-07-01T00:00", "zone": "../../etc/passwd"}, "/window/zone"),
        ({"start": "2026-07-01T00:00", "zone": "Europe"}, "/window/zone"),
        ({"start": "2026-07-01T00:00", "zone": 1}, "/window/zone"),
        ({"start": "2026-07-01T00:00"}, "/window/zone"),
        ({"start": "2026-02-31T00:00", "zone": "UTC"}, "/window/from"),
        ({"start": "2026-07-01T00:00Z", "zone": "UTC"}, "/window/from"),
        ({"start": "1026-07-01T00:00", "zone": "UTC"}, "/window/from"),
        ({"start": 1_800_000_000, "zone": "UTC"}, "/window/from"),
        ({"zone": "UTC"}, "/window"),
        ({"start": "2026-07-01T00:00", "zone": "UTC", "till": ""}, "/window/till"),
    ],
)
def test_a_wrong_window_is_refused_where_it_is_wrong(document: dict[str, object], pointer: str) -> None:
    """One mistake, one problem, at its place."""
    _, problems = window(**document)
    assert [problem.pointer for problem in problems] == [pointer]
