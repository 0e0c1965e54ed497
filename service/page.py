"""What a feed request asks, and the page that answers it. No HTTP here, and nothing that does anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from ranking.context import Context
from retrieval.flags import Mode
from retrieval.view import View
from service.cursor import Frozen
from service.governor import Effort
from service.ranked import Items, Ranked

MODES: Final = ("personalised", "cold_start", "holdout", "fallback", "killed")
"""What a page is. A cursor holds positions in this list."""
PERSONAL: Final = ("personalised", "cold_start")
CAUSES: Final = (
    "user_state_unavailable",
    "personalisation_off",
    "mode_changed",
    "cursor_restarted",
    "narrowed",
    "overloaded",
    "caps_relaxed",
    "empty_catalogue",
    "few_eligible",
    "all_seen",
    "hints_dropped",
)
"""What `Page.degraded` may say."""
CAUSE_OF: Final[Mapping[Effort, str]] = MappingProxyType({"narrow": "narrowed", "plain": "overloaded"})
"""What a page says for which less than everything was done."""


@dataclass(frozen=True)
class Asked:
    """What a request asks, checked and stripped of everything that names anybody.

    user_key: None is an anonymous user. key_id: of the key it came with. mode: what the flags say. `refresh` wants
    another order. `if_none_match` are the tags the client has. `dropped`: there was a hint that is on no list.
    `effort`: how much there is time for.
    """

    view: View
    user_key: str | None
    limit: int
    context: Context
    key_id: str = ""
    mode: Mode = "personalised"
    refresh: bool = False
    if_none_match: str | None = None
    dropped: bool = False
    effort: Effort = "whole"


@dataclass
class Page:
    """The answer, before it is JSON. `position` is that of its first item in the chain, `frozen` the list after this
    page, None at the end of everything.

    `unchanged` is a 304: the client's page is still right, and nothing else here is filled. `scores` are the ranker's,
    empty where a frozen list is read on; `propensities` the chance each item had; `journal_position` says from
    which state of the journal the list was made; `candidates` how many videos were left after a stage. `chain` and
    `seed` are those of the list; `listed` is the new list behind the page, None where a frozen one is read on.
    """

    mode: str
    items: Items
    reasons: Sequence[str]
    position: int = 0
    frozen: Frozen | None = None
    tag: str | None = None
    unchanged: bool = False
    degraded: list[str] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)
    scores: Sequence[float | None] = ()
    propensities: Sequence[float] = ()
    journal_position: int = 0
    candidates: Sequence[tuple[str, int]] = ()
    chain: bytes = b""
    seed: int = 0
    listed: Ranked | None = None
