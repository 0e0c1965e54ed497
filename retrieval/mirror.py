"""Making a catalogue what a list says: batch by batch what is new or different, and at the end what is missing.

The same for a file (`python -m service import --mirror`) and for a CMS's own listing (`indexer/listings.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from retrieval.catalogue import Catalogue
from retrieval.errors import FeedError
from retrieval.videos import Video, parse_videos

BATCH: Final = 1_000
MAX_SHOWN: Final = 20
FEW: Final = 10
"""So many videos may always vanish: a share of a handful says nothing."""


class TooManyGone(FeedError):
    """The list lacks more videos than may vanish at once; none was taken down."""


@dataclass
class Mirror:
    """One run over a list. `counts`: created, updated, unchanged, refused, removed; `problems`: the first of the
    refused ones as (line, id, what is wrong).

    newer: which of these ids were changed since the list was made; their videos stay as they are. made_s: when that
    was, unix seconds; a missing video that was changed here since is not taken down.
    """

    catalogue: Catalogue
    tenant: str
    dim: int
    now_s: int
    newer: Callable[[Sequence[str]], Awaitable[Collection[str]]] | None = None
    made_s: int | None = None
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("created", "updated", "unchanged", "refused", "removed"), 0)
    )
    problems: list[tuple[int, str | None, str]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    async def add(self, lines: Sequence[tuple[int, Any]]) -> None:
        """Store the decoded values of numbered lines, at most BATCH. Of a video that comes twice the last line counts.

        Raises NotFound, StoreUnavailable.
        """
        values = {value["id"] if _named(value) else number: (number, value) for number, value in lines}
        newer = await self._newer([name for name in values if isinstance(name, str)])
        self.seen |= newer
        values = {name: one for name, one in values.items() if name not in newer}
        places = [number for number, _ in values.values()]
        parsed = parse_videos([value for _, value in values.values()], self.dim)
        for rejected in parsed.rejected:
            self.counts["refused"] += 1
            said = "; ".join(f"{problem.pointer} {problem.message}" for problem in rejected.problems)
            if len(self.problems) < MAX_SHOWN:
                self.problems.append((places[rejected.index], rejected.id, said))
        # A line that cannot be read says at least that its video is still there.
        self.seen |= {one.video.id for one in parsed.accepted} | {one.id for one in parsed.rejected if one.id}
        stored = await self.catalogue.upsert(self.tenant, [one.video for one in parsed.accepted], self.now_s)
        for outcome in stored.outcomes:
            self.counts[outcome] += 1

    async def take_down_missing(self, *, most_percent: float = 100.0) -> None:
        """Take down every video that was not on the list.

        Raises TooManyGone when that would be more than `most_percent` of what is there (and more than FEW), and
        StoreUnavailable.
        """
        missing, there, after = list[str](), 0, ""
        while page := await self.catalogue.page(self.tenant, after, BATCH):
            after = page[-1].id
            standing = [video for video in page if video.status != "removed"]
            there += len(standing)
            absent = [video.id for video in standing if video.id not in self.seen and self._is_older(video)]
            newer = await self._newer(absent)
            missing += [name for name in absent if name not in newer]
        if len(missing) > FEW and 100 * len(missing) > most_percent * there:
            raise TooManyGone(
                f"{len(missing)} of {there} videos are not on the list; {most_percent:.0f} % may vanish at once"
            )
        for first in range(0, len(missing), BATCH):
            await self.catalogue.remove(self.tenant, missing[first : first + BATCH], self.now_s)
        self.counts["removed"] += len(missing)

    def _is_older(self, video: Video) -> bool:
        return self.made_s is None or video.updated_s < self.made_s

    async def _newer(self, ids: Sequence[str]) -> set[str]:
        return set(await self.newer(ids)) if self.newer is not None and ids else set()


def _named(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("id"), str)
