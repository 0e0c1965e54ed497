"""GET and PUT /v1/admin/flags/personalisation, and GET /v1/admin/audit. For operators."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from retrieval.errors import InvalidInput, Problem, StoreUnavailable
from retrieval.flags import MAX_ALLOWED, Flag, is_killed
from retrieval.tables import GLOBAL
from retrieval.tenants import EVERYWHERE
from service.admin import Caller, answer, body, caller, instant, operator
from service.auth import rekeyed
from service.errors import InvalidRequest
from service.requests import if_match, object_of, versions_in, whole_number

FIELDS: Final = ("state", "percentage", "allow", "holdout_percent", "reason", "author")


async def get_flag(request: Request) -> Response:
    """The flag of ?scope= (a tenant or global) as this worker has it; without a scope those of all."""
    if "scope" not in request.query_params:
        who = operator(request)
        flags = who.resources.flags.flags.by_scope
        return answer({"flags": [shape(who, scope, flag) for scope, flag in sorted(flags.items())]})
    who = caller(request, "adm")
    flag = await _current(who)
    return answer(shape(who, who.table_scope, flag), tag=str(flag.version if flag else 0))


async def put_flag(request: Request) -> Response:
    """Change a flag: {"state": on, off, percentage or killed, "reason", and as needed "percentage", "allow",
    "holdout_percent", "author"}. `allow` are user ids as the app sends them; only their re-keyed form is kept.

    In every worker within a second. Works with SQL or Redis away; `stored_in` says which took it.
    """
    who = caller(request, "adm")
    tag = if_match(request)
    # A kill must not fail because somebody else was quicker to change something: * means whatever is there.
    version = None if tag == "*" else versions_in(tag, 1)[0]
    value = object_of(await body(request), *FIELDS)
    author = value.pop("author", "")
    if not isinstance(author, str) or len(author) > 100 or (author and not author.isprintable()):
        raise InvalidRequest([Problem("/author", "must be at most 100 printable characters")])
    if "allow" in value:
        value["allow"] = _user_keys(who, value["allow"])
    if who.tenant is None and value.get("state") == "percentage":
        raise InvalidInput([Problem("/state", "a percentage is for one tenant; for all: on, off or killed")])
    flag, stored_in = await who.resources.flags.set(
        who.table_scope, value, author=f"{author} ({who.who})".strip(), if_version=version
    )
    return answer(shape(who, who.table_scope, flag) | {"stored_in": stored_in}, tag=str(flag.version))


async def get_audit(request: Request) -> Response:
    """Who changed what, newest first: `scope` (a tenant or global), `before` (the id to go on from), `limit`."""
    who = caller(request, "adm") if "scope" in request.query_params else operator(request)
    limit = whole_number(request, "limit", 100, most=500)
    before = whole_number(request, "before", 0, most=2**53) if "before" in request.query_params else None
    scope = who.table_scope if "scope" in request.query_params else None
    entries = await who.resources.audit.page(scope, before_id=before, limit=limit)
    shaped = [
        {
            "id": one.id, "at": instant(one.at_s), "who": one.who, "action": one.action,
            "scope": one.tenant_id or EVERYWHERE, "from": one.before, "to": one.after, "why": one.reason,
        }
        for one in entries
    ]  # fmt: skip
    return answer({"entries": shaped} | ({"next_before": entries[-1].id} if len(entries) == limit else {}))


def shape(who: Caller, scope: str, flag: Flag | None) -> dict[str, Any]:
    """A flag as JSON; the users on the allow-list are only counted. No flag is an unknown one: not personalised."""
    known = who.resources.flags.flags
    said: dict[str, Any] = {"scope": scope or EVERYWHERE, "state": "unknown"}
    if flag is not None:
        said |= {
            "state": "killed" if flag.killed else flag.state, "beneath": flag.state,
            "percentage": flag.percentage, "holdout_percent": flag.holdout_percent, "allowed_users": len(flag.allow),
            "author": flag.author, "reason": flag.reason, "changed_at": instant(flag.changed_s),
        }  # fmt: skip
    if scope in known.killed_here:
        said |= {"killed_by_file": known.killed_here[scope]}
    if scope != GLOBAL and is_killed(known, GLOBAL):
        said |= {"killed_globally": True}
    return said


async def _current(who: Caller) -> Flag | None:
    """What SQL has now, or what this worker knows while SQL is away."""
    try:
        return (await who.resources.flags.stores.table.all()).get(who.table_scope)
    except StoreUnavailable:
        return who.resources.flags.flags.by_scope.get(who.table_scope)


def _user_keys(who: Caller, users: Any) -> list[str]:
    if who.tenant is None or not isinstance(users, list) or len(users) > MAX_ALLOWED:
        raise InvalidRequest([Problem("/allow", f"must be at most {MAX_ALLOWED} user ids of one tenant")])
    pepper = who.resources.live.config.tenants[who.tenant].pepper
    return [rekeyed(str(one), pepper, f"/allow/{number}") for number, one in enumerate(users)]
