"""Closed lists: their codes are stored, so they must never move."""

import pytest

from ranking.columns import UInt8
from ranking.hints import (
    AGE_BANDS,
    COUNTRIES,
    LANGUAGES,
    age_ceiling,
    country_bit,
    country_code,
    country_set,
    everywhere,
    language_code,
)
from ranking.maturity import LADDER


def test_codes_are_positions_that_stay() -> None:
    """A few golden codes from all over the lists: segments on disk hold them."""
    assert [language_code(text) for text in ("aa", "DE", "zu", "xx", "")] == [0, 31, 183, -1, -1]
    assert [country_code(text) for text in ("AD", "de", "ZW", "XX", "")] == [0, 56, 248, -1, -1]
    assert len(set(LANGUAGES)) == len(LANGUAGES) == 184
    assert len(set(COUNTRIES)) == len(COUNTRIES) == 249


def test_every_age_band_has_a_ceiling_on_the_ladder() -> None:
    """And the ceiling is the age of its youngest member or the step below it."""
    for band, ceiling in AGE_BANDS.items():
        youngest = int(band.replace("+", "").split("-")[0])
        assert ceiling == max(age for age in LADDER if age <= youngest)


def test_a_band_on_no_list_is_the_youngest() -> None:
    """Somebody meant to protect: better too little than what is not for them. No band at all is an adult."""
    assert age_ceiling("13-99") == age_ceiling(" 18+") == min(AGE_BANDS.values()) == 0
    assert age_ceiling("") == 18
    assert all(age_ceiling(band) == ceiling for band, ceiling in AGE_BANDS.items())


def test_a_country_set_holds_its_countries_and_not_the_unknown_one() -> None:
    """Everywhere includes the unknown country; any list of countries does not."""

    def holds(members: UInt8, code: int) -> bool:
        byte, shift = country_bit(code)
        return bool(members[byte] >> shift & 1)

    members = country_set([0, 56, 248])
    assert [code for code in range(-1, 249) if holds(members, code)] == [0, 56, 248]
    assert all(holds(everywhere(), code) for code in range(-1, 249))
    with pytest.raises(ValueError, match="249 is not a country code"):
        country_set([249])
