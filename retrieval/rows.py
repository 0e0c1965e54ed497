"""Rows: what serving must know of n videos, as plain columns. The in-memory and the on-disk shape are the same.

A segment file is these columns written one after the other, those that ranking asks of a candidate as one record a row;
opening it is one mmap and a slice per column. So a worker shares the bytes with every other worker, and a row costs no
Python object until its card is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from ranking.hints import country_code, country_set, everywhere, language_code
from ranking.items import Facet, Items, key_hash
from ranking.maturity import minimum_age
from retrieval.videos import OPEN_END_S, Video

Array = npt.NDArray[Any]

CATEGORIES = 4
"""Categories kept per video; the catalogue accepts no more."""

# column -> (dtype, width); width 0 is one value a row. Adding a column is one entry here and its line in `from_videos`.
COLUMNS: Mapping[str, tuple[str, int]] = {
    "item": ("<u4", 0),
    "version": ("<i8", 0),
    "id_hash": ("<u8", 0),
    "creator": ("<u8", 0),
    "language": ("<i2", 0),
    "min_age": ("u1", 0),
    "duration_s": ("<i4", 0),
    "published_s": ("<i8", 0),
    "available_from_s": ("<i8", 0),
    "available_until_s": ("<i8", 0),
    "countries": ("u1", 32),
    "categories": ("<u8", CATEGORIES),
}
RECORD = np.dtype(
    [
        (name, *((dtype, width) if width else (dtype,)))
        for name in (
            "creator", "categories", "published_s", "available_from_s", "available_until_s", "item", "language",
            "min_age", "countries",
        )
        for dtype, width in [COLUMNS[name]]
    ],
    align=True,
)  # fmt: skip
"""What ranking asks of one candidate, side by side: two cache lines instead of one in each of nine columns. A segment
keeps these columns in no other way; looking at one of them in every row costs more for it, and is done when it is
opened."""
_RECORDED = frozenset(RECORD.names or ())
# ragged column -> dtype of its values; each has `offsets` int64[n + 1] beside the values
RAGGED: Mapping[str, str] = {"tags": "<u8", "playlists": "<u8", "cards": "u1"}


@dataclass(frozen=True)
class Ragged:
    """n lists of different lengths: list i is `values[offsets[i]:offsets[i + 1]]`; offsets int64[n + 1]."""

    offsets: Array
    values: Array

    def take(self, rows: Array) -> Ragged:
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Ragged(offsets, self.values[np.repeat(starts, lengths) + within])

    @staticmethod
    def of(lists: Sequence[Sequence[int] | bytes], dtype: str) -> Ragged:
        offsets = np.zeros(len(lists) + 1, np.int64)
        np.cumsum([len(each) for each in lists], out=offsets[1:])
        if dtype == "u1":
            return Ragged(offsets, np.frombuffer(b"".join(bytes(each) for each in lists), np.uint8))
        return Ragged(offsets, np.array([value for each in lists for value in each], dtype))

    @staticmethod
    def concat(parts: Sequence[Ragged]) -> Ragged:
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return Ragged(offsets, np.concatenate([part.values for part in parts]))


@dataclass(frozen=True)
class Rows:
    """n videos as equal-length columns: `columns` (see COLUMNS), `ragged` (see RAGGED), vectors float16[n, d].

    A card is the JSON object of the answer without its closing brace, so that the service appends what depends on
    the request (position, reason) and copies the rest.
    """

    columns: Mapping[str, Array]
    ragged: Mapping[str, Ragged]
    vectors: Array

    def __len__(self) -> int:
        return len(self.columns["item"])

    def take(self, rows: Array) -> Rows:
        """The given rows (int64[m], or bool[n]) as a new table, in that order."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Rows(
            {name: column[rows] for name, column in self.columns.items()},
            {name: column.take(rows) for name, column in self.ragged.items()},
            self.vectors[rows],
        )

    @staticmethod
    def concat(parts: Sequence[Rows]) -> Rows:
        """All rows of all parts, in order. Parts need one dimension of vectors between them."""
        return Rows(
            {name: np.concatenate([part.columns[name] for part in parts]) for name in COLUMNS},
            {name: Ragged.concat([part.ragged[name] for part in parts]) for name in RAGGED},
            np.concatenate([part.vectors for part in parts]),
        )

    @staticmethod
    def empty(dim: int) -> Rows:
        return Rows.from_videos([], np.zeros((0, dim), np.float32))

    @staticmethod
    def from_videos(videos: Sequence[Video], vectors: Array) -> Rows:
        """Columns of catalogue videos and their unit vectors (float32[n, d]), in the order given."""
        plain: dict[str, list[Any]] = {
            "item": [video.item for video in videos],
            "version": [video.version for video in videos],
            "id_hash": [key_hash(video.id) for video in videos],
            "creator": [key_hash(video.creator) if video.creator else 0 for video in videos],
            "language": [language_code(video.language) if video.language else -1 for video in videos],
            "min_age": [minimum_age((r.system, r.value) for r in video.ratings) for video in videos],
            "duration_s": [video.duration_s for video in videos],
            "published_s": [video.published_s for video in videos],
            "available_from_s": [video.available_from_s for video in videos],
            "available_until_s": [video.available_until_s for video in videos],
            "countries": [_countries(video) for video in videos],
            "categories": [_padded([key_hash(name) for name in video.categories]) for video in videos],
        }
        return Rows(
            {name: _column(plain[name], *COLUMNS[name]) for name in COLUMNS},
            {
                "tags": Ragged.of([[key_hash(tag) for tag in video.tags] for video in videos], RAGGED["tags"]),
                "playlists": Ragged.of([[key_hash(name) for name in v.playlists] for v in videos], RAGGED["playlists"]),
                "cards": Ragged.of([card(video) for video in videos], RAGGED["cards"]),
            },
            np.asarray(vectors, np.float16),
        )

    def items(self) -> Items:
        """The columns that rules may look at, without copying."""
        column = self.columns
        return Items(
            id_hash=column["id_hash"],
            creator=column["creator"],
            language=column["language"],
            min_age=column["min_age"],
            duration_s=column["duration_s"],
            published_s=column["published_s"],
            tags=Facet(self.ragged["tags"].offsets, self.ragged["tags"].values),
            playlists=Facet(self.ragged["playlists"].offsets, self.ragged["playlists"].values),
            categories=Facet(
                np.arange(0, CATEGORIES * len(self) + 1, CATEGORIES, dtype=np.int64), column["categories"].reshape(-1)
            ),
        )

    def records(self) -> Array:
        """RECORD[n]: the columns of RECORD, row by row."""
        records = np.zeros(len(self), RECORD)
        for name in RECORD.names or ():
            records[name] = self.columns[name]
        return records

    @staticmethod
    def of_arrays(arrays: Mapping[str, Array], vectors: Array) -> Rows:
        """What `arrays` gave, without copying. Raises KeyError for an array that is not there."""
        fields = arrays["records"].view(RECORD)[:, 0]
        return Rows(
            {name: fields[name] if name in _RECORDED else arrays[name] for name in COLUMNS},
            {name: Ragged(arrays[f"{name}.offsets"], arrays[f"{name}.values"]) for name in RAGGED},
            vectors,
        )

    def arrays(self) -> Iterator[tuple[str, Array]]:
        """Every stored array but the vectors, with the name it has in a segment file."""
        yield from ((name, column) for name, column in self.columns.items() if name not in _RECORDED)
        yield "records", self.records().view(np.uint8).reshape(len(self), RECORD.itemsize)
        for name, ragged in self.ragged.items():
            yield f"{name}.offsets", ragged.offsets
            yield f"{name}.values", ragged.values


def card(video: Video) -> bytes:
    """The part of an item's JSON that is the same in every answer, open at its end."""
    known: dict[str, Any] = {
        "id": video.id,
        "title": video.title,
        "media_url": video.media_url,
        "poster_url": video.poster_url,
        "duration_s": video.duration_s or None,
        "creator": video.creator,
        "tags": video.tags,
        "not_after": _instant(video.available_until_s),
    }
    return orjson.dumps(known)[:-1]


def _instant(at_s: int) -> str | None:
    return None if at_s == OPEN_END_S else datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")


def _countries(video: Video) -> Array:
    return country_set(map(country_code, video.countries)) if video.countries else everywhere()


def _padded(hashes: list[int]) -> list[int]:
    return (hashes + [0] * CATEGORIES)[:CATEGORIES]


def _column(values: list[Any], dtype: str, width: int) -> Array:
    if not values:
        return np.zeros((0, width) if width else 0, dtype)
    return np.array(values, dtype)
