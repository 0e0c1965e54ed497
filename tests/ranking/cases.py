"""Random catalogues, requests and rule sets for the laws of ranking. One seed, one case."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ranking.candidates import COLUMNS, SOURCE, Candidates
from ranking.columns import OPEN_UNTIL_S
from ranking.context import Context
from ranking.hints import AGE_BANDS, country_set, everywhere
from ranking.items import Facet, Items, key_hash
from ranking.maturity import LADDER
from ranking.policy import Layer, Policy, resolve

NOW_S = 1_800_000_000
DAY_S = 86_400
seeds = st.integers(0, 2**32 - 1)
TAGS = ("music", "news", "sport", "kids")
SURFACES = ("home", "search")


def with_columns(candidates: Candidates, **columns: Any) -> Candidates:
    """Return the candidates with some columns replaced."""
    kept = {name: getattr(candidates, name) for name in (*COLUMNS, "vectors")}
    return Candidates(**(kept | columns))


def random_candidates(rng: np.random.Generator, n: int, rules: int = 0) -> Candidates:
    """Draw candidates of every kind: ineligible ones, ties, near copies, unknown values, 0 to 4 categories."""

    def units() -> Any:
        return np.round(rng.random(n), 1).astype(np.float32)  # few distinct values, so that scores tie

    some = everywhere()[None].repeat(n, axis=0)
    some[rng.random(n) < 0.2] = country_set([3, 40])
    vectors = rng.normal(size=(3, 8))[rng.integers(0, 3, n)] + 0.3 * rng.normal(size=(n, 8))
    categories = rng.integers(1, 5, (n, 4)).astype(np.uint64) + np.arange(4, dtype=np.uint64) * np.uint64(5)
    categories[rng.random((n, 4)) < 0.5] = 0
    return with_columns(
        Candidates.empty(n, rules=rules),
        item=rng.permutation(4 * n)[:n].astype(np.uint32),
        similarity=units() * 2 - 1,
        negative=units() * 2 - 1,
        popularity=units(),
        trending=units(),
        published_s=NOW_S - rng.integers(-DAY_S, 400 * DAY_S, n),
        available_from_s=np.where(rng.random(n) < 0.1, NOW_S + 1, 0),
        available_until_s=np.where(rng.random(n) < 0.1, NOW_S, OPEN_UNTIL_S),
        live=rng.random(n) < 0.9,
        min_age=rng.choice(LADDER, n, p=[0.5, *[0.5 / 8] * 8]).astype(np.uint8),
        language=rng.integers(-1, 4, n).astype(np.int16),
        countries=some,
        creator=rng.integers(0, max(n // 3, 2), n).astype(np.uint64),
        categories=categories,
        seen=rng.random(n) < 0.1,
        rejected=rng.random(n) < 0.05,
        served_s=np.where(rng.random(n) < 0.3, NOW_S - rng.integers(0, 3 * DAY_S, n), 0),
        source=rng.choice([0, *SOURCE.values(), SOURCE["near"] | SOURCE["explore"]], n).astype(np.uint8),
        targets=rng.random((n, rules)) < 0.3,
        vectors=(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32),
        rising=units(),
        evergreen=units(),
    )


def random_context(rng: np.random.Generator) -> Context:
    """Draw a request; each hint may be missing."""
    band = str(rng.choice(["", *AGE_BANDS]))
    m = int(rng.integers(0, 5))
    return Context(
        now_s=NOW_S,
        surface=str(rng.choice(["", *SURFACES])),
        language=int(rng.integers(-1, 4)),
        country=int(rng.choice([-1, 3, 40, 77])),
        age_band=band,
        max_age=AGE_BANDS.get(band, 18),
        cohort=str(rng.choice(["", "a"])),
        seed=int(rng.integers(0, 2**31)),
        liked_creators=rng.integers(1, 20, m).astype(np.uint64),
        liked_creator_weights=rng.random(m, np.float32),
        liked_categories=rng.integers(1, 20, m).astype(np.uint64),
        liked_category_weights=rng.random(m, np.float32),
    )


def random_rules(rng: np.random.Generator, most: int = 12) -> list[dict[str, Any]]:
    """Draw rule documents of every kind, acting or not."""
    rules = []
    for i in range(int(rng.integers(0, most + 1))):
        effects: dict[str, dict[str, Any]] = {
            "block": {},
            "require": {},
            "boost": {"factor": float(rng.uniform(1, 10))},
            "bury": {"factor": float(rng.uniform(0.1, 1))},
            "cap": {
                "max": int(rng.integers(1, 4)),
                "per": str(rng.choice(["creator", "category"])),
                "window": int(rng.integers(2, 12)),
            },
            "promote": {"percent": float(rng.uniform(1, 40))},
            "pin": {"position": i},  # never the same slot twice, which validation refuses
        }
        weights = [0.06, 0.04, 0.15, 0.15, 0.2, 0.2, 0.2]
        kind = str(rng.choice(list(effects), p=weights))
        rules.append(
            {
                "id": f"r{i}",
                "kind": kind,
                "effect": effects[kind],
                "priority": int(rng.integers(0, 4)),
                "enabled": bool(rng.random() < 0.9),
                "when": {"surface": [str(rng.choice(SURFACES))]} if rng.random() < 0.2 else {},
                "target": {"filter": {"tag": [str(rng.choice(TAGS))]}},
            }
        )
    return rules


def random_policy(rng: np.random.Generator) -> Policy:
    """Draw a tenant's policy: rules, tight or loose diversity, room for exploring or none."""
    document = {
        "weights": {name: float(np.round(rng.uniform(-1, 1), 2)) for name in ("similarity", "popularity", "trending")},
        "diversity": {
            "creator_max": int(rng.integers(1, 4)),
            "category_max": int(rng.integers(1, 6)),
            "alike_depth": int(rng.choice([0, 5, 30])),
        },
        "explore": {"share": float(rng.choice([0.0, 0.05, 0.2]))},
        "rules": random_rules(rng),
    }
    return resolve([Layer("tenant", document)])


def facet(rows: Sequence[Iterable[int]]) -> Facet:
    """Write a facet by hand: the hashes of each row."""
    values = [list(row) for row in rows]
    offsets = np.cumsum([0, *map(len, values)], dtype=np.int64)
    return Facet(offsets, np.array([h for row in values for h in row], np.uint64))


def items(*rows: dict[str, Any]) -> Items:
    """Write a small catalogue by hand: id, creator, language, min_age, duration_s, published_s, tags, ..."""

    def numbers(name: str, default: int, dtype: type[np.generic]) -> Any:
        return np.array([row.get(name, default) for row in rows], dtype)

    def named(name: str) -> Facet:
        return facet([[key_hash(value) for value in row.get(name, ())] for row in rows])

    return Items(
        id_hash=np.array([key_hash(row["id"]) for row in rows], np.uint64),
        creator=np.array([key_hash(row["creator"]) if "creator" in row else 0 for row in rows], np.uint64),
        language=numbers("language", -1, np.int16),
        min_age=numbers("min_age", 0, np.uint8),
        duration_s=numbers("duration_s", 30, np.int32),
        published_s=numbers("published_s", NOW_S, np.int64),
        tags=named("tags"),
        categories=named("categories"),
        playlists=named("playlists"),
    )
