"""A view: one tenant's snapshot under its policy, with everything that can be worked out before a request comes.

Views are immutable and swapped whole. What depends on a segment and the policy alone is kept per segment, so that a
publish which only changes the small fresh segment leaves the work done for the large base as it is.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ranking.columns import OPEN_UNTIL_S
from ranking.context import Context
from ranking.features import DEFAULT_WEIGHTS
from ranking.policy import Policy, with_learned
from ranking.rulebook import Plan
from ranking.rules import Pin, Promote, target_masks
from retrieval.counters import Popularity
from retrieval.masks import KeptMasks, Mask, clear, is_set
from retrieval.rows import Array
from retrieval.segment import Segment
from retrieval.snapshot import Snapshot
from retrieval.tenants import Tenant

Rows = npt.NDArray[np.int64]

HEAD = 2000
"""Rows kept of an order over the whole catalogue (newest, most popular); who has seen them all causes a full scan."""
EDITORIAL_HEAD = 256
"""Rows kept of what a pin or promotion aims at, the newest."""
WINDOWS = ("rising", "trending", "popularity", "evergreen")
"""Features that count what everybody does, in the order of `Popularity.table`."""
_COUNTED_BY_DEFAULT = np.array([DEFAULT_WEIGHTS[name] > 0 for name in WINDOWS], np.float32)


class SegmentUnderPolicy:
    """A segment with the rules of a policy aimed at it: the same for all policies of which `_same_rows` holds."""

    def __init__(self, segment: Segment, policy: Policy) -> None:
        self.segment = segment
        self.availability = segment.availability
        self.policy = policy
        masks = target_masks(policy.rules, segment.items)
        self.targets = np.packbits(masks, axis=1, bitorder="little")
        editorial = [r for r, rule in enumerate(policy.rules) if isinstance(rule.effect, Pin | Promote)]
        self.aimed_at: dict[int, Rows] = {r: _newest(segment, np.flatnonzero(masks[:, r])) for r in editorial}
        self._masks = KeptMasks()

    @cached_property
    def newest(self) -> Rows:
        """Local rows by publication, newest first: the first HEAD."""
        return _newest(self.segment, np.arange(len(self.segment)))

    def targeted_by_any(self, rules: Sequence[int]) -> npt.NDArray[np.bool_]:
        """bool[n]: at least one of `rules` (indexes in the policy, not empty) aims at the row."""
        return functools.reduce(np.logical_or, [self._targeted_by(rule) for rule in rules])

    def targeted_by_all(self, rules: Sequence[int]) -> npt.NDArray[np.bool_]:
        """bool[n]: every one of `rules` (not empty) aims at the row."""
        return functools.reduce(np.logical_and, [self._targeted_by(rule) for rule in rules])

    def allowed(self, plan: Plan, context: Context) -> Mask:
        """Rows that may be shown to anybody asking like this, whether they live or not: what `ranking.eligibility`
        would say of each."""
        mask = self.availability.mask(context, self.policy.limits.max_age)
        if plan.block:
            mask &= self._masks.of(("block", plan.block), lambda: ~self.targeted_by_any(plan.block))
        if plan.require:
            mask &= self._masks.of(("require", plan.require), lambda: self.targeted_by_all(plan.require))
        return mask

    def _targeted_by(self, rule: int) -> npt.NDArray[np.bool_]:
        bits: npt.NDArray[np.bool_] = (self.targets[:, rule >> 3] >> (rule & 7) & 1).astype(bool)
        return bits


@dataclass(frozen=True)
class View:
    """What a request of one tenant works with, from its beginning to its end."""

    tenant: Tenant
    policy: Policy
    policy_version: str
    snapshot: Snapshot
    popularity: Popularity
    parts: tuple[SegmentUnderPolicy, ...]
    down: npt.NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    given: Policy | None = None
    """The policy as people gave it; in `policy`, what was learned fills in what they left open."""
    arms: dict[str, View] = field(default_factory=dict, repr=False)
    """The same under the policy of each arm of the tenant's experiment, by the arm's name."""
    _masks: KeptMasks = field(default_factory=KeptMasks, repr=False)
    _aimed: dict[tuple[int, ...], tuple[Rows, npt.NDArray[np.intp]]] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(
        tenant: Tenant,
        policy: Policy,
        policy_version: str,
        snapshot: Snapshot,
        popularity: Popularity,
        previous: View | None = None,
        down: npt.NDArray[np.uint32] | None = None,
    ) -> View:
        """A new view; takes over from `previous` what is unchanged. Costs what is new: up to seconds for a big base."""
        given, policy = policy, _filled(policy, snapshot, previous)
        kept = previous.parts if previous and _same_rows(previous.policy, policy) else ()
        known = {part.segment.name: part for part in kept}
        parts = tuple(known.get(one.name) or SegmentUnderPolicy(one, policy) for one in snapshot.segments)
        down = np.zeros(0, np.uint32) if down is None else down
        view = View(tenant, policy, policy_version, snapshot, popularity, parts, down, given)
        view._prepare()
        if policy.experiment is not None:
            for name, own in policy.arms.items():
                before = previous.arms.get(name) if previous else None
                view.arms[name] = view._of_arm(f"{policy_version}.{policy.experiment.name}.{name}", own, before)
        return view

    def _of_arm(self, version: str, given: Policy, previous: View | None) -> View:
        """The view of an arm. One that shows the same rows to the same people shares all that is known of rows."""
        if not _same_rows(given, self.policy):
            return View.of(self.tenant, given, version, self.snapshot, self.popularity, previous, self.down)
        policy = _filled(given, self.snapshot, previous)
        view = replace(self, policy=policy, policy_version=version, given=given, arms={})
        view._prepare()
        return view

    def _prepare(self) -> None:
        """Work out now, in the loader's thread, what is not to be worked out in a request."""
        _ = self.newest, self.most_popular, self.live

    @property
    def arm(self) -> str:
        """EXPERIMENT.ARM, what the version of an arm's policy ends with; empty for the tenant's own."""
        return ".".join(self.policy_version.split(".")[2:])

    @cached_property
    def live(self) -> Mask:
        """Packed rows that may be served at all: the snapshot's, without what was taken down since it was made."""
        if not len(self.down):
            return self.snapshot.live
        mask = self.snapshot.live.copy()
        clear(mask, self.snapshot.rows(self.down))
        return mask

    @cached_property
    def content(self) -> str:
        """Names the content as it is served now; another take-down is another name, and one that the snapshot knows
        of by now is none."""
        down = self.down[self.snapshot.rows(self.down) >= 0]
        return f"{self.snapshot.generation}.{zlib.crc32(down.tobytes()):x}"

    @cached_property
    def newest(self) -> Rows:
        """Live rows by publication, newest first: at least HEAD of them if there are as many."""
        rows = np.concatenate(
            [np.zeros(0, np.int64), *(p.newest + s for p, s in zip(self.parts, self.snapshot.starts, strict=False))]
        )
        rows = rows[is_set(self.live, rows)]
        order = np.argsort(-self.snapshot.column("published_s", rows), kind="stable")
        return rows[order]

    @cached_property
    def most_popular(self) -> Rows:
        """Live rows by what the policy makes of the windows, best first: the first HEAD of those that were counted."""
        weights = np.array([max(self.policy.weights[name], 0.0) for name in WINDOWS], np.float32)
        scores = self.popularity.table[:-1] @ (weights if weights.any() else _COUNTED_BY_DEFAULT)
        items = np.flatnonzero(scores)
        items = items[np.argsort(-scores[items], kind="stable")][:HEAD]
        rows = self.snapshot.rows(items)
        rows = rows[rows >= 0]
        return rows[is_set(self.live, rows)]

    def epoch(self, now_s: int) -> int:
        """Schedule edges that have passed, of rules and of items: moves whenever what is available moves."""
        return self.policy.book.epoch(now_s) + sum(part.availability.epoch(now_s) for part in self.parts)

    def next_boundary_s(self, now_s: int) -> int:
        """The first second after `now_s` at which `epoch` moves, OPEN_UNTIL_S if never."""
        rules_s = self.policy.book.next_boundary_s(now_s)
        items_s = min((part.availability.next_boundary_s(now_s) for part in self.parts), default=OPEN_UNTIL_S)
        return items_s if rules_s is None else min(rules_s, items_s)

    def allowed(self, plan: Plan, context: Context) -> Mask:
        """Packed rows that may be shown to anybody asking like this. Kept, and read-only."""
        # The epoch is in the key, instead of an expiry beside the mask: a simulation asks about another time than now.
        key = (self.epoch(context.now_s), plan.block, plan.require, context.country, context.max_age)
        return self._masks.packed(key, lambda: self._allowed(plan, context))

    def _allowed(self, plan: Plan, context: Context) -> Mask:
        found = [part.allowed(plan, context) for part in self.parts]
        mask: Mask = np.concatenate([np.zeros(0, np.uint8), *found]) & self.live
        mask.flags.writeable = False
        return mask

    def editorial(self, plan: Plan) -> tuple[Rows, npt.NDArray[np.intp]]:
        """(rows that acting pins and promotions aim at, where in them each rule begins); of each, the newest first."""
        rules = tuple(rule for rule, _ in (*plan.pins, *plan.promotions))
        if rules not in self._aimed:
            aimed = [self._aimed_at(rule) for rule in rules]
            lengths = [len(rows) for rows in aimed]
            begins = np.repeat(np.cumsum([0, *lengths])[:-1], lengths)
            self._aimed[rules] = np.concatenate([np.zeros(0, np.int64), *aimed]), begins
        return self._aimed[rules]

    def _aimed_at(self, rule: int) -> Rows:
        parts = zip(self.parts, self.snapshot.starts, strict=False)
        rows = np.concatenate([np.zeros(0, np.int64), *(part.aimed_at[rule] + start for part, start in parts)])
        rows = rows[is_set(self.live, rows)]
        return rows[np.argsort(-self.snapshot.column("published_s", rows), kind="stable")][:EDITORIAL_HEAD]

    def targets(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """bool[n, R]: rule r of the policy aims at the row."""
        rules = len(self.policy.rules)
        nothing = np.zeros((0, -(-rules // 8)), np.uint8)
        packed = self.snapshot.taken(rows, lambda part, local: self.parts[part].targets.take(local, 0), nothing)
        return np.unpackbits(packed, axis=1, count=rules, bitorder="little").view(np.bool_)


def _filled(policy: Policy, snapshot: Snapshot, previous: View | None) -> Policy:
    """The policy with what was learned; the very one of `previous` if neither has changed."""
    if snapshot.learned is None:
        return policy
    if previous and previous.given is policy and previous.snapshot.learned is snapshot.learned:
        return previous.policy
    return with_learned(policy, snapshot.learned.document)


def _same_rows(one: Policy, other: Policy) -> bool:
    """Whether two policies say the same of which rows rules aim at, and who may be shown which."""
    return one is other or (one.rules == other.rules and one.limits.max_age == other.limits.max_age)


def _newest(segment: Segment, rows: Array) -> Rows:
    published_s = segment.rows.columns["published_s"][rows]
    if len(rows) > HEAD:
        rows = rows[np.argpartition(-published_s, HEAD)[:HEAD]]
        published_s = segment.rows.columns["published_s"][rows]
    return rows[np.argsort(-published_s, kind="stable")].astype(np.int64)
