"""The closed lists a host app's hints come from, and their small codes.

A code is a position in its list and is stored in index segments and policies: new entries go to the END.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from ranking.columns import UInt8

LANGUAGES: Final = tuple(
    """
    aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo
    es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka
    kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng
    nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg sh si sk sl sm sn so sq sr ss st
    su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
    """.split()  # noqa: SIM905 - as a list of literals the table would be 430 lines
)
"""ISO 639-1."""

COUNTRIES: Final = tuple(
    """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA
    CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA
    GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP
    KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS
    MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS
    RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW
    TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
    """.split()  # noqa: SIM905 - as a list of literals the table would be 430 lines
)
"""ISO 3166-1 alpha-2."""

AGE_BANDS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "0-3": 0,
        "0-12": 0,
        "4-6": 4,
        "7-8": 7,
        "9-11": 9,
        "12": 12,
        "13-15": 13,
        "13-17": 13,
        "16": 16,
        "16-17": 16,
        "17": 17,
        "18+": 18,
    }
)
"""Band -> maturity ceiling: the age of its youngest member, so that nobody in the band sees what is above them."""

UNKNOWN: Final = -1
_UNKNOWN_COUNTRY_BIT: Final = 255

_LANGUAGE_CODES: Final = {code: i for i, code in enumerate(LANGUAGES)}
_COUNTRY_CODES: Final = {code: i for i, code in enumerate(COUNTRIES)}


def language_code(text: str) -> int:
    """Return the code of an ISO 639-1 language, in either case; -1 if it is not one."""
    return _LANGUAGE_CODES.get(text.lower(), UNKNOWN)


def age_ceiling(band: str) -> int:
    """The highest minimum age that somebody of this band may be shown, 18 without a band.

    A band on no list is the youngest: a host app that sends one meant to protect somebody.
    """
    return AGE_BANDS.get(band, min(AGE_BANDS.values())) if band else max(AGE_BANDS.values())


def language_of(code: int) -> str:
    """The language of a code, "" for -1: what is written down, because a code means nothing without this table."""
    return "" if code < 0 else LANGUAGES[code]


def country_of(code: int) -> str:
    """The country of a code, "" for -1."""
    return "" if code < 0 else COUNTRIES[code]


def country_code(text: str) -> int:
    """Return the code of an ISO 3166-1 alpha-2 country, in either case; -1 if it is not one."""
    return _COUNTRY_CODES.get(text.upper(), UNKNOWN)


def country_bit(code: int) -> tuple[int, int]:
    """Return (byte, shift) of a country in a country set. The unknown country has the last bit to itself."""
    bit = code if code >= 0 else _UNKNOWN_COUNTRY_BIT
    return bit >> 3, bit & 7


def everywhere() -> UInt8:
    """Return uint8[32]: shown in every country, and where the country is not known."""
    return np.full(32, 255, np.uint8)


def country_set(codes: Iterable[int]) -> UInt8:
    """Return uint8[32], little bit order: shown in these countries only, so not where the country is not known.

    Raises ValueError for a code outside `COUNTRIES`.
    """
    members = np.zeros(256, np.uint8)
    for code in codes:
        if not 0 <= code < len(COUNTRIES):
            raise ValueError(f"{code} is not a country code; expected 0 to {len(COUNTRIES) - 1}")
        members[code] = 1
    return np.packbits(members, bitorder="little")
