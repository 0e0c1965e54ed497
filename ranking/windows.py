"""When a rule holds: local wall-clock time in an IANA zone, resolved to UTC seconds, half-open [from, until).

Daylight saving, so that the order of local times is never reversed and windows that touch on the wall clock touch in
time as well (no overlap, no hole):
- a local time that is skipped in spring means the moment of the jump;
- a local time that comes twice in autumn means its first occurrence, for both ends.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ranking.columns import OPEN_UNTIL_S
from ranking.errors import Problem
from ranking.schema import read_object, shown

_LOCAL: Final = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d(:\d\d)?")
_LOCAL_ALLOWED: Final = "local time without offset, such as 2026-03-29T18:30, in 2000 to 2099"


@dataclass(frozen=True, slots=True)
class Window:
    """Holds while from_s <= now < until_s (UTC seconds). `start`, `end`, `zone`: what the editor wrote; "" = open."""

    from_s: int
    until_s: int
    start: str
    end: str
    zone: str

    @property
    def is_temporary(self) -> bool:
        """It ends."""
        return self.until_s != OPEN_UNTIL_S


ALWAYS: Final = Window(0, OPEN_UNTIL_S, "", "", "")


def utc_s(local: datetime, zone: ZoneInfo) -> int:
    """Return the UTC second of a wall-clock time without zone; see the module for skipped and repeated times."""
    first = _utc(local, zone, fold=0)
    second = _utc(local, zone, fold=1)
    if second >= first:  # ordinary, or repeated
        return int(first.timestamp())
    # Skipped: the zone changes its offset somewhere in [second, first). Find that moment.
    before, after = int(second.timestamp()), int(first.timestamp())
    old_offset = second.astimezone(zone).utcoffset()
    while after - before > 1:
        middle = (before + after) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == old_offset:
            before = middle
        else:
            after = middle
    return after


def read_window(document: object, pointer: str, problems: list[Problem]) -> Window:
    """Read {"from"?, "until"?, "zone"}; what is wrong goes to `problems`."""
    given = read_object(document, ("from", "until", "zone"), pointer, problems)
    if given is None:
        return ALWAYS
    if "from" not in given and "until" not in given:
        problems.append(Problem(pointer, "has neither from nor until", "at least one of them, or no window at all"))
    zone = _read_zone(given.get("zone"), f"{pointer}/zone", problems)
    start = _read_local(given, "from", pointer, problems)
    end = _read_local(given, "until", pointer, problems)
    if zone is None:
        return ALWAYS
    from_s = utc_s(start, zone) if start else ALWAYS.from_s
    until_s = utc_s(end, zone) if end else ALWAYS.until_s
    if from_s >= until_s:
        problems.append(Problem(f"{pointer}/until", f"{shown(given.get('until'))} is not after from", "a later time"))
    return Window(from_s, until_s, given.get("from", ""), given.get("until", ""), zone.key)


def _utc(local: datetime, zone: ZoneInfo, fold: int) -> datetime:
    return local.replace(tzinfo=zone, fold=fold).astimezone(UTC)


def _read_zone(name: object, pointer: str, problems: list[Problem]) -> ZoneInfo | None:
    try:
        if isinstance(name, str) and name:
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a directory, such as "Europe"
        pass
    problems.append(Problem(pointer, f"{shown(name)} is not a known zone", "an IANA time zone, such as Europe/Paris"))
    return None


def _read_local(given: dict[str, object], name: str, pointer: str, problems: list[Problem]) -> datetime | None:
    if name not in given:
        return None
    text = given[name]
    try:
        if isinstance(text, str) and _LOCAL.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:  # the 31st of February
        pass
    problems.append(Problem(f"{pointer}/{name}", f"{shown(text)} is not a local time", _LOCAL_ALLOWED))
    return None
