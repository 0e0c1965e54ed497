"""Why is an item there, and why is another one not? `GET /v1/feed?explain=1` and `GET /v1/explain/{request_id}`.

Both need a secret key: an explanation says what a user likes. `?item=` (repeatable) asks about any other video.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import structlog
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.requests import Request
from starlette.responses import Response

from ranking.context import Context
from retrieval.errors import Problem, StoreUnavailable
from retrieval.journal import EMPTY, Journal, Signal
from retrieval.recall import HINTS, Answered
from retrieval.view import View
from service.admin import Caller, answer, caller, instant
from service.auth import user_key
from service.errors import InvalidRequest
from service.explain import Explainer
from service.feed import Asked, Page
from service.ranked import replayed
from service.resources import Resources
from service.routes.feed import feed, read

log = structlog.get_logger("service")

MAX_ITEMS: Final = 20


async def feed_or_explained(request: Request) -> Response:
    """The feed; with ?explain=1 the same page and why. Each page is noted, so that it can be explained later."""
    if request.query_params.get("explain") == "1":
        return await explained_feed(request)
    response = await feed(request)
    page: tuple[Asked, Page] | None = getattr(request.state, "page", None)
    if page is not None and response.status_code == 200:
        noted = BackgroundTask(_note, request.app.state.resources, response.headers["x-request-id"], *page)
        response.background = BackgroundTasks([*([response.background] if response.background else []), noted])
    return response


async def explained_feed(request: Request) -> Response:
    """The first page a user would get now, with everything that went into it. Nothing is noted as served."""
    who = caller(request, "sk")
    resources = who.resources
    view = resources.live.view(who.tenant or "")
    key = user_key(request, view.tenant.pepper)
    asked = read(request, view, key, request.headers.get("accept-language", ""), now_s=who.now_s)
    mode = resources.flags.decide(view.tenant.id, key)
    journal, context = EMPTY, asked.context
    if mode != "personalised":
        context = replace(context, seed=0)
    elif key is not None:
        journal = await resources.journals.read(view.tenant.id, key)
    said = await asyncio.to_thread(_explained, view, journal, context, asked.limit, None, _items(request))
    return answer({"mode": mode, **_made_from(view, context), **said})


async def explain(request: Request) -> Response:
    """Why each item of an answered page is where it is; also why a given item is not there.

    Worked out again from what was noted: the user's journal as it was then, under the catalogue and the policy as they
    are now. `same_versions` says whether those are still the ones of the page.
    """
    who: Caller = caller(request, "sk")
    resources, tenant = who.resources, who.tenant or ""
    page = await resources.recall.find(tenant, request.path_params["request_id"])
    view = resources.live.view(tenant)
    journal = EMPTY
    if page.user_key is not None and page.mode in ("personalised", "cold_start"):
        journal = before(await resources.journals.read(tenant, page.user_key), page.at_s)
    said = await asyncio.to_thread(_explained, view, journal, page.context, page.limit, page.items, _items(request))
    same = (page.generation, page.policy_version) == (view.snapshot.generation, view.policy_version)
    made_from = _made_from(view, page.context)
    return answer({"request_id": page.request_id, "mode": page.mode, "same_versions": same, **made_from, **said})


def before(journal: Journal, at_s: int) -> Journal:
    """The journal as it was when a page was made at `at_s`: without what came later, and without that page itself."""
    at = journal["at_s"]
    earlier: Journal = journal[(at < at_s) | ((at == at_s) & (journal["signal"] != Signal.SERVED))]
    return earlier


def _explained(
    view: View, journal: Journal, context: Context, limit: int, items: Sequence[int] | None, wanted: Sequence[str]
) -> dict[str, Any]:
    explainer = Explainer(replayed(view, journal, context, limit))
    page = explainer.page() if items is None else [explainer.numbered(item) for item in items]
    return {"items": page, "asked_about": [explainer.missing(one) for one in wanted]}


def _made_from(view: View, context: Context) -> dict[str, Any]:
    return {
        "at": instant(context.now_s),
        "generation": view.snapshot.generation,
        "policy_version": view.policy_version,
        "seed": context.seed,
    }


def _items(request: Request) -> list[str]:
    wanted = request.query_params.getlist("item")
    if len(wanted) > MAX_ITEMS:
        raise InvalidRequest([Problem("/query/item", f"comes {len(wanted)} times; {MAX_ITEMS} are allowed")])
    return wanted


async def _note(resources: Resources, request_id: str, asked: Asked, page: Page) -> None:
    """After the answer: keep what it takes to explain it. Best effort."""
    frozen = page.frozen
    seed = asked.context.seed if frozen is None else frozen.seed
    hints = {name: getattr(asked.context, name) for name in HINTS} | {"seed": seed}
    answered = Answered(
        request_id=request_id,
        user_key=asked.user_key,
        at_s=asked.context.now_s if frozen is None else frozen.made_s,
        limit=asked.limit,
        mode=page.mode,
        generation=asked.view.snapshot.generation,
        policy_version=asked.view.policy_version,
        items=np.asarray(page.items).tolist(),
        hints=hints,
    )
    try:
        await resources.recall.note(asked.view.tenant.id, answered)
    except StoreUnavailable as error:
        log.debug("page_not_noted", error=str(error))
