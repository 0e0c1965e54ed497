"""A page as it was answered, and how the stream and the archive write it down."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any, Final, NamedTuple

import orjson

from retrieval import keys

MOST_DOWN: Final = 1000
"""Take-downs that are listed with a page. They are few: those of the second or so until the next generation."""
_SURFACE: Final = re.compile(r"[a-z0-9_-]{1,32}", re.ASCII)
"""A word for a place in the app. The app chooses it, so anything else is not kept: it might name somebody."""


class ServedItem(NamedTuple):
    """One item of a page. `score`: the ranker's, None where it is no longer known (a later page of a frozen list).

    `propensity`: how likely this item was to be put there, None where that was not worked out.
    """

    item: int
    position: int
    reason: str
    score: float | None = None
    propensity: float | None = None


@dataclass(frozen=True, slots=True)
class Serve:
    """One page as it was answered: what is needed to learn from it, and to make it again (`service.replay`).

    The order of the fields is that of the stream's entries and of the archive's columns. user_key: None is anonymous.
    language, country, age_band: codes of `ranking.hints` as text, "" when not given. max_age: the ceiling, years.
    wanted: how many items were asked for. popularity: version of the popularity that was ranked by, "" for none.
    down: items that had been taken down since the generation was made; the first few if they are more than MOST_DOWN.
    chain: hex name of the cursor chain the page belongs to. seed: of the list it was cut from. journal_position:
    `retrieval.journal.position` of the journal its new items were chosen by, 0 when there are none.
    """

    tenant: str
    user_key: str | None
    request_id: str
    at_s: int
    mode: str
    surface: str
    generation: int
    policy_version: str
    seed: int
    journal_position: int
    language: str = ""
    country: str = ""
    age_band: str = ""
    max_age: int = 18
    wanted: int = 0
    popularity: str = ""
    down: Sequence[int] = ()
    chain: str = ""
    degraded: Sequence[str] = ()
    items: Sequence[ServedItem] = ()

    def row(self) -> tuple[Any, ...]:
        """The values as the stream and the archive keep them."""
        facts = list(_SERVE_VALUES(self))
        facts[_USER] = self.user_key or keys.ANONYMOUS
        facts[-1] = [tuple(one) for one in self.items]  # which are all that the encoder knows
        return tuple(facts)

    def encoded(self) -> bytes:
        """The same as JSON, for the stream; without a surface that is no word."""
        kept = self if _SURFACE.fullmatch(self.surface) or not self.surface else replace(self, surface="")
        return orjson.dumps(kept.row())

    @staticmethod
    def of(row: Sequence[Any]) -> Serve:
        """The page of a row. Raises TypeError for anything else."""
        facts = [*row[:-1], [ServedItem(*item) for item in row[-1]]]
        facts[_USER] = None if row[_USER] == keys.ANONYMOUS else row[_USER]
        return Serve(*facts)


SERVE_FIELDS: Final = tuple(one.name for one in fields(Serve))
_USER: Final = SERVE_FIELDS.index("user_key")
_SERVE_VALUES: Final = attrgetter(*SERVE_FIELDS)
