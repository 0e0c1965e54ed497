"""What a content team decides: GET and PUT /v1/admin/policy, and :validate, :preview, :publish, :rollback.

The ETag names the live version and the draft together; every write needs it in If-Match.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from ranking.context import Context
from ranking.hints import AGE_BANDS, age_ceiling, country_code, language_code
from ranking.policy import Policy
from retrieval.arms import in_arm
from retrieval.errors import InvalidInput, NotFound, Problem
from retrieval.flags import COHORTS, cohort
from retrieval.journal import EMPTY, Journal
from retrieval.policies import PolicyVersion, Standing
from retrieval.tables import GLOBAL
from retrieval.view import View
from service import preview
from service.admin import Caller, answer, body, caller, instant, seconds
from service.auth import rekeyed
from service.checks import as_json, schema_problems
from service.errors import InvalidRequest
from service.ranked import layers, samples, under
from service.requests import if_match, object_of, text_of, versions_in, whole_number

MAX_USERS: Final = 10
MAX_PREVIEW: Final = 50
SITUATION: Final = ("surface", "language", "country", "age_band", "cohort", "at")
HINTS: Final = MappingProxyType(
    {
        "language": "must be an ISO 639-1 code, like de",
        "country": "must be an ISO 3166-1 alpha-2 code, like DE",
        "age_band": f"must be one of {', '.join(AGE_BANDS)}",
        "cohort": f"must be one of {', '.join(COHORTS)}",
    }
)


async def get_policy(request: Request) -> Response:
    """The live policy, the draft, and every resolved value with the layer that set it; `version`: an older one."""
    who = caller(request, "sk", "adm")
    if "version" in request.query_params:
        number = whole_number(request, "version", 1, most=2**53)
        return answer(_version(await who.resources.policies.get(who.tenant, number)))
    standing = await who.resources.policies.standing(who.tenant)
    draft = standing.draft
    return answer(
        {
            "scope": who.tenant or "global",
            "live": _version(standing.live) if standing.live else None,
            "draft": {"policy": draft.body, "author": draft.author, "saved_at": instant(draft.updated_s)}
            if draft
            else None,
            "resolved": _resolved(who, standing.live.body if standing.live else {}),
        },
        tag=_tag(standing),
    )


async def get_history(request: Request) -> Response:
    """What was published, newest first."""
    who = caller(request, "sk", "adm")
    limit = whole_number(request, "limit", 20, most=100)
    return answer({"versions": [_version(one) for one in await who.resources.policies.history(who.tenant, limit)]})


async def put_draft(request: Request) -> Response:
    """Save a draft: {"policy": {...}, "author": "..."}. The schema must be right; the dry run comes with :publish."""
    who = caller(request, "sk", "adm")
    live, draft = versions_in(if_match(request), 2)
    value = object_of(await body(request), "policy", "author")
    (author,) = text_of(value, "author")
    document = await _sound(who, value.get("policy"))
    saved = await who.resources.policies.save_draft(
        who.tenant, document, author, if_version=live, if_draft=draft, now_s=who.now_s
    )
    return answer({"draft": {"policy": saved.body, "author": author}}, tag=f"{live}.{saved.version}")


async def validate(request: Request) -> Response:
    """What :publish would say of the draft, or of {"policy": {...}}; `users` adds real users to the dry run."""
    who = caller(request, "sk", "adm")
    value = object_of(await body(request), "policy", "users")
    users = await _journals(who, _keys(who, value.get("users", [])))
    verdict = await who.resources.publishing.judged(who.tenant, await _wanted(who, value), now_s=who.now_s, users=users)
    return answer(as_json(verdict))


async def publish(request: Request) -> Response:
    """Make the draft live: {"author", "reason"}. Live in every worker within two seconds; 422 if it may not be."""
    who = caller(request, "sk", "adm")
    live, draft = versions_in(if_match(request), 2)
    author, reason = text_of(object_of(await body(request), "author", "reason"), "author", "reason")
    document = await _wanted(who, {})
    version, verdict = await who.resources.publishing.publish(
        who.tenant, document, author, reason, if_version=live, if_draft=draft, now_s=who.now_s
    )
    return answer({"version": version, **as_json(verdict)}, tag=f"{version}.0")


async def roll_back(request: Request) -> Response:
    """Publish an old version as a new one: {"version", "author", "reason"}. Not tried again: it has been live."""
    who = caller(request, "sk", "adm")
    live, _ = versions_in(if_match(request), 2)
    value = object_of(await body(request), "version", "author", "reason")
    author, reason = text_of(value, "author", "reason")
    if type(value.get("version")) is not int:
        raise InvalidRequest([Problem("/version", "must be the number of a published version")])
    version = await who.resources.policies.roll_back(who.tenant, value["version"], author, reason, live, who.now_s)
    return answer({"version": version}, tag=f"{version}.0")


async def preview_policy(request: Request) -> Response:
    """The draft (or {"policy": {...}}) beside what is live, each item with its reasons.

    `users`: user ids as the app sends them, beside a cold and three made-up ones. `at`, `country`, `language`,
    `age_band`, `surface`, `cohort`, `arm`: when, where and who. `limit`: 1 to 50.
    """
    who = caller(request, "sk")
    value = object_of(await body(request), "policy", "users", "limit", "arm", *SITUATION)
    context, limit = _situation(value, who.now_s), value.get("limit", 20)
    if type(limit) is not int or not 1 <= limit <= MAX_PREVIEW:
        raise InvalidRequest([Problem("/limit", f"must be a whole number from 1 to {MAX_PREVIEW}")])
    keys = _keys(who, value.get("users", []))
    users = await _journals(who, keys)
    policy = layers(_global_body(who), await _sound(who, await _wanted(who, value)))
    arm = value.get("arm")
    if "arm" in value and arm not in policy.arms:
        raise InvalidRequest(
            [Problem("/arm", f"must be an arm of the draft: {', '.join(policy.arms) or 'it has none'}")]
        )
    view = who.resources.live.view(who.tenant or "")
    pages = await asyncio.to_thread(_previewed, view, policy, arm, users, keys, context, limit)
    return answer({"limit": limit, "at": instant(context.now_s), "users": pages})


def _previewed(
    view: View,
    policy: Policy,
    arm: str | None,
    users: Mapping[str, Journal],
    keys: Mapping[str, str],
    context: Context,
    limit: int,
) -> list[dict[str, Any]]:
    """The pages of made-up users and of real ones; the latter in their own cohorts and arms, unless one was asked
    for."""
    drafted = under(view, policy, "draft")
    known = {"cold": EMPTY, **{f"sample {n}": one for n, one in enumerate(samples(view, now_s=context.now_s), 1)}}
    pages = []
    for name, journal in (known | dict(users)).items():
        key = keys.get(name)
        theirs = replace(context, cohort=context.cohort or cohort(view.tenant.id, key))
        live, draft = (in_arm(one, key) if arm is None else one.arms.get(arm, one) for one in (view, drafted))
        pages += preview.compare(live, draft, {name: journal}, theirs, limit)
    return [preview.as_json(one) for one in pages]


async def _wanted(who: Caller, value: Mapping[str, Any]) -> Any:
    """The document in the request, else the draft. Raises NotFound when there is neither."""
    if "policy" in value:
        return value["policy"]
    standing = await who.resources.policies.standing(who.tenant)
    if standing.draft is None:
        raise NotFound("draft", who.tenant or "global")
    return standing.draft.body


async def _sound(who: Caller, document: Any) -> dict[str, Any]:
    """The document, if its schema is right. Raises InvalidInput with every problem."""
    view = None if who.tenant is None else who.resources.live.view(who.tenant)
    playlists = frozenset[str]() if who.tenant is None else await who.resources.playlists.ids(who.tenant)
    problems = schema_problems(document, _global_body(who), view, playlists)
    if problems:
        raise InvalidInput([Problem(f"/policy{one.pointer}", one.message) for one in problems])
    sound: dict[str, Any] = document
    return sound


def _keys(who: Caller, users: Any) -> dict[str, str]:
    """The keys of real users, called user 1, user 2, ... : an id is not repeated back. Raises InvalidRequest."""
    if users == []:
        return {}
    if who.tenant is None or not isinstance(users, list) or len(users) > MAX_USERS:
        raise InvalidRequest([Problem("/users", f"must be at most {MAX_USERS} user ids of one tenant")])
    pepper = who.resources.live.config.tenants[who.tenant].pepper
    return {f"user {n + 1}": rekeyed(str(one), pepper, f"/users/{n}") for n, one in enumerate(users)}


async def _journals(who: Caller, keys: Mapping[str, str]) -> dict[str, Journal]:
    """The journals of users. Raises StoreUnavailable."""
    found = await asyncio.gather(*(who.resources.journals.read(who.tenant or "", key) for key in keys.values()))
    return dict(zip(keys, found, strict=True))


def _situation(value: Mapping[str, Any], now_s: int) -> Context:
    """When and where a preview is asked for. Raises InvalidRequest for a hint that is on no list."""
    hints = {name: value.get(name, "") for name in SITUATION[:-1]}
    problems = [Problem(f"/{name}", "must be text") for name, hint in hints.items() if not isinstance(hint, str)]
    if not problems:
        language, country, band = language_code(hints["language"]), country_code(hints["country"]), hints["age_band"]
        off_list = {"language": language < 0, "country": country < 0, "age_band": band not in AGE_BANDS}
        off_list["cohort"] = hints["cohort"] not in COHORTS
        problems = [Problem(f"/{name}", HINTS[name]) for name, off in off_list.items() if hints[name] and off]
    if problems:
        raise InvalidRequest(problems)
    return Context(
        now_s=seconds(value["at"], "/at") if "at" in value else now_s,
        surface=hints["surface"],
        language=language_code(hints["language"]),
        country=country_code(hints["country"]),
        age_band=hints["age_band"],
        max_age=age_ceiling(hints["age_band"]),
        cohort=hints["cohort"],
    )


def _resolved(who: Caller, own_body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every single value that holds, and the layer that set it."""
    policy = layers(own_body, {}) if who.tenant is None else layers(_global_body(who), own_body)
    values = {f"/weights/{name}": weight for name, weight in policy.weights.items()}
    for pointer in policy.provenance:
        _, section, name = pointer.split("/")
        if section != "weights":
            values[pointer] = getattr(getattr(policy, section), name)
    return [{"pointer": one, "value": values[one], "from": layer} for one, layer in policy.provenance.items()]


def _global_body(who: Caller) -> dict[str, Any]:
    return dict(who.resources.live.config.bodies.get(GLOBAL, (0, {}))[1])


def _version(one: PolicyVersion) -> dict[str, Any]:
    said = {"version": one.version, "policy": one.body, "author": one.author, "reason": one.reason}
    return said | {"published_at": instant(one.published_s)}


def _tag(standing: Standing) -> str:
    live, draft = standing.versions
    return f"{live}.{draft}"
