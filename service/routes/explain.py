"""Why is an item there, and why is another one not? `GET /v1/feed?explain=1` and `GET /v1/explain/{request_id}`.

Both need a secret key: an explanation says what a user likes. `?item=` (repeatable) asks about any other video.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from retrieval.arms import in_arm
from retrieval.errors import Problem
from retrieval.journal import EMPTY
from service.admin import answer, caller, instant
from service.auth import user_key
from service.errors import InvalidRequest
from service.explain import explained
from service.feed import UNFLAGGED
from service.ranked import Ranked, replayed
from service.replay import replay
from service.requests import header, query_of
from service.routes.feed import feed, read

MAX_ITEMS: Final = 20


async def feed_or_explained(request: Request) -> Response:
    """The feed; with ?explain=1 the page it would be now, and why."""
    if query_of(request).get("explain") == "1":
        return await explained_feed(request)
    return await feed(request)


async def explained_feed(request: Request) -> Response:
    """The first page a user would get now, with everything that went into it. Nothing is noted as served."""
    who = caller(request, "sk")
    resources = who.resources
    view = resources.live.view(who.tenant or "")
    key = user_key(request, view.tenant.pepper)
    decided = resources.flags.decide(view.tenant.id, key)
    view = in_arm(view, key) if decided == "personalised" else view
    asked = read(request, view, key, header(request, b"accept-language"), now_s=who.now_s)
    journal, context = EMPTY, asked.context
    if decided != "personalised":
        context = replace(context, seed=0)
    elif key is not None:
        journal = await resources.journals.read(view.tenant.id, key)
    wanted = _items(request)
    run = await asyncio.to_thread(replayed, view, journal, context, asked.limit)
    said = await asyncio.to_thread(explained, run, None, wanted)
    personal = "personalised" if run.is_personal else "cold_start"
    mode = personal if decided == "personalised" else UNFLAGGED[decided][0]
    return answer({"mode": mode, **_made_from(run), **said})


async def explain(request: Request) -> Response:
    """Why each item of a page of the last 24 hours is where it is; also why a given item is not there.

    The page is made again from what it was made from. `identical` says whether that gave the same items; if not,
    what is explained is the page as it was made now, held against the items that were served.
    """
    who = caller(request, "sk")
    past = who.resources.past
    served = await past.serves.find(request.path_params["request_id"], now_s=who.now_s, tenant=who.tenant)
    again = await replay(past, served)
    run = again.made.listed
    said = await asyncio.to_thread(explained, run, served.items, _items(request))
    facts = {"request_id": served.request_id, "mode": served.mode, "identical": again.identical}
    return answer({**facts, **_made_from(run), **said})


def _made_from(run: Ranked) -> dict[str, Any]:
    return {
        "at": instant(run.context.now_s),
        "generation": run.view.snapshot.generation,
        "policy_version": run.view.policy_version,
        "arm": run.view.arm or None,
        "seed": run.context.seed,
    }


def _items(request: Request) -> list[str]:
    wanted = request.query_params.getlist("item")
    if len(wanted) > MAX_ITEMS:
        raise InvalidRequest([Problem("/query/item", f"comes {len(wanted)} times; {MAX_ITEMS} are allowed")])
    return wanted
