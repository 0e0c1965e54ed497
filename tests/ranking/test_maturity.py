"""Ratings of several systems become one minimum age, the strictest."""

import pytest

from ranking.maturity import LADDER, RATINGS, minimum_age


@pytest.mark.parametrize(
    ("ratings", "age"),
    [
        ([("mpaa", "PG-13")], 13),
        ([("tv", "TV-MA")], 17),
        ([("pegi", "16"), ("fsk", "12")], 16),
        ([("apple", "4+")], 4),
        ([(" MPAA ", "pg")], 7),
        ([("age", "9")], 9),
        ([], 18),
        ([("mpaa", "PG13")], 18),
        ([("age", "0"), ("board-of-nowhere", "all")], 18),
    ],
)
def test_the_strictest_wins_and_the_unknown_is_18(ratings: list[tuple[str, str]], age: int) -> None:
    """Spelling of case and space does not matter; anything not in the table does."""
    assert minimum_age(ratings) == age


def test_every_rating_stands_on_the_ladder() -> None:
    """No table entry invents an age that no ceiling can meet."""
    assert {age for values in RATINGS.values() for age in values.values()} <= set(LADDER)
