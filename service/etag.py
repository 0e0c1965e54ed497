"""The tag of a first page, from the versions of what goes into it; so a 304 needs one state read and no retrieval.

    W/"CONTENT.POLICY.USER.EPOCH.ASKED.SEED.MADE"

USER is a checksum of what the user did last, not of what was served to them: engagement changes it, being served does
not. EPOCH counts the schedule edges that have passed. ASKED is a checksum of who asked for what, so that a tag
presented with other parameters is never taken for right. SEED is that of the order the client has: presenting the tag
asks "is this still right?", so it is answered with the client's own seed and not with the one a fresh request would
get. MADE is when: the page's cursor must still be good for a while, or a client that only ever asks for news could not
scroll.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import xxhash

from ranking.context import Context
from retrieval.journal import Journal, Signal, newest
from retrieval.view import View

LIFETIME_S: Final = 1800
"""How long a page may be confirmed. Its cursor lives twice as long."""
LATEST: Final = 64
"""Entries that are summed up: a journal only grows at its end."""
_ENGAGED: Final = np.arange(len(Signal)) != Signal.SERVED
_TAG: Final = re.compile(r'(?:W/)?"([0-9a-z.]{1,120})\.([0-9a-f]{1,8})\.([0-9a-f]{1,12})"')


def versions(view: View, journal: Journal, asked: str, *, now_s: int) -> str:
    """Everything a first page depends on but its seed. `asked`: see `checksum_of`."""
    latest = newest(journal, _ENGAGED, LATEST)
    user = xxhash.xxh3_64_hexdigest(latest.tobytes()) if len(latest) else "0"
    return f"{view.content}.{view.policy_version}.{user}.{view.epoch(now_s)}.{asked}"


def checksum_of(user_key: str | None, mode: str, limit: int, context: Context) -> str:
    """Who asks for what, as eight hex digits."""
    asked = (
        user_key,
        mode,
        limit,
        context.surface,
        context.language,
        context.country,
        context.age_band,
        context.max_age,
    )
    return xxhash.xxh32_hexdigest(repr(asked).encode("utf-8", "surrogatepass"))


def tag(versions: str, seed: int, made_s: int) -> str:
    """The ETag of a page made with `seed` at `made_s`."""
    return f'W/"{versions}.{seed:x}.{made_s:x}"'


def still_right(if_none_match: str | None, versions: str, *, now_s: int) -> str | None:
    """The tag among those the client presents that is still right, None if there is none."""
    for match in _TAG.finditer(if_none_match or ""):
        if match[1] == versions and 0 <= now_s - int(match[3], 16) < LIFETIME_S:
            return match[0] if match[0].startswith("W/") else f"W/{match[0]}"
    return None
