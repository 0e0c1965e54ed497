"""Pages cut from lists: the first items of a new one, the next ones of one that is frozen. No stores here.

A cursor carries the list and how far it has been read, see `service.cursor.Frozen`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ranking.rank import REASONS, Ranking
from retrieval.masks import Mask, is_set
from retrieval.taste import Memory
from retrieval.view import View
from service.cursor import Frozen
from service.page import CAUSE_OF, MODES, Asked, Page
from service.ranked import BREADTH, NO_ITEMS, Items, ranked


def begin(
    asked: Asked,
    memory: Memory,
    lap: Callable[[str], None],
    chain: bytes,
    *,
    without: Items = NO_ITEMS,
    before: int = 0,
    mode: str | None = None,
) -> Page:
    """The first `limit` items of a new list of a chain, and the list frozen behind them.

    `lap` is told when a stage ends. `without` are the items that the chain has had, `before` how many they are; `mode`
    None: as the taste says.
    """
    breadth = BREADTH[asked.effort]
    listed = ranked(asked.view, memory, asked.context, asked.limit, without=without, breadth=breadth, lap=lap)
    mode = mode or ("personalised" if listed.is_personal else "cold_start")
    items, reasons, chance = listed.items, listed.ranking.reason, listed.chance
    frozen = Frozen(
        chain=chain,
        made_s=asked.context.now_s,
        seed=asked.context.seed,
        mode=MODES.index(mode),
        chance=chance,
        before=before,
        offset=min(asked.limit, len(items)),
        final=listed.final,
        items=items,
        reasons=reasons,
    )
    words = _words(reasons[: asked.limit])
    return Page(
        mode=mode,
        items=items[: asked.limit],
        reasons=words,
        frozen=frozen if frozen.left or not frozen.final else None,
        degraded=_shortcomings(listed.ranking, asked, memory),
        scores=listed.ranking.score[listed.ranking.rows[: asked.limit]].tolist(),
        propensities=_propensities(words, chance),
        candidates=(("retrieve", len(listed.candidates)), ("rank", len(items))),
        chain=chain,
        seed=asked.context.seed,
        listed=listed,
    )


def read_on(asked: Asked, frozen: Frozen) -> Page:
    """The next items of a list that may still be shown, with the list after them."""
    items, most = frozen.items[frozen.offset :], asked.limit
    allowed = asked.view.allowed(asked.view.policy.book.plan(asked.context), asked.context)
    good = _good(items[: 2 * most], asked.view, allowed)[:most]
    if len(good) < most:  # rarely: the first few of a list are nearly always as good as when it was made
        good = _good(items, asked.view, allowed)[:most]
    offset = frozen.offset + (int(good[-1]) + 1 if len(good) == most else len(items))
    reasons = _words(frozen.reasons[frozen.offset :][good])
    return Page(
        MODES[frozen.mode],
        items[good],
        reasons,
        position=frozen.before + frozen.offset,
        frozen=frozen._replace(offset=offset) if offset < len(frozen.items) or not frozen.final else None,
        propensities=_propensities(reasons, frozen.chance),
        chain=frozen.chain,
        seed=frozen.seed,
    )


def _good(items: Items, view: View, allowed: Mask) -> npt.NDArray[np.intp]:
    """Positions of the items that may be shown."""
    return np.flatnonzero(is_set(allowed, view.snapshot.rows(items)))


def _words(reasons: npt.NDArray[np.uint8]) -> list[str]:
    return [REASONS[reason] for reason in reasons.tolist()]


def _propensities(reasons: Sequence[str], chance: float) -> list[float]:
    return [chance if reason == "explore" else 1.0 for reason in reasons]


def _shortcomings(ranking: Ranking, asked: Asked, memory: Memory) -> list[str]:
    """Why the page is not what it should be, if it is not."""
    said = ["caps_relaxed"] if ranking.relaxed else []
    if cause := CAUSE_OF.get(asked.effort):
        said.append(cause)
    if asked.dropped:
        said.append("hints_dropped")
    if not asked.view.snapshot.n_items:
        return [*said, "empty_catalogue"]
    if len(ranking.rows) < asked.limit:
        said.append("all_seen" if len(memory.seen) else "few_eligible")
    return said
