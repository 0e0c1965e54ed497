"""Golden pages, small enough to follow by hand: how a policy turns into a page."""

from typing import Any

import numpy as np
import pytest

from ranking.candidates import SOURCE, Candidates
from ranking.context import Context
from ranking.eligibility import Removed
from ranking.explain import acts
from ranking.items import key_hash
from ranking.policy import Layer, resolve
from ranking.rank import REASONS, Ranking, rank
from ranking.rules import target_masks
from tests.ranking.cases import NOW_S, items, with_columns

# Eight videos, best first by similarity: ann's songs are what this user likes.
VIDEOS: list[dict[str, Any]] = [
    {"id": "song 1", "creator": "ann", "tags": ["music"]},
    {"id": "song 2", "creator": "ann", "tags": ["music"]},
    {"id": "song 3", "creator": "ann", "tags": ["music"]},
    {"id": "goal", "creator": "bob", "tags": ["sport"]},
    {"id": "match", "creator": "cat", "tags": ["sport"], "playlists": ["cup final"]},
    {"id": "advert", "creator": "dan", "tags": ["sponsored"]},
    {"id": "cook", "creator": "eve"},
    {"id": "debut", "creator": "fay"},
]
NAMES = [video["id"] for video in VIDEOS]
SIMILARITY = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2], np.float32)


Told = list[tuple[str, str, float | None, float | None]]


def feed(*rules: dict[str, Any], **document: Any) -> tuple[list[str], Ranking]:
    """Rank the eight videos by similarity alone, under these rules."""
    page, ranking, _ = explained(*rules, **document)
    return page, ranking


def explained(*rules: dict[str, Any], **document: Any) -> tuple[list[str], Ranking, Told]:
    """As `feed`, and tell what the rules did: (rule, video, before, after)."""
    plain = {"weights": {name: 0 for name in resolve().weights if name != "similarity"}, "explore": {"share": 0}}
    policy = resolve([Layer("tenant", plain | {"rules": list(rules)} | document)])
    candidates = with_columns(
        Candidates.empty(8),
        similarity=SIMILARITY,
        creator=np.array([key_hash(video["creator"]) for video in VIDEOS], np.uint64),
        source=np.array([SOURCE["near"]] * 7 + [SOURCE["explore"]], np.uint8),
        targets=target_masks(policy.rules, items(*VIDEOS)),
    )
    request = Context(now_s=NOW_S, surface="home")
    ranking = rank(candidates, policy, request, 8)
    told = [
        (policy.rules[rule].id, NAMES[row], before and round(before, 3), after and round(after, 3))
        for rule, row, before, after in acts(ranking, candidates, policy, request)
    ]
    return [NAMES[row] for row in ranking.rows], ranking, told


def rule(kind: str, target: dict[str, Any], effect: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Write a rule on one line."""
    return {"id": f"{kind}-rule", "kind": kind, "target": target, "effect": effect or {}} | more


def tag(name: str) -> dict[str, Any]:
    """Aim at a tag."""
    return {"filter": {"tag": [name]}}


def test_without_rules_taste_decides_and_one_creator_gets_two_of_ten() -> None:
    """Ann's third song breaks the cap. With eight rows for eight slots it comes last, and the answer says so."""
    page, ranking = feed()
    assert page == ["song 1", "song 2", "goal", "match", "advert", "cook", "debut", "song 3"]
    assert ranking.relaxed == ("creator",)
    assert REASONS[ranking.reason[0]] == "for_you"
    assert REASONS[ranking.reason[6]] == "explore"


def test_block_and_require() -> None:
    """Block takes out, require leaves nothing else; each removal has its reason."""
    page, ranking = feed(rule("block", tag("music")))
    assert page == ["goal", "match", "advert", "cook", "debut"]
    assert ranking.removed[:3].tolist() == [Removed.BLOCKED] * 3
    page, ranking = feed(rule("require", {"playlist": "cup final"}))
    assert page == ["match"]
    assert ranking.removed[0] == Removed.NOT_REQUIRED


def test_boosts_do_not_add_up() -> None:
    """The strongest boost of sport (x 1.4) counts, times the bury of everything by bob (x 0.5)."""
    page, ranking = feed(
        rule("boost", tag("sport"), {"factor": 1.4}, id="a"),
        rule("boost", tag("sport"), {"factor": 1.3}, id="b"),
        rule("bury", {"filter": {"creator": ["bob"]}}, {"factor": 0.5}),
        rule("bury", {"items": ["goal"]}, {"factor": 0.9}, id="c"),
    )
    assert page[:3] == ["song 1", "song 2", "match"]
    assert ranking.factor[3:5].tolist() == pytest.approx([0.7, 1.4])
    assert ranking.score[3:5].tolist() == pytest.approx([0.42, 0.7])


def test_a_cap_for_some_items_only() -> None:
    """One of Ann's songs in any four neighbours."""
    page, ranking = feed(rule("cap", tag("music"), {"max": 1, "per": "creator", "window": 4}))
    assert page == ["song 1", "goal", "match", "advert", "song 2", "cook", "debut", "song 3"]
    assert ranking.relaxed == ("cap-rule", "creator")


def test_a_promotion_gets_its_share_by_force_only_where_needed() -> None:
    """A quarter of the page is due at the fourth and the eighth slot; there is one advert to show."""
    page, ranking = feed(rule("promote", tag("sponsored"), {"percent": 25}))
    assert page[:5] == ["song 1", "song 2", "goal", "advert", "match"]
    assert REASONS[ranking.reason[3]] == "editor"


def test_a_pin_takes_its_slot_and_the_stronger_pin_goes_first() -> None:
    """Two pins for the second slot: the one of higher priority gets it, the other the next."""
    page, ranking = feed(
        rule("pin", {"items": ["cook"]}, {"position": 1}, id="weak", priority=1),
        rule("pin", {"items": ["debut"]}, {"position": 1}, id="strong", priority=2, when={"surface": ["home"]}),
    )
    assert page[:4] == ["song 1", "debut", "cook", "song 2"]
    assert ranking.rule[:4].tolist() == [-1, 1, 0, -1]


def test_a_pin_of_an_ineligible_item_vanishes() -> None:
    """Deny wins over every wish, and the next item moves up."""
    page, ranking = feed(
        rule("pin", {"items": ["goal"]}, {"position": 0}), rule("block", {"filter": {"creator": ["bob"]}})
    )
    assert page[:2] == ["song 1", "song 2"]
    assert ranking.removed[3] == Removed.BLOCKED


def test_rules_act_on_their_conditions() -> None:
    """The same pin, on another surface: nothing."""
    page, _ = feed(rule("pin", {"items": ["cook"]}, {"position": 0}, when={"surface": ["search"]}))
    assert page[0] == "song 1"


def test_explore_slots_are_a_share_of_the_page() -> None:
    """A fifth of the page: one slot of the first five, marked, for what only the explore source brought."""
    page, ranking = feed(explore={"share": 0.2})
    assert "debut" in page[:5]
    assert REASONS[ranking.reason[page.index("debut")]] == "explore"


def test_a_list_that_is_read_page_by_page_keeps_its_caps() -> None:
    """Beyond the first page no cap is broken to make the list longer: the row is left out, with a reason."""
    policy = resolve()
    same = with_columns(Candidates.empty(5), creator=np.full(5, 9, np.uint64))
    ranking = rank(same, policy, Context(now_s=NOW_S), 5, page=1)
    assert len(ranking.rows) == 2
    assert np.count_nonzero(ranking.removed == Removed.CAPPED) == 3


def test_explain_tells_what_each_rule_did() -> None:
    """Block: gone. Boost: score before and after, the strongest only. Promotion and pin: place before and after."""
    _, _, told = explained(
        rule("block", {"items": ["song 3"]}),
        rule("boost", tag("sport"), {"factor": 1.2}, id="boost"),
        rule("boost", {"items": ["goal"]}, {"factor": 1.4}, id="stronger"),
        rule("promote", tag("sponsored"), {"percent": 25}),
        rule("pin", {"items": ["cook"]}, {"position": 0}),
    )
    assert told == [
        ("block-rule", "song 3", None, None),
        ("boost", "match", 0.5, 0.6),
        ("stronger", "goal", 0.6, 0.84),
        ("promote-rule", "advert", 4, 3),
        ("pin-rule", "cook", 5, 0),
    ]


def test_explain_names_the_requirement_that_was_not_met() -> None:
    """One line per rule and video it kept away."""
    _, _, told = explained(rule("require", {"items": ["goal", "match"]}))
    assert told == [("require-rule", name, None, None) for name in NAMES if name not in ("goal", "match")]
