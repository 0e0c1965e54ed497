"""The operations of content teams, servers and operators, as the OpenAPI document tells them. See `operations.py`."""

from __future__ import annotations

from typing import Any, Final

from service.openapi_schemas import FAULTS, MOMENT, Schema, listing, number, or_null, record, text
from service.operation import Answer, Operation, Parameter

ANY: Final[Schema] = {"type": "object"}
NOTE: Final = {"author": "Ada", "reason": "as discussed"}
BODY: Final = ("payload-too-large", "unsupported-media-type", "invalid-config", "overloaded")
CHANGE: Final = (*BODY, "not-found", "version-mismatch", "precondition-required")
READ: Final = ("not-found", "invalid-config", "overloaded")

SCOPE: Final = Parameter("scope", "query", "a tenant, or `global`; only for keys adm_…, which must give it")
TAG: Final = Parameter("If-Match", "header", "the ETag this change starts from; without it 428", text(), '"0.0"')
LIMIT: Final = Parameter("limit", "query", "how many at most", number(minimum=1, maximum=10_000), 10)


def path(name: str, about: str, example: str) -> Parameter:
    """A parameter in the path."""
    return Parameter(name, "path", about, text(minLength=1, maxLength=200), example)


def given(about: str, required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """A body that knows no other fields."""
    return {**record(required, optional, about), "additionalProperties": False}


def shown(about: str, **fields: Schema) -> Answer:
    """A JSON answer with at least these fields."""
    return Answer(about, record(fields), ("Cache-Control",))


def tagged(about: str, **fields: Schema) -> Answer:
    """The same of something that can be changed: its ETag goes into If-Match."""
    return Answer(about, record(fields), ("Cache-Control", "ETag"))


VERSION: Final = record(
    {"version": number(), "policy": ANY, "author": text(), "reason": text(), "published_at": MOMENT}
)
VERDICT: Final = {"errors": FAULTS, "warnings": FAULTS}
FLAG: Final = record({"scope": text(), "state": text(enum=["on", "off", "percentage", "killed", "unknown"])})
STATE_TAG: Final = Parameter("If-Match", "header", "the `tag` of the state this change starts from, or *", text(), "*")
TENANT: Final = record(
    {
        "id": text(),
        "tag": text("for If-Match"),
        "name": text(),
        "status": text(enum=["active", "suspended"]),
        "catalogue_version": number(),
        "created_at": MOMENT,
    }
)
KEY: Final = record(
    {
        "id": text(), "tag": text("for If-Match"), "tenant": or_null(text()), "label": text(),
        "scope": text(enum=["pk", "sk", "adm"]), "valid": {"type": "boolean"}, "created_at": MOMENT,
        "expires_at": or_null(MOMENT), "revoked_at": or_null(MOMENT),
    }
)  # fmt: skip
LISTING: Final = record(
    {
        "tenant": text(), "url": text(), "every_s": number(), "most_gone_percent": number(),
        "tried_at": or_null(MOMENT), "done_at": or_null(MOMENT), "outcome": text(),
    }
)  # fmt: skip
PLAYLIST: Final = {"id": text(), "title": text(), "version": number()}
RECEIPT: Final = {
    "id": text(), "state": text(enum=["pending", "done", "failed"]), "asked_at": or_null(MOMENT),
    "done_at": or_null(MOMENT), "counts": ANY,
}  # fmt: skip
EXPLAINED: Final = {
    "mode": text(), "at": MOMENT, "generation": number(), "policy_version": text(), "seed": number(),
    "arm": or_null(text("EXPERIMENT.ARM the policy is of", examples=["fresher.b"])),
    "items": listing(ANY), "asked_about": listing(ANY),
}  # fmt: skip


def policy(method: str, suffix: str, summary: str, **more: Any) -> Operation:
    """An operation on the policy, by a secret key for its own tenant or by an admin key for a scope."""
    scoped = () if suffix == ":preview" else (SCOPE,)
    also = ("adm",) if scoped else ()
    parameters = (*more.pop("parameters", ()), *scoped)
    return Operation(method, f"/v1/admin/policy{suffix}", summary, "sk", parameters=parameters, also=also, **more)


ADMIN_OPERATIONS: Final = (
    Operation(
        "DELETE", "/v1/users/{id}", "Erase everything about a user, named as the app names them in Feed-User", "sk",
        {202: Answer("begun; the receipt is at Location", record(RECEIPT), ("Location", "Cache-Control"))},
        (path("id", "the user's id, a hash", "5f2d1c0b9a8e7d6c5b4a39281706f5e4d3c2b1a0"),),
        ("not-found", "overloaded"),
    ),
    Operation(
        "GET", "/v1/erasures/{id}", "How an erasure stands", "sk", {200: shown("the receipt", **RECEIPT)},
        (path("id", "of the erasure", "no-such-erasure"),), ("not-found", "overloaded"), examples_fail=404,
    ),
    policy(
        "GET", "", "The live policy, the draft, and every value with the layer that set it",
        answers={200: Answer("the policy; or, asked for `version`, that one", ANY, ("ETag", "Cache-Control"))},
        parameters=(Parameter("version", "query", "an older one", number(minimum=1)),), problems=READ,
    ),
    policy(
        "PUT", "", "Save a draft", answers={200: tagged("saved", draft=ANY)}, parameters=(TAG,),
        problems=CHANGE, body=given("", {"policy": ANY, "author": text()}),
        body_example={"policy": {"weights": {"freshness": 0.3}}, "author": "Ada"},
    ),
    policy(
        "GET", "/history", "What was published, newest first",
        answers={200: shown("versions", versions=listing(VERSION))}, parameters=(LIMIT,), problems=READ,
    ),
    policy(
        "POST", ":validate", "What :publish would say of the draft, or of the policy given",
        answers={200: shown("a verdict", **VERDICT)}, problems=(*BODY, "not-found"),
        body=given("", {}, {"policy": ANY, "users": listing(text())}),
        body_example={"policy": {"weights": {"freshness": 0.3}}},
    ),
    policy(
        "POST", ":preview", "The draft, or the policy given, beside what is live",
        answers={200: shown("pages", limit=number(), at=MOMENT, users=listing(ANY))}, problems=(*BODY, "not-found"),
        body=given(
            "", {},
            {
                "policy": ANY, "users": listing(text()), "limit": number(minimum=1, maximum=50), "at": MOMENT,
                **{name: text() for name in ("surface", "language", "country", "age_band", "cohort", "arm")},
            },
        ),
        body_example={"policy": {"weights": {"freshness": 0.3}}, "limit": 3},
    ),
    policy(
        "POST", ":publish", "Make the draft live", parameters=(TAG,),
        answers={200: tagged("published", version=number(), **VERDICT)}, problems=CHANGE,
        body=given("", {"author": text(), "reason": text()}), body_example=NOTE, examples_fail=412,
    ),
    policy(
        "POST", ":rollback", "Publish an old version as a new one", parameters=(TAG,),
        answers={200: tagged("published", version=number())}, problems=CHANGE,
        body=given("", {"version": number(minimum=1), "author": text(), "reason": text()}),
        body_example={"version": 1, **NOTE}, examples_fail=404,
    ),
    Operation(
        "GET", "/v1/admin/flags/personalisation", "The flag of one scope, or all flags", "adm",
        {200: Answer("the flag; without a scope `flags`, a list", ANY, ("ETag", "Cache-Control"))},
        (Parameter("scope", "query", "a tenant, or `global`"),), ("not-found", "overloaded"),
    ),
    Operation(
        "PUT", "/v1/admin/flags/personalisation", "Switch personalisation; in every worker within a second", "adm",
        {200: Answer("set", record({"stored_in": listing(text())}, FLAG["properties"]), ("ETag", "Cache-Control"))},
        (
            Parameter("scope", "query", "a tenant, or `global`", text(), "acme"),
            Parameter("If-Match", "header", "the flag's ETag, or * for a kill that must not fail", text(), "*"),
        ),
        CHANGE,
        given(
            "a reason is mandatory",
            {"state": text(enum=["on", "off", "percentage", "killed"]), "reason": text()},
            {
                "percentage": number("number", minimum=0, maximum=100), "allow": listing(text()), "author": text(),
                "holdout_percent": number("number", minimum=1, maximum=5),
            },
        ),
        {"state": "on", "reason": "as before"},
    ),
    Operation(
        "GET", "/v1/admin/audit", "Who changed what and why, newest first", "adm",
        {200: shown("entries", entries=listing(ANY))},
        (Parameter("scope", "query", "a tenant, or `global`"), LIMIT,
         Parameter("before", "query", "the id to go on from", number(minimum=1), 1000)),
        ("not-found", "overloaded"),
    ),
    Operation(
        "GET", "/v1/admin/tenants", "Every tenant", "adm", {200: shown("tenants", tenants=listing(TENANT))},
        problems=("overloaded",),
    ),
    Operation(
        "POST", "/v1/admin/tenants", "A new tenant", "adm",
        {201: Answer("made", TENANT, ("Cache-Control",))}, (), (*BODY, "already-exists"),
        given("", {"id": text(), "name": text()}), {"id": "new-app", "name": "New App"},
    ),
    Operation(
        "PATCH", "/v1/admin/tenants/{id}", "Suspend a tenant or bring it back", "adm",
        {200: Answer("changed", TENANT, ("Cache-Control", "ETag"))}, (path("id", "of the tenant", "acme"), STATE_TAG),
        CHANGE, given("", {"status": text(enum=["active", "suspended"]), "reason": text()}),
        {"status": "active", "reason": "all is well"},
    ),
    Operation(
        "GET", "/v1/admin/keys", "Every key, without its secret", "adm", {200: shown("keys", keys=listing(KEY))},
        (Parameter("tenant", "query", "only of this tenant", text(), "acme"),), ("overloaded",),
    ),
    Operation(
        "POST", "/v1/admin/keys", "A new key; its clear text is shown this once", "adm",
        {201: shown("made", id=text(), key=text())}, (), (*BODY, "not-found"),
        given("", {"scope": text(enum=["pk", "sk", "adm"])},
              {"tenant": or_null(text()), "label": text(), "expires_at": MOMENT}),
        {"scope": "pk", "tenant": "acme", "label": "iOS app"},
    ),
    Operation(
        "PATCH", "/v1/admin/keys/{id}", "End a key now or at a moment", "adm",
        {200: Answer("ended", KEY, ("Cache-Control", "ETag"))}, (path("id", "of the key", "key_none"), STATE_TAG),
        CHANGE,
        given("one of the first two", {}, {"revoked": {"type": "boolean"}, "expires_at": MOMENT, "reason": text()}),
        {"revoked": True, "reason": "it leaked"}, examples_fail=404,
    ),
    Operation(
        "GET", "/v1/admin/playlists", "Every playlist of the tenant", "sk",
        {200: shown("playlists", playlists=listing(ANY))}, problems=("overloaded",),
    ),
    Operation(
        "GET", "/v1/admin/playlists/{id}", "One playlist with its videos", "sk",
        {200: tagged("the playlist", **PLAYLIST)}, (path("id", "of the playlist", "none"),),
        ("not-found", "overloaded"), examples_fail=404,
    ),
    Operation(
        "PUT", "/v1/admin/playlists/{id}", "Make or replace a playlist", "sk",
        {200: tagged("the playlist", **PLAYLIST)},
        (path("id", "of the playlist", "mondays"),
         Parameter("If-Match", "header", "its ETag, 0 for a new one", text(), '"0"')),
        CHANGE, given("", {"title": text(), "videos": listing(text())}),
        {"title": "Mondays", "videos": ["talk-1"]},
    ),
    Operation(
        "DELETE", "/v1/admin/playlists/{id}", "Take a playlist away", "sk", {204: Answer("it is gone")},
        (path("id", "of the playlist", "none"), Parameter("If-Match", "header", "its ETag", text(), '"1"')),
        ("not-found", "version-mismatch", "precondition-required", "invalid-config", "overloaded"), examples_fail=404,
    ),
    *(
        Operation(
            method, "/v1/admin/listing", summary, "adm", answers,
            (Parameter("scope", "query", "a tenant", text(), "acme"),), problems, body, example, fails,
        )
        for method, summary, answers, problems, body, example, fails in (
            ("PUT", "Look at this listing of the tenant's CMS from now on (JSON Lines)",
             {200: Answer("set", LISTING, ("Cache-Control",))}, (*BODY, "not-found"),
             given("", {"url": text(format="uri")},
                   {"every_s": number(minimum=10, maximum=86_400),
                    "most_gone_percent": number(minimum=0, maximum=100), "reason": text()}),
             {"url": "https://cms.example/videos.jsonl"}, 0),
            ("GET", "The listing, and how the last look at it ended",
             {200: Answer("the listing", LISTING, ("Cache-Control",))}, READ, None, None, 0),
            ("DELETE", "Look no more; what was taken over stays", {204: Answer("done")}, READ, None, None, 0),
        )
    ),
    Operation(
        "POST", "/v1/admin/webhooks/secrets", "A new signing secret for the CMS, shown this once", "sk",
        {201: shown("made", id=text(), secret=text())}, (), BODY,
        given("", {}, {"overlap_s": number(minimum=0, maximum=90 * 86_400)}), {"overlap_s": 3600},
    ),
    Operation(
        "GET", "/v1/admin/webhooks/deliveries", "The last deliveries and what became of them", "sk",
        {200: shown("deliveries", deliveries=listing(ANY))}, (LIMIT,), ("overloaded",),
    ),
    Operation(
        "POST", "/v1/webhooks/cms", "A delivery of the CMS, signed as in Standard Webhooks; 202 once stored", None,
        {202: shown("stored, or known already", id=text(), status=text(enum=["stored", "known"]))},
        (
            Parameter("tenant", "query", "whose secret to check it with", text(), "acme"),
            *(Parameter(f"webhook-{name}", "header", "see Standard Webhooks", text(), "1")
              for name in ("id", "timestamp", "signature")),
        ),
        ("unauthenticated", "tenant-suspended", *BODY, "not-found"), ANY, {"type": "video.updated", "data": {}},
        examples_fail=401,
    ),
    Operation(
        "GET", "/v1/explain/{request_id}", "Why each item of an answered page is where it is", "sk",
        {200: shown("an explanation", request_id=text(), identical={"type": "boolean"}, **EXPLAINED)},
        (
            path("request_id", "of the page", "0" * 24),
            Parameter("item", "query", "a video that is not on the page: why not?", text(), "talk-1"),
        ),
        ("not-found", "gone", "overloaded"), examples_fail=404,
    ),
)  # fmt: skip
