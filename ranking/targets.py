"""What a rule aims at: item ids, a playlist, or a filter over a fixed list of fields.

A target is compiled against a whole segment at once: `mask(items) -> bool[n]`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ranking.columns import Bool, UInt64
from ranking.errors import Problem
from ranking.hints import language_code
from ranking.items import Items, key_hash
from ranking.schema import Bounds, read_list, read_numbers, read_object, shown

MAX_IDS: Final = 1_000
MAX_NAMES: Final = 100
MAX_DEPTH: Final = 4
"""How deep and / or / not may be nested."""
MAX_NAME_CHARS: Final = 256


class Target(Protocol):
    """Which items a rule is about."""

    def mask(self, items: Items) -> Bool:
        """Return bool[n]: the rule aims at the item."""
        ...


@dataclass(frozen=True, slots=True)
class Everything:
    """All items; what a rule without target aims at."""

    def mask(self, items: Items) -> Bool:
        """Return all true."""
        return np.ones(len(items), np.bool_)


@dataclass(frozen=True, slots=True)
class Ids:
    """Items by their id in the tenant's catalogue; ids that do not exist aim at nothing."""

    ids: tuple[str, ...]

    def mask(self, items: Items) -> Bool:
        """Return where the id is one of these."""
        return np.isin(items.id_hash, _hashes(self.ids))


@dataclass(frozen=True, slots=True)
class Playlist:
    """The items of one of the tenant's playlists. Whether it exists, and whose it is, the publisher checks."""

    playlist: str

    def mask(self, items: Items) -> Bool:
        """Return where the item is in the playlist."""
        return items.playlists.has(_hashes((self.playlist,)))


@dataclass(frozen=True, slots=True)
class OneOf:
    """A leaf of a filter: the field holds at least one of the names."""

    field: str
    names: tuple[str, ...]

    def mask(self, items: Items) -> Bool:
        """Return where the field holds one."""
        return NAME_FIELDS[self.field](items, self.names)


@dataclass(frozen=True, slots=True)
class Between:
    """A leaf of a filter: low <= field <= high."""

    field: str
    low: int
    high: int

    def mask(self, items: Items) -> Bool:
        """Return where the field is inside."""
        values = NUMBER_FIELDS[self.field](items)
        return (values >= self.low) & (values <= self.high)


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds."""

    parts: tuple[Target, ...]

    def mask(self, items: Items) -> Bool:
        """Return where all parts hold."""
        held: Bool = np.all([part.mask(items) for part in self.parts], axis=0)
        return held


@dataclass(frozen=True, slots=True)
class Any:
    """At least one part holds."""

    parts: tuple[Target, ...]

    def mask(self, items: Items) -> Bool:
        """Return where some part holds."""
        held: Bool = np.any([part.mask(items) for part in self.parts], axis=0)
        return held


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Target

    def mask(self, items: Items) -> Bool:
        """Return where the part does not hold."""
        return ~self.part.mask(items)


def _hashes(names: tuple[str, ...]) -> UInt64:
    return np.array([key_hash(name) for name in names], np.uint64)


def _languages(items: Items, names: tuple[str, ...]) -> Bool:
    return np.isin(items.language, np.array([language_code(name) for name in names], np.int16))


NAME_FIELDS: Final[Mapping[str, Callable[[Items, tuple[str, ...]], Bool]]] = MappingProxyType(
    {
        "tag": lambda items, names: items.tags.has(_hashes(names)),
        "category": lambda items, names: items.categories.has(_hashes(names)),
        "creator": lambda items, names: np.isin(items.creator, _hashes(names)),
        "language": _languages,
    }
)
"""Fields of a filter that hold names: field -> (items, names) -> bool[n]."""

NUMBER_FIELDS: Final[Mapping[str, Callable[[Items], NDArray[np.integer]]]] = MappingProxyType(
    {
        "duration_s": lambda items: items.duration_s,
        "min_age": lambda items: items.min_age,
        "published_s": lambda items: items.published_s,
    }
)
"""Fields of a filter that hold numbers: field -> items -> int[n]."""

_RANGE: Final = {name: Bounds(0, 2**53, whole=True) for name in ("min", "max")}
_KINDS: Final = ("items", "playlist", "filter")
_JOINS: Final = ("and", "or", "not")
_FILTER_KEYS: Final = (*_JOINS, *NAME_FIELDS, *NUMBER_FIELDS)


def read_target(document: object, pointer: str, problems: list[Problem]) -> Target:
    """Read {"items": [...]} | {"playlist": id} | {"filter": {...}}; what is wrong goes to `problems`."""
    given = read_object(document, _KINDS, pointer, problems)
    if given is None:
        return Everything()
    if len(given) != 1:
        problems.append(Problem(pointer, f"names {len(given)} targets", "exactly one of " + ", ".join(_KINDS)))
        return Everything()
    [(kind, value)] = given.items()
    inside = f"{pointer}/{kind}"
    if kind == "items":
        return Ids(_read_names(value, inside, problems, MAX_IDS))
    if kind == "playlist":
        return Playlist(_read_name(value, inside, problems))
    return _read_filter(value, inside, problems, MAX_DEPTH)


def _read_filter(document: object, pointer: str, problems: list[Problem], depth: int) -> Target:
    """Read one level: {"and": [...]} | {"or": [...]} | {"not": {...}} | {field: ...}."""
    given = read_object(document, _FILTER_KEYS, pointer, problems)
    if given is None:
        return Everything()
    if len(given) != 1:
        problems.append(Problem(pointer, f"holds {len(given)} conditions", 'one; join several with "and" or "or"'))
        return Everything()
    [(key, value)] = given.items()
    inside = f"{pointer}/{key}"
    if key in NAME_FIELDS:
        names = _read_names(value, inside, problems, MAX_NAMES)
        if key == "language":
            problems.extend(_unknown_languages(names, inside))
        return OneOf(key, names)
    if key in NUMBER_FIELDS:
        return _read_range(key, value, inside, problems)
    if depth == 0:
        problems.append(Problem(inside, f"is nested more than {MAX_DEPTH} deep", f"at most {MAX_DEPTH} levels"))
        return Everything()
    if key == "not":
        return Not(_read_filter(value, inside, problems, depth - 1))
    parts = read_list(value, MAX_NAMES, inside, problems, lambda part, at: _read_filter(part, at, problems, depth - 1))
    if not parts:
        problems.append(Problem(inside, "joins nothing", "at least one condition"))
    return (All if key == "and" else Any)(tuple(parts))


def _read_range(key: str, document: object, pointer: str, problems: list[Problem]) -> Between:
    limits = read_numbers(_RANGE, document, pointer, problems, required=[])
    low, high = limits.get("min", _RANGE["min"].low), limits.get("max", _RANGE["max"].high)
    if low > high:
        problems.append(Problem(pointer, f"min {low} is above max {high}", "min at most max"))
    return Between(key, int(low), int(high))


def _read_names(document: object, pointer: str, problems: list[Problem], most: int) -> tuple[str, ...]:
    names = read_list(document, most, pointer, problems, lambda name, at: _read_name(name, at, problems))
    if document == []:
        problems.append(Problem(pointer, "is empty", "at least one name"))
    return tuple(names)


def _read_name(document: object, pointer: str, problems: list[Problem]) -> str:
    if isinstance(document, str) and 0 < len(document) <= MAX_NAME_CHARS:
        return document
    problems.append(Problem(pointer, f"{shown(document)} is not a name", f"text of 1 to {MAX_NAME_CHARS} characters"))
    return ""


def _unknown_languages(names: tuple[str, ...], pointer: str) -> list[Problem]:
    return [
        Problem(f"{pointer}/{i}", f"{shown(name)} is not a language", "a two-letter code of ISO 639-1")
        for i, name in enumerate(names)
        if language_code(name) < 0
    ]
