"""Why is an item where it is, and why is another one not there? Pure functions of one ranking.

Everything is read off the same arrays that made the page; nothing is worked out a second way that could disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson

from ranking.eligibility import Removed, eligible
from ranking.features import FEATURES
from ranking.rank import REASONS, diverse
from ranking.rules import Boost, Bury, Rule
from ranking.slate import PlacedBy
from retrieval.serves import ServedItem
from retrieval.sources import SOURCES, describe
from retrieval.view import View
from service.ranked import Ranked

WHY_NOT: Final = {
    Removed.NOT_LIVE: "it is not published, or taken down",
    Removed.NOT_YET: "it is not available yet",
    Removed.EXPIRED: "it is no longer available",
    Removed.COUNTRY: "it may not be shown in the country of the request",
    Removed.MATURITY: "its maturity is above the ceiling of the request",
    Removed.BLOCKED: "a rule blocks it",
    Removed.NOT_REQUIRED: "a rule requires something else",
    Removed.REJECTED: "the user said not to want it",
    Removed.SEEN: "the user has seen it",
    Removed.CAPPED: "no place without breaking a cap",
    Removed.NO_ROOM: "the list was full with better ones",
}
"""`Removed` in words."""


class Explainer:
    """Explains the items of one ranking."""

    def __init__(self, run: Ranked) -> None:
        self.run = run
        self._source_ranks = {
            name: {row: rank for rank, row in enumerate(source(run.ask).tolist(), 1)}
            for name, source in SOURCES.items()
        }
        ranking = run.ranking
        self._after_score = _ranks(ranking.order)
        kept = np.sort(ranking.order)
        self._before_rules = _ranks(kept[np.lexsort((run.candidates.item[kept], -ranking.base[kept]))])
        self._after_diversity = _ranks(diverse(ranking.order, run.candidates, run.view.policy))
        self._slot_of = {row: slot for slot, row in enumerate(ranking.rows.tolist())}

    def page(self) -> list[dict[str, Any]]:
        """Every item of the first page, in order."""
        return [self.item(row) for row in self.run.ranking.rows[: self.run.limit].tolist()]

    def item(self, row: int) -> dict[str, Any]:
        """One candidate (a row of `candidates`): where it came from, what it scored and why, what was done to it."""
        run, ranking = self.run, self.run.ranking
        slot = self._slot_of.get(row)
        score = float(ranking.score[row])
        explained: dict[str, Any] = {
            "id": video_id(run, row),
            "position": slot,
            "reason": None if slot is None else REASONS[ranking.reason[slot]],
            "placed_by": None if slot is None else PlacedBy(ranking.placed_by[slot]).name.lower(),
            "score": _rounded(score),
            "sources": self._sources(row),
            "similarity": _rounded(run.candidates.similarity[row]),
            "features": self._features(row),
            "base": _rounded(ranking.base[row]),
            "factor": _rounded(ranking.factor[row]),
            "rules": self._rules(row, slot),
            "ranks": {
                "by_features": self._before_rules.get(row),
                "after_boost_and_bury": self._after_score.get(row),
                "after_diversity": self._after_diversity.get(row),
                "final": None if slot is None else slot + 1,
            },
        }
        removed = Removed(int(ranking.removed[row]))
        if removed:
            explained["missing"] = {"code": removed.name.lower(), "why": self._why(removed, row)}
        return explained

    def missing(self, wanted: str) -> dict[str, Any]:
        """Any item by its video id: where it stands, or why it does not."""
        item = self.run.view.snapshot.find(wanted)
        if item is None:
            return _absent(wanted, "not_indexed", "no published video of this id is in the index (yet)")
        return self.numbered(item)

    def numbered(self, item: int) -> dict[str, Any]:
        """Any item by its number, like `missing`."""
        run = self.run
        (rows,) = np.nonzero(run.candidates.item == item)
        if len(rows):
            return self.item(int(rows[0]))
        (row,) = run.view.snapshot.rows(np.array([item], np.uint32)).tolist()
        if row < 0:
            return _absent(f"#{item}", "not_indexed", "it has left the index since")
        wanted = _id_at(run, row)
        one = describe(run.ask, run.view.snapshot.rows(np.array([item], np.uint32)), np.zeros(1, np.uint8))
        removed = Removed(int(eligible(one, run.ask.plan, run.context, run.view.policy.limits.max_age)[0]))
        if removed:
            return _absent(wanted, removed.name.lower(), self._reason_for(removed, one.targets[0]))
        similarity = _rounded(one.similarity[0])
        return _absent(
            wanted,
            "no_source",
            f"no source brought it: similarity {similarity}, not among the nearest, the popular, the new or the drawn",
            similarity=similarity,
        )

    def _sources(self, row: int) -> list[dict[str, Any]]:
        at = int(self.run.view.snapshot.rows(self.run.candidates.item[[row]])[0])
        ranks = self._source_ranks.items()
        found: list[dict[str, Any]] = [{"source": name, "rank": rank[at]} for name, rank in ranks if at in rank]
        return found or [{"source": "filled_up", "rank": None}]

    def _features(self, row: int) -> list[dict[str, Any]]:
        policy = self.run.view.policy
        return [
            {
                "feature": name,
                "value": _rounded(contribution / policy.weights[name]) if policy.weights[name] else None,
                "weight": policy.weights[name],
                "weight_from": policy.provenance[f"/weights/{name}"],
                "contribution": _rounded(contribution),
            }
            for name, contribution in zip(FEATURES, self.run.ranking.contributions[row].tolist(), strict=True)
        ]

    def _rules(self, row: int, slot: int | None) -> list[dict[str, Any]]:
        """The acting rules that aim at the item, and what each did to it."""
        run = self.run
        acted = [
            self._acted(index, run.view.policy.rules[index], row, slot)
            for index in run.ask.plan.active
            if run.candidates.targets[row, index]
        ]
        return [one for one in acted if one]

    def _acted(self, index: int, rule: Rule, row: int, slot: int | None) -> dict[str, Any]:
        ranking = self.run.ranking
        said: dict[str, Any] = {"rule": rule.id, "kind": rule.kind, "layer": rule.layer, "why": rule.reason}
        if isinstance(rule.effect, Boost | Bury):
            before, after = self._before_rules.get(row), self._after_score.get(row)
            score = {"score_before": _rounded(ranking.base[row]), "score_after": _rounded(ranking.score[row])}
            return said | {"factor": rule.effect.factor, "rank_before": before, "rank_after": after} | score
        if slot is not None and ranking.rule[slot] == index:
            return said | {"rank_before": self._after_diversity.get(row), "rank_after": slot + 1}
        return said

    def _why(self, removed: Removed, row: int) -> str:
        if removed is Removed.CAPPED:
            caps = ", ".join(cap.name for cap in self.run.ask.plan.caps)
            return f"{WHY_NOT[removed]} (in force: {caps})"
        if removed is Removed.NO_ROOM:
            last = float(self.run.ranking.score[self.run.ranking.rows[-1]]) if len(self.run.ranking.rows) else 0.0
            return f"{WHY_NOT[removed]}; the last one had {_rounded(last)}"
        return self._reason_for(removed, self.run.candidates.targets[row])

    def _reason_for(self, removed: Removed, targets: np.ndarray[Any, Any]) -> str:
        plan, rules = self.run.ask.plan, self.run.view.policy.rules
        if removed is Removed.BLOCKED:
            return f"{WHY_NOT[removed]}: " + ", ".join(rules[i].id for i in plan.block if targets[i])
        if removed is Removed.NOT_REQUIRED:
            return f"{WHY_NOT[removed]}: " + ", ".join(rules[i].id for i in plan.require if not targets[i])
        return WHY_NOT[removed]


def explained(run: Ranked, items: Sequence[ServedItem] | None, wanted: Sequence[str]) -> dict[str, Any]:
    """The first page of a ranking, or these items at the positions they were served at; and why each wanted video
    stands where it does, or nowhere."""
    explainer = Explainer(run)
    if items is None:
        page = explainer.page()
    else:
        page = [{**explainer.numbered(one.item), "position": one.position} for one in items]
    return {"items": page, "asked_about": [explainer.missing(one) for one in wanted]}


def video_ids(view: View, items: Sequence[int]) -> list[str]:
    """The ids of item numbers; #NUMBER of one that is not in this index."""
    rows = view.snapshot.rows(np.array(items, np.uint32))
    found = dict(zip(rows[rows >= 0].tolist(), view.snapshot.cards(rows[rows >= 0]), strict=True))
    return [
        orjson.loads(found[row] + b"}")["id"] if row >= 0 else f"#{item}"
        for row, item in zip(rows.tolist(), items, strict=True)
    ]


def video_id(run: Ranked, row: int) -> str:
    """The id of a candidate, from its card."""
    return _id_at(run, int(run.view.snapshot.rows(run.candidates.item[[row]])[0]))


def _id_at(run: Ranked, row: int) -> str:
    """The id of a row of the snapshot."""
    (card,) = run.view.snapshot.cards(np.array([row]))
    name: str = orjson.loads(card + b"}")["id"]
    return name


def _absent(wanted: str, code: str, why: str, **more: Any) -> dict[str, Any]:
    return {"id": wanted, "position": None, "missing": {"code": code, "why": why}, **more}


def _ranks(order: np.ndarray[Any, Any]) -> dict[int, int]:
    return {row: rank for rank, row in enumerate(order.tolist(), 1)}


def _rounded(value: float | np.floating[Any]) -> float | None:
    """Five digits are enough to read; what cannot be scored is null."""
    return round(float(value), 5) if np.isfinite(value) else None
