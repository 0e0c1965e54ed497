"""The demo's host apps: who they are, and how their content teams weigh and steer their feeds.

Every policy is what a content team would publish through the API; what it leaves out is inherited. The videos are
years old, so freshness fades over months here, where an app with daily videos would say days.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_DAY_S: Final = 86_400


@dataclass(frozen=True)
class DemoTenant:
    """One host app: its id, its name for people, and the policy document it publishes."""

    id: str
    name: str
    policy: Mapping[str, Any]


def _category(*names: str) -> dict[str, Any]:
    return {"filter": {"category": list(names)}}


def _language(code: str) -> dict[str, Any]:
    return {"filter": {"language": [code]}}


def _rule(name: str, kind: str, target: Mapping[str, Any], reason: str, **effect: Any) -> dict[str, Any]:
    return {"id": name, "kind": kind, "target": target, "effect": effect, "author": "demo", "reason": reason}


def _spread(at_most: int, per: str, window: int) -> dict[str, Any]:
    effect = {"max": at_most, "per": per, "window": window}
    return {"id": f"spread-{per}", "kind": "cap", "effect": effect, "author": "demo", "reason": "variety"}


TENANTS: Final[tuple[DemoTenant, ...]] = (
    DemoTenant(
        "pycon-us",
        "PyCon US",
        {
            "weights": {"similarity": 1.2, "popularity": 0.3, "freshness": 0.15},
            "half_lives": {"freshness_s": 365 * _DAY_S},
            "rules": [
                _spread(1, "creator", 10),
                _rule("no-ceremonies", "bury", _category("ceremony"), "welcomes are for those in the room", factor=0.2),
            ],
        },
    ),
    DemoTenant(
        "europython",
        "EuroPython",
        {
            "weights": {"similarity": 1.0, "affinity_creator": 0.4, "freshness": 0.3},
            "half_lives": {"freshness_s": 300 * _DAY_S},
            "rules": [
                _rule("newest-edition", "boost", {"playlist": "europython-2024"}, "tickets are on sale", factor=1.3),
                _spread(2, "creator", 20),
            ],
        },
    ),
    DemoTenant(
        "scipy",
        "SciPy and EuroSciPy",
        {
            "weights": {"similarity": 1.4, "freshness": 0.05, "exploration": 0.1},
            "rules": [
                _rule("teach-first", "promote", _category("tutorial"), "tutorials bring people back", percent=10),
                _rule("no-lightning", "bury", _category("lightning talk"), "an hour of many topics", factor=0.5),
            ],
        },
    ),
    DemoTenant(
        "djangocon",
        "DjangoCon",
        {
            "weights": {"similarity": 1.0, "affinity_category": 0.3},
            "half_lives": {"freshness_s": 180 * _DAY_S},
            "rules": [
                _rule("no-openings", "block", _category("ceremony"), "nothing to learn from them"),
                _rule("security-week", "boost", _category("security"), "campaign", factor=1.5),
            ],
        },
    ),
    DemoTenant(
        "pydata",
        "PyData",
        {
            "weights": {"similarity": 1.1, "popularity": 0.5, "trending": 0.3},
            "rules": [_spread(1, "creator", 20)],
        },
    ),
    DemoTenant(
        "pycon-es",
        "PyCon España",
        {
            "weights": {"similarity": 0.9, "hint_match": 0.4},
            "rules": [_rule("en-casa", "boost", _language("es"), "primero en español", factor=1.4)],
        },
    ),
    DemoTenant(
        "pycon-fr",
        "PyConFR",
        {
            "weights": {"similarity": 0.9, "hint_match": 0.4, "freshness": 0.4},
            "half_lives": {"freshness_s": 365 * _DAY_S},
            "rules": [
                _rule("en-francais", "boost", _language("fr"), "d'abord en français", factor=1.6),
                _rule("pas-de-ceremonies", "block", _category("ceremony"), "sans intérêt après coup"),
            ],
        },
    ),
    DemoTenant(
        "swiss-python",
        "Swiss Python Summit",
        {
            "weights": {"similarity": 0.8, "exploration": 0.2},
            "rules": [_rule("keynote-first", "pin", _category("keynote"), "the best known speakers", position=0)],
        },
    ),
)
