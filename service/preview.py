"""A draft beside what is live: the pages of chosen users under both, each item with its reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ranking.context import Context
from retrieval.journal import Journal
from retrieval.view import View
from service.explain import Explainer
from service.ranked import Ranked, replayed


@dataclass(frozen=True)
class Compared:
    """One user's page under both policies."""

    user: str
    live: Ranked
    draft: Ranked


def compare(live: View, drafted: View, users: Mapping[str, Journal], context: Context, limit: int) -> list[Compared]:
    """The pages of all users. `drafted` is the same tenant under the draft."""
    return [
        Compared(name, replayed(live, journal, context, limit), replayed(drafted, journal, context, limit))
        for name, journal in users.items()
    ]


def as_json(compared: Compared) -> dict[str, Any]:
    """Both pages; in the draft's each item says where it stood, and what left the page is listed."""
    live, draft = Explainer(compared.live).page(), Explainer(compared.draft)
    was = {item["id"]: item["position"] for item in live}
    page = [{**item, "was": was.get(item["id"])} for item in draft.page()]
    now = {item["id"] for item in page}
    return {
        "user": compared.user,
        "live": live,
        "draft": page,
        "left": [draft.missing(name) for name in was if name not in now],
    }
