"""Content ratings of several systems -> one minimum age. Unknown is 18: nobody looks at each item by hand."""

from collections.abc import Iterable
from typing import Final

TABLE_VERSION: Final = 1
"""Moves with any change of `RATINGS`: the indexer builds every index anew that was made by another table."""

LADDER: Final = (0, 4, 7, 9, 12, 13, 16, 17, 18)
UNKNOWN_AGE: Final = 18

RATINGS: Final = {
    "age": {str(age): age for age in LADDER},
    "mpaa": {"G": 0, "PG": 7, "PG-13": 13, "R": 17, "NC-17": 18},
    "tv": {"TV-Y": 0, "TV-G": 0, "TV-Y7": 7, "TV-Y7-FV": 7, "TV-PG": 9, "TV-14": 16, "TV-MA": 17},
    "pegi": {"3": 0, "7": 7, "12": 12, "16": 16, "18": 18},
    "fsk": {"0": 0, "6": 7, "12": 12, "16": 16, "18": 18},
    "apple": {"4+": 4, "9+": 9, "12+": 12, "13+": 13, "16+": 16, "17+": 17, "18+": 18},
}
"""System -> value -> minimum age. A value between two steps of the ladder takes the higher one (FSK 6, TV-14).

MPAA: film ratings of the Motion Picture Association; TV: US TV Parental Guidelines; PEGI: Pan European Game
Information; FSK: German film classification; apple: App Store age ratings; age: our own ladder, already an age.
"""


def minimum_age(ratings: Iterable[tuple[str, str]]) -> int:
    """Return the minimum age for content rated (system, value), the strictest of all.

    Case and surrounding space do not matter. Any rating that is not in the table counts as 18, and so does having none:
    a typing mistake must not open content to children.
    """
    ages = [
        RATINGS.get(system.strip().lower(), {}).get(value.strip().upper(), UNKNOWN_AGE) for system, value in ratings
    ]
    return max(ages, default=UNKNOWN_AGE)
