"""What rules aim at: ids, playlists, filters; and which filters are refused."""

from typing import Any

import numpy as np
import pytest

from ranking.errors import Problem
from ranking.hints import language_code
from ranking.policy import Layer, resolve
from ranking.rules import target_masks
from ranking.targets import MAX_DEPTH, Everything, read_target
from tests.ranking.cases import items

CATALOGUE = items(
    {"id": "song", "tags": ["music", "live"], "creator": "ann", "language": language_code("en"), "duration_s": 20},
    {"id": "goal", "tags": ["sport"], "categories": ["football"], "playlists": ["best of"], "duration_s": 90},
    {"id": "news", "creator": "bob", "language": language_code("de"), "min_age": 12, "published_s": 5},
)


def aims_at(document: dict[str, Any]) -> list[int]:
    """Rows a target aims at."""
    problems: list[Problem] = []
    target = read_target(document, "", problems)
    assert problems == []
    return np.flatnonzero(target.mask(CATALOGUE)).tolist()


@pytest.mark.parametrize(
    ("document", "rows"),
    [
        ({"items": ["news", "song", "gone"]}, [0, 2]),
        ({"playlist": "best of"}, [1]),
        ({"filter": {"tag": ["live", "sport"]}}, [0, 1]),
        ({"filter": {"category": ["football"]}}, [1]),
        ({"filter": {"creator": ["bob"]}}, [2]),
        ({"filter": {"language": ["EN"]}}, [0]),
        ({"filter": {"duration_s": {"max": 60}}}, [0, 2]),
        ({"filter": {"duration_s": {"min": 30, "max": 90}}}, [1, 2]),
        ({"filter": {"min_age": {"min": 12}}}, [2]),
        ({"filter": {"published_s": {"max": 5}}}, [2]),
        ({"filter": {"not": {"tag": ["music"]}}}, [1, 2]),
        ({"filter": {"and": [{"tag": ["music"]}, {"creator": ["ann"]}]}}, [0]),
        ({"filter": {"or": [{"tag": ["sport"]}, {"not": {"duration_s": {"max": 25}}}]}}, [1, 2]),
    ],
)
def test_a_target_aims_at(document: dict[str, Any], rows: list[int]) -> None:
    """Each kind of target and each field once, read as documentation."""
    assert aims_at(document) == rows


def nested(depth: int) -> dict[str, Any]:
    """Return a filter with `depth` negations around a tag."""
    return {"not": nested(depth - 1)} if depth else {"tag": ["x"]}


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ([], ""),
        ({}, ""),
        ({"items": ["a"], "playlist": "b"}, ""),
        ({"tags": ["a"]}, "/tags"),
        ({"items": []}, "/items"),
        ({"items": ["a", 3]}, "/items/1"),
        ({"items": ["a"] * 1001}, "/items"),
        ({"playlist": ""}, "/playlist"),
        ({"playlist": "x" * 257}, "/playlist"),
        ({"filter": {"tag": "music"}}, "/filter/tag"),
        ({"filter": {"tag": ["a"], "creator": ["b"]}}, "/filter"),
        ({"filter": {"colour": ["red"]}}, "/filter/colour"),
        ({"filter": {"language": ["en", "english"]}}, "/filter/language/1"),
        ({"filter": {"duration_s": {"min": 9, "max": 8}}}, "/filter/duration_s"),
        ({"filter": {"duration_s": {"min": float("nan")}}}, "/filter/duration_s/min"),
        ({"filter": {"and": []}}, "/filter/and"),
        ({"filter": {"or": {"tag": ["a"]}}}, "/filter/or"),
        ({"filter": nested(MAX_DEPTH + 1)}, "/filter" + "/not" * (MAX_DEPTH + 1)),
        ({"filter": nested(500)}, "/filter" + "/not" * (MAX_DEPTH + 1)),
    ],
)
def test_a_wrong_target_is_refused_where_it_is_wrong(document: Any, pointer: str) -> None:
    """The mistake is at its JSON pointer; nesting is not followed beyond its limit."""
    problems: list[Problem] = []
    read_target(document, "", problems)
    assert pointer in [problem.pointer for problem in problems]


def test_the_deepest_allowed_filter_is_read() -> None:
    """The limit itself is fine."""
    problems: list[Problem] = []
    read_target({"filter": nested(MAX_DEPTH)}, "", problems)
    assert problems == []


def test_masks_have_one_column_per_rule() -> None:
    """Whether or not the rule is enabled; no items and no rules work as well."""
    rules = [
        {"id": "a", "kind": "block", "target": {"items": ["song"]}, "enabled": False},
        {"id": "b", "kind": "cap", "effect": {"max": 1, "per": "creator", "window": 3}},
    ]
    policy = resolve([Layer("tenant", {"rules": rules})])
    assert target_masks(policy.rules, CATALOGUE).tolist() == [[True, True], [False, True], [False, True]]
    assert target_masks(policy.rules, items()).shape == (0, 2)
    assert target_masks((), CATALOGUE).shape == (3, 0)
    assert policy.rules[1].target == Everything()
