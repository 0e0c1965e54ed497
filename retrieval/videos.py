"""A video: what the CMS may send, how a batch of it is checked, what is kept, and what of it is embedded."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Annotated, Final, Literal, Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from ranking.hints import COUNTRIES, LANGUAGES
from retrieval.errors import Problem

OPEN_START_S: Final = 0
OPEN_END_S: Final = 2**63 - 1
"""`available_from_s` and `available_until_s` of a video without that limit."""

SHOWN_CHARS: Final = 40
MAX_PROBLEMS: Final = 20
"""An answer repeats at most so much of a refused value, and names at most so many problems of one video."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MESSAGES = {  # where pydantic's own words speak of Python, or say less than the caller needs
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "model_type": "must be an object",
    "string_unicode": "has a lone surrogate, which is no character",
}


def _check_text(value: str) -> str:
    if found := _CONTROL.search(value):
        raise PydanticCustomError(
            "control_character",
            "has U+{code} at character {position}; of the control characters only tab and line breaks are allowed",
            {"code": f"{ord(found.group()):04X}", "position": found.start()},
        )
    return value


def _check_id(value: str) -> str:
    if value != value.strip() or any(char in value for char in "\t\n\r"):
        raise PydanticCustomError("id", "must have no line breaks or tabs, and no space at its ends")
    return value


def _check_language(value: str) -> str:
    if value not in LANGUAGES:
        raise PydanticCustomError("language", "{shown} is not an ISO 639-1 code like en", {"shown": _shown(value)})
    return value


def _check_country(value: str) -> str:
    if value not in COUNTRIES:
        allowed = "{shown} is not an ISO 3166-1 alpha-2 code like DE"
        raise PydanticCustomError("country", allowed, {"shown": _shown(value)})
    return value


def _check_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        # Reading the port is what checks it.
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or any(char.isspace() for char in value):
        raise PydanticCustomError("url", "{shown} is not an http or https URL", {"shown": _shown(value)})
    return value


def _to_seconds(value: object) -> int:
    problem = "must be a time like 2026-11-22T12:00:00Z or 2026-11-22T13:00:00+01:00, from 1970 on"
    if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
        raise PydanticCustomError("timestamp", problem)
    try:
        moment = datetime.fromisoformat(value.upper())
    except ValueError as error:  # the 30th of February, a leap second
        raise PydanticCustomError("timestamp", problem) from error
    if moment < _EPOCH:
        raise PydanticCustomError("timestamp", problem)
    return int((moment - _EPOCH).total_seconds())


def _check_direction(values: list[float]) -> list[float]:
    if not any(unit_vector(values)):
        raise PydanticCustomError("zero_vector", "must not be all zero: it has no direction")
    return values


Id = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_text), AfterValidator(_check_id)]
Title = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_check_text)]
Description = Annotated[str, Field(max_length=20_000), AfterValidator(_check_text)]
Transcript = Annotated[str, Field(max_length=100_000), AfterValidator(_check_text)]
Tag = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_check_text)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_text)]
Short = Annotated[str, Field(min_length=1, max_length=50), AfterValidator(_check_text)]
Language = Annotated[str, Field(max_length=50), AfterValidator(_check_text), AfterValidator(_check_language)]
Country = Annotated[str, Field(max_length=50), AfterValidator(_check_text), AfterValidator(_check_country)]
Url = Annotated[str, Field(max_length=2048), AfterValidator(_check_text), AfterValidator(_check_url)]
Timestamp = Annotated[
    int, BeforeValidator(_to_seconds), WithJsonSchema({"type": "string", "format": "date-time"}, mode="validation")
]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Rating(BaseModel):
    """A maturity rating in one system, such as FSK 12."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    system: Short
    value: Short


class VideoIn(BaseModel):
    """A video as the CMS sends it. Strict: no field is guessed, converted or dropped.

    Times are RFC 3339 with an offset in JSON (`published_at`) and unix seconds here (`published_s`).
    `published_at` left out means the moment the video is first seen.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, title="Video")

    id: Id
    title: Title
    media_url: Url
    description: Description = ""
    transcript: Transcript = ""
    tags: Annotated[list[Tag], Field(max_length=50)] = []
    categories: Annotated[list[Tag], Field(max_length=4)] = []
    creator: Name | None = None
    playlists: Annotated[list[Name], Field(max_length=50)] = []
    language: Language | None = Field(None, description="ISO 639-1")
    countries: Annotated[list[Country], Field(max_length=len(COUNTRIES))] = Field(
        [], description="ISO 3166-1 alpha-2; empty = everywhere"
    )
    ratings: Annotated[list[Rating], Field(max_length=8)] = []
    poster_url: Url | None = None
    duration_s: Annotated[int, Field(ge=0, le=86_400)] = Field(0, description="0 = unknown")
    published_s: Timestamp | None = Field(None, alias="published_at")
    available_from_s: Timestamp | None = Field(None, alias="available_from")
    available_until_s: Timestamp | None = Field(None, alias="available_until")
    status: Literal["published", "draft"] = "published"
    vector: Annotated[list[Finite], Field(min_length=1, max_length=8192), AfterValidator(_check_direction)] | None = (
        Field(None, description="the CMS's own embedding, in place of one made from the text")
    )

    @field_validator("available_until_s")
    @classmethod
    def _after_start(cls, until_s: int | None, info: ValidationInfo) -> int | None:
        start_s = info.data.get("available_from_s")
        if start_s is not None and until_s is not None and until_s <= start_s:
            raise PydanticCustomError("availability", "must be later than available_from")
        return until_s


@dataclass(frozen=True, slots=True)
class Video:
    """A video as it is kept; times are unix seconds.

    `item` is its number for ever, `version` the tenant's version that last changed it. `vector` is the CMS's own,
    float32[d], unit length. `text_hash` (bytes[16]) changes exactly when the item's vector has to. `quarantine` says
    why its text could not be embedded.
    """

    item: int
    id: str
    title: str
    description: str
    transcript: str
    tags: tuple[str, ...]
    categories: tuple[str, ...]
    creator: str | None
    playlists: tuple[str, ...]
    language: str | None
    countries: tuple[str, ...]
    ratings: tuple[Rating, ...]
    media_url: str
    poster_url: str | None
    duration_s: int
    published_s: int
    available_from_s: int
    available_until_s: int
    status: Literal["published", "draft", "removed"]
    vector: NDArray[np.float32] | None
    text_hash: bytes
    version: int
    quarantine: str | None
    created_s: int
    updated_s: int


class Worded(Protocol):
    """Anything with the words of a video: `VideoIn` and `Video`."""

    @property
    def title(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def transcript(self) -> str: ...
    @property
    def tags(self) -> Sequence[str]: ...


def embedded_text(video: Worded) -> str:
    """The one place that says what of a video is embedded: title, tags, description, transcript, one per line.

    The short and dense fields come first, because an encoder reads only the beginning of a long text. Whoever changes
    this must also give every stored row a new `text_hash` (a migration), or nothing is embedded again.
    """
    parts = (video.title, ", ".join(video.tags), video.description, video.transcript)
    return "\n".join(part.strip() for part in parts if part.strip())


def text_hash(text: str) -> bytes:
    """bytes[16] that names a text in the vector cache."""
    return blake2b(text.encode(), digest_size=16).digest()


def vector_hash(vector: NDArray[np.float32]) -> bytes:
    """bytes[16] that takes the place of `text_hash` for a video with its own vector: a new vector is a change."""
    return blake2b(vector.tobytes(), digest_size=16, person=b"own vector").digest()


def unit_vector(values: Sequence[float]) -> NDArray[np.float32]:
    """`values` scaled to length 1, float32[d]; all zero stays all zero. Values are finite, of any magnitude."""
    vector = np.asarray(values, np.float64)
    largest = np.abs(vector).max(initial=0.0)
    if largest == 0.0:
        return vector.astype(np.float32)
    vector = vector / largest  # before squaring, which would overflow or vanish for extreme values
    unit: NDArray[np.float64] = vector / np.linalg.norm(vector)
    return unit.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A video that may be stored; `index` is its place in the batch."""

    index: int
    video: VideoIn


@dataclass(frozen=True, slots=True)
class Rejected:
    """A video that may not; `id` only when it could be read, pointers are relative to the item. Never no problems."""

    index: int
    id: str | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Parsed:
    """A batch after checking: every input is in exactly one of the two, in the order of the batch."""

    accepted: list[Accepted]
    rejected: list[Rejected]


def parse_videos(raw: Sequence[object], dim: int) -> Parsed:
    """Check a batch of decoded JSON values, each by itself. Never raises for any of them.

    `dim` is the length a video's own vector must have. An id that comes twice is ambiguous: all its copies are
    rejected.
    """
    ids = [_usable_id(value) for value in raw]
    copies = Counter(ids)
    parsed = Parsed([], [])
    for index, (value, video_id) in enumerate(zip(raw, ids, strict=True)):
        video, problems = _parse(value, dim)
        if video_id is not None and copies[video_id] > 1:
            problems.append(Problem("/id", f"comes {copies[video_id]} times in this batch; once is allowed"))
        if video is None or problems:
            parsed.rejected.append(Rejected(index, video_id, tuple(problems[:MAX_PROBLEMS])))
        else:
            parsed.accepted.append(Accepted(index, video))
    return parsed


def _parse(value: object, dim: int) -> tuple[VideoIn | None, list[Problem]]:
    try:
        video = VideoIn.model_validate(value)
    except ValidationError as error:
        return None, [_problem(detail) for detail in error.errors(include_url=False, include_input=False)]
    if video.vector is not None and len(video.vector) != dim:
        return None, [Problem("/vector", f"has {len(video.vector)} numbers; {dim} are expected")]
    return video, []


def _usable_id(value: object) -> str | None:
    video_id = value.get("id") if isinstance(value, dict) else None
    if not isinstance(video_id, str) or not 1 <= len(video_id) <= 200:
        return None
    try:
        return _check_id(_check_text(video_id))
    except PydanticCustomError:
        return None


def _problem(detail: ErrorDetails) -> Problem:
    pointer = "".join("/" + _pointer_token(part) for part in detail["loc"])
    return Problem(pointer, _MESSAGES.get(detail["type"], detail["msg"]))


def _pointer_token(part: int | str) -> str:
    shown = str(part)[:SHOWN_CHARS]
    return shown.replace("~", "~0").replace("/", "~1")


def _shown(value: str) -> str:
    return repr(value[:SHOWN_CHARS]) + ("…" if len(value) > SHOWN_CHARS else "")
