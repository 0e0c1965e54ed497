"""Make `videos.jsonl.gz`, the demo's real videos, from the pyvideo data set. Needs pyarrow; run only to refresh it.

    python -m deploy.local.build_demo pyvideo.parquet

The same input gives the same bytes. Each line is one video as the API takes it, plus `tenant`. What is kept, what is
derived and from what is said in SOURCE.md; the tables below are all the rules there are.
"""

from __future__ import annotations

import gzip
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypedDict

import orjson

from deploy.local.demo_file import VIDEOS_FILE

DESCRIPTION_LIMIT_CHARS: Final = 600  # says what a talk is about; reading more of 2,700 talks makes a first run slow
DESCRIPTION_LEAST_CHARS: Final = 60  # shorter says nothing about the talk
DURATION_LIMIT_S: Final = 5 * 3600  # longer is a whole day's stream, not a talk
SLUG_LIMIT_CHARS: Final = 60
TAG_LIMIT: Final = 10
TOPIC_LIMIT: Final = 2

# tenant -> (how many videos at most, its event families: an event's name without the year)
SERIES: Final[dict[str, tuple[int, list[str]]]] = {
    "pycon-us": (800, ["pycon us"]),
    "europython": (500, ["europython"]),
    "scipy": (400, ["scipy", "euroscipy"]),
    "djangocon": (350, ["djangocon us", "djangocon europe"]),
    "pydata": (300, ["pydata berlin", "pydata london", "pydata amsterdam", "pydata seattle", "pydata la"]),
    "pycon-es": (200, ["pycon es"]),
    "pycon-fr": (150, ["pycon fr"]),
    "swiss-python": (25, ["swiss python summit"]),
}

# The data set's three-letter codes as ISO 639-1.
LANGUAGES: Final = {"slk": "sk", "lit": "lt", "tha": "th", "eus": "eu", "glg": "gl"}

# The kind of a video that is more than a plain talk: the first pattern found in its title or among its tags. A category
# that nearly every video has would tell nothing, and the cap on neighbours of one category could never be kept.
KINDS: Final[list[tuple[str, str]]] = [
    ("lightning talk", r"\blightning[ -]talks?\b|\bcharlas rel[aá]mpago\b|\bpr[ée]sentations? [ée]clairs?\b"),
    ("keynote", r"\bkeynotes?\b|\bplenary\b|\bpl[ée]ni[èe]re\b"),
    ("tutorial", r"\btutorials?\b|\bworkshops?\b|\btaller\b|\batelier\b"),
    ("panel", r"\bpanel\b|\btable ronde\b|\bmesa redonda\b"),
    ("poster", r"\bposters?\b"),
    ("ceremony", r"\b(opening|closing|welcome|announcements|clausura|ouverture|cl[oô]ture)\b"),
]

# Topics, at most two a video, in this order: patterns looked for in its title and tags.
TOPICS: Final[list[tuple[str, str]]] = [
    ("machine learning", r"machine.learning|deep.learning|\bneural|\bllms?\b|\bnlp\b|scikit|tensorflow|pytorch|\bai\b"),
    ("data", r"\bdata|pandas|polars|\bdask|analytics|\bspark\b|datos|donn[ée]es|\bjupyter|notebook"),
    ("science", r"scien(ce|tif)|astro|physics|bio|climate|geospatial|\bmaps?\b|simulation|numpy|scipy|bayes"),
    ("web", r"\bweb|flask|fastapi|\bhttp|\brest\b|\bapis?\b|graphql|wagtail|javascript|templates?\b|\bhtmx"),
    ("databases", r"\bsql|databases?|postgres|mongo|redis|\borm\b|queries|migrations"),
    ("testing", r"\btest|pytest|hypothesis|\bmock|\bdebug|quality|\btdd\b"),
    ("performance", r"perform|fast|speed|optimi|profil|parallel|async|concurren|\bgil\b|cython|numba|\brust\b|\bgpu"),
    ("operations", r"docker|kubernetes|deploy|devops|\bcloud|serverless|infrastruct|monitor|\bscal(e|ing)\b|packag"),
    ("security", r"secur|crypto|auth|password|privacy|attack|vulnerab|segur|s[ée]curit"),
    ("language", r"\btyp(e|es|ing|ed)\b|generators?|decorators?|metaclass|cpython|pypy|interpreter|\bpep\b|functional"),
    ("teaching", r"teach|educat|\blearn(ing)? (to|python)|beginner|student|school|\bkids|enseñ|[ée]ducation"),
    ("community", r"communit|divers|inclusi|women|mentor|career|open.source|contribut|maintain|comunidad|communaut"),
    ("things", r"hardware|raspberry|micropython|circuitpython|robot|\biot\b|arduino|games?\b|music|\bart\b"),
]

_YEAR = re.compile(r"[\s\-']*\b(19|20)\d\d\b\s*")
_YOUTUBE = re.compile(r"(?:youtube\.com/watch\?v=|youtu\.be/|youtube\.com/embed/)([\w-]{11})")
_EVENT_SUFFIX = re.compile(r" +[|-] +[A-Za-z ]{4,12} 20\d\d$")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")


class DemoVideo(TypedDict):
    """One line of the file: a video as the catalogue takes it, and whose it is."""

    tenant: str
    id: str
    title: str
    description: str
    tags: list[str]
    categories: list[str]
    creator: str | None
    playlists: list[str]
    language: str | None
    countries: list[str]
    ratings: list[dict[str, str]]
    media_url: str
    poster_url: str | None
    duration_s: int
    published_at: str


Row = Mapping[str, Any]


def family(event: str) -> str:
    """An event's series: its name without the year, in small letters."""
    return _YEAR.sub(" ", event).strip().lower()


def slug(text: str) -> str:
    """Small letters, digits and single hyphens, cut after a whole word."""
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if len(words) <= SLUG_LIMIT_CHARS:
        return words
    return words[:SLUG_LIMIT_CHARS].rpartition("-")[0]


def media(url: str) -> tuple[str, str | None]:
    """(where the video is, its poster): YouTube links in one spelling, with the poster YouTube serves for it."""
    if found := _YOUTUBE.search(url):
        key = found.group(1)
        return f"https://www.youtube.com/watch?v={key}", f"https://i.ytimg.com/vi/{key}/hqdefault.jpg"
    return url, None


def shortened(description: str) -> str:
    """The beginning of a description, without e-mail addresses, cut after a whole word."""
    text = _EMAIL.sub("", description).strip()
    if len(text) <= DESCRIPTION_LIMIT_CHARS:
        return text
    return text[:DESCRIPTION_LIMIT_CHARS].rsplit(maxsplit=1)[0] + " …"


def tags_of(row: Row) -> list[str]:
    """The speaker's own tags; those that only repeat the event's name are left out."""
    event = re.sub(r"[^a-z]", "", family(row["event"]))
    kept = dict.fromkeys(" ".join(tag.lower().split()) for tag in row["tags"] or [])
    return [tag for tag in kept if tag and not re.sub(r"[^a-z]", "", tag).startswith(event)][:TAG_LIMIT]


def categories_of(row: Row) -> list[str]:
    """Its kind, unless it is a plain talk, and up to two topics."""
    text = " ".join([row["title"], *(row["tags"] or [])]).lower()
    kinds = [name for name, pattern in KINDS if re.search(pattern, text)]
    topics = [name for name, pattern in TOPICS if re.search(pattern, text)]
    return kinds[:1] + topics[:TOPIC_LIMIT]


def usable(row: Row) -> bool:
    """Says what it is about, has a date and a plain public address, and is one talk."""
    return (
        len(row["description"] or "") >= DESCRIPTION_LEAST_CHARS
        and isinstance(row["published_at"], datetime)
        and "Signature=" not in row["url"]
        and (row["duration_s"] or 0) <= DURATION_LIMIT_S
    )


def as_video(tenant: str, row: Row) -> DemoVideo:
    """One row of the data set as one video of the catalogue."""
    url, poster = media(row["url"])
    language = row["language"]
    return DemoVideo(
        tenant=tenant,
        id=slug(row["video_id"].rpartition("/")[2]),
        title=" ".join(_EVENT_SUFFIX.sub("", row["title"]).split()),
        description=shortened(row["description"]),
        tags=tags_of(row),
        categories=categories_of(row),
        creator=(row["speakers"] or [None])[0],
        playlists=[slug(row["event"])],
        language=LANGUAGES.get(language, language),
        countries=[],
        ratings=[{"system": "age", "value": "0"}],
        media_url=url,
        poster_url=poster,
        duration_s=row["duration_s"] or 0,
        published_at=row["published_at"].isoformat() + "Z",
    )


def choose(rows: Iterable[Row]) -> list[DemoVideo]:
    """The newest usable videos of each tenant's series, every address and every id once per tenant."""
    by_family: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if usable(row):
            by_family[family(row["event"])].append(row)
    chosen: list[DemoVideo] = []
    for tenant, (limit, families) in SERIES.items():
        of_tenant = [row for name in families for row in by_family[name]]
        of_tenant.sort(key=lambda row: (-row["published_at"].timestamp(), row["video_id"]))
        chosen += _distinct(as_video(tenant, row) for row in of_tenant)[:limit]
    return chosen


def _distinct(videos: Iterable[DemoVideo]) -> list[DemoVideo]:
    by_url: dict[str, DemoVideo] = {}
    seen: Counter[str] = Counter()
    for video in videos:
        if video["media_url"] in by_url:
            continue
        seen[video["id"]] += 1
        if seen[video["id"]] > 1:
            video["id"] = f"{video['id']}-{seen[video['id']]}"
        by_url[video["media_url"]] = video
    return list(by_url.values())


def main(parquet: Path) -> None:
    """Read the data set, write the demo file, say what is in it."""
    from pyarrow.parquet import read_table  # only the person who refreshes the demo needs it

    videos = choose(read_table(parquet).to_pylist())
    lines = b"".join(orjson.dumps(video) + b"\n" for video in videos)
    VIDEOS_FILE.write_bytes(gzip.compress(lines, compresslevel=9, mtime=0))
    for tenant, count in Counter(video["tenant"] for video in videos).items():
        print(f"{tenant:16} {count:5} videos")
    print(f"{VIDEOS_FILE.name}: {VIDEOS_FILE.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
