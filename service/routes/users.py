"""Erasing a user: DELETE /v1/users/{id}, and the receipt under /v1/erasures/{id}."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from retrieval.erasure import Receipt
from service.admin import instant
from service.auth import rekeyed, view_of
from service.resources import Resources


async def delete_user(request: Request) -> Response:
    """Erase everything about the user whose id the app sends in Feed-User. 202 with the receipt's address.

    The journal is gone with the answer; the archive follows. Asking again is harmless, also for a user nobody knows.
    """
    resources: Resources = request.app.state.resources
    view = view_of(request, resources.live, "sk", now_s=resources.now_s)
    user_key = rekeyed(request.path_params["id"], view.tenant.pepper, "/path/id")
    erasure_id = await resources.erasures.ask(view.tenant.id, user_key, now_s=resources.now_s)
    receipt = await resources.erasures.receipt(view.tenant.id, erasure_id)
    return Response(
        orjson.dumps(_shape(erasure_id, receipt)),
        202,
        {"Location": f"/v1/erasures/{erasure_id}", "Cache-Control": "no-store"},
        "application/json",
    )


async def get_erasure(request: Request) -> Response:
    """How an erasure stands: `pending` or `done`, and how much was found in each store."""
    resources: Resources = request.app.state.resources
    view = view_of(request, resources.live, "sk", now_s=resources.now_s)
    erasure_id = request.path_params["id"]
    receipt = await resources.erasures.receipt(view.tenant.id, erasure_id)
    return Response(orjson.dumps(_shape(erasure_id, receipt)), 200, {"Cache-Control": "no-store"}, "application/json")


def _shape(erasure_id: str, receipt: Receipt) -> dict[str, Any]:
    return {
        "id": erasure_id,
        "state": receipt.state,
        "asked_at": instant(receipt.asked_s),
        "done_at": instant(receipt.done_s),
        "counts": receipt.counts,
    }
