"""`policy`: lint, diff, publish, roll back, look at, and explain."""

from __future__ import annotations

import difflib
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from ranking.context import Context
from ranking.hints import AGE_BANDS, age_ceiling, country_code, language_code
from retrieval.arms import in_arm
from retrieval.errors import NotFound
from retrieval.flags import cohort
from retrieval.journal import EMPTY
from service.admin import instant, seconds
from service.auth import rekeyed
from service.checks import Verdict, as_json
from service.explain import explained
from service.operator.console import (
    AsJson,
    Desk,
    Reason,
    Scope,
    TenantName,
    cell,
    now_s,
    opened,
    read_json,
    run,
    scope_of,
    show,
    table_of,
    tenant_or_all,
    who,
)
from service.publishing import PolicyRefused
from service.ranked import replayed
from service.replay import replay

policy = typer.Typer(no_args_is_help=True, help="Weights and rules.")

File = Annotated[Path, typer.Argument(help="the policy as JSON; - for standard input")]


@policy.command()
def lint(file: File, scope: Scope, as_json_: AsJson = False) -> None:
    """Everything `publish` would say about a file. Exit status 1 if it would refuse it."""

    async def command() -> Verdict:
        async with opened() as desk:
            publishing = await desk.publishing(scope_of(scope))
            return await publishing.judged(tenant_or_all(scope), read_json(file), now_s=now_s(), users={})

    verdict = run(command())
    _show_verdict(verdict, as_json_)
    raise typer.Exit(1 if verdict.errors else 0)


@policy.command()
def diff(
    scope: Scope,
    file: Annotated[Path | None, typer.Argument(help="the new policy; default: the draft")] = None,
    version: Annotated[int | None, typer.Option(help="compare with this version; default: the live one")] = None,
) -> None:
    """What would change, line by line. Exit status 1 if anything would."""

    async def command() -> tuple[str, Any, Any]:
        async with opened() as desk:
            standing = await desk.policies.standing(tenant_or_all(scope))
            if file is None and standing.draft is None:
                raise NotFound("draft", scope)
            new = read_json(file) if file is not None else standing.draft.body  # type: ignore[union-attr]  # not None here
            if version is not None:
                return f"version {version}", (await desk.policies.get(tenant_or_all(scope), version)).body, new
            return f"version {standing.versions[0]} (live)", standing.live.body if standing.live else {}, new

    name, old, new = run(command())
    said = difflib.unified_diff(_lines(old), _lines(new), name, "new", lineterm="", n=3)
    text = "\n".join(said)
    if text:
        Console().print(Syntax(text, "diff", background_color="default", word_wrap=True))
    raise typer.Exit(1 if text else 0)


@policy.command()
def publish(
    file: File,
    scope: Scope,
    reason: Reason,
    if_version: Annotated[
        int | None, typer.Option(help="refuse if another version is live; default: whatever is")
    ] = None,
    as_json_: AsJson = False,
) -> None:
    """Make a file live, if nothing speaks against it. In every worker within two seconds."""

    async def command() -> tuple[int | None, Verdict]:
        async with opened() as desk:
            tenant, document = tenant_or_all(scope), read_json(file)
            publishing = await desk.publishing(scope_of(scope))
            live = (await desk.policies.standing(tenant)).versions[0] if if_version is None else if_version
            try:
                return await publishing.publish(
                    tenant, document, who(), reason, if_version=live, if_draft=None, now_s=now_s()
                )
            except PolicyRefused as refused:
                return None, refused.verdict

    version, verdict = run(command())
    _show_verdict(verdict, as_json_, version)
    raise typer.Exit(1 if version is None else 0)


@policy.command()
def rollback(
    version: Annotated[int, typer.Argument(help="the version to publish again")], scope: Scope, reason: Reason
) -> None:
    """Publish an old version as a new one."""

    async def command() -> int:
        async with opened() as desk:
            tenant = tenant_or_all(scope)
            live = (await desk.policies.standing(tenant)).versions[0]
            return await desk.policies.roll_back(tenant, version, who(), reason, live, now_s())

    show({"scope": scope, "version": run(command()), "same_as": version}, False)


@policy.command()
def history(scope: Scope, as_json_: AsJson = False) -> None:
    """What was published, newest first."""

    async def command() -> list[dict[str, Any]]:
        async with opened() as desk:
            return [
                {"version": one.version, "at": instant(one.published_s), "who": one.author, "why": one.reason,
                 "rules": len(one.body.get("rules", ())), "weights": one.body.get("weights", {})}
                for one in await desk.policies.history(tenant_or_all(scope))
            ]  # fmt: skip

    found = run(command())
    names = ("version", "at", "who", "why", "rules", "weights")
    show(found, as_json_, table_of(names, [[one[name] for name in names] for one in found]))


@policy.command("show")
def show_policy(
    scope: Scope,
    version: Annotated[int | None, typer.Option(help="default: the live one")] = None,
) -> None:
    """One policy as JSON, to be edited and published again."""

    async def command() -> Any:
        async with opened() as desk:
            if version is not None:
                return (await desk.policies.get(tenant_or_all(scope), version)).body
            live = (await desk.policies.standing(tenant_or_all(scope))).live
            return live.body if live else {}

    sys.stdout.write("\n".join(_lines(run(command()))) + "\n")


@policy.command()
def explain(
    tenant: TenantName,
    user: Annotated[str | None, typer.Option(help="user id as the app sends it; default: nobody in particular")] = None,
    request: Annotated[str | None, typer.Option(help="request id of a page of the last 24 hours")] = None,
    item: Annotated[list[str] | None, typer.Option(help="only this video, also if it is not there; repeatable")] = None,
    limit: Annotated[int, typer.Option(min=1, max=50)] = 20,
    at: Annotated[str | None, typer.Option(help="time with an offset; default: now")] = None,
    surface: Annotated[str, typer.Option()] = "",
    country: Annotated[str, typer.Option(help="ISO 3166-1 alpha-2")] = "",
    language: Annotated[str, typer.Option(help="ISO 639-1")] = "",
    age_band: Annotated[str, typer.Option(help="one of " + ", ".join(AGE_BANDS))] = "",
    as_json_: AsJson = False,
) -> None:
    """Why each item of a page is where it is, and why another one is not."""
    context = Context(
        now_s=now_s() if at is None else seconds(at, "--at"),
        surface=surface,
        language=language_code(language),
        country=country_code(country),
        age_band=age_band if age_band in AGE_BANDS else "",
        max_age=age_ceiling(age_band),
    )

    async def command() -> dict[str, Any]:
        async with opened() as desk:
            if request is not None:
                return await _explained_again(desk, tenant, request, item or [])
            return await _explained(desk, tenant, user, item or [], context, limit)

    said = run(command())
    if as_json_:
        show(said, True)
        return
    for one in said["asked_about"] if item else said["items"]:
        Console().print(explanation(one))


def explanation(one: dict[str, Any]) -> Table | Text:
    """One explained item as a person reads it: what it scored and why, then what was done to it."""
    place = "not on the page" if one["position"] is None else f"position {one['position']}"
    title = f"[bold]{escape(one['id'])}[/]  {place}"
    if "missing" in one:
        title += f"  [red]{escape(one['missing']['why'])}[/]"
    if "features" not in one:
        return Text.from_markup(title)
    sources = ", ".join(f"{each['source']} {each['rank'] or ''}".strip() for each in one["sources"])
    title += f"\n{one['reason'] or '-'}, by {one['placed_by'] or '-'}; from {sources}; similarity {one['similarity']}"
    table = Table("", "value", "weight", "set by", "adds", title=title, title_justify="left", title_style="")
    for feature in one["features"]:
        if feature["weight"]:
            names = ("value", "weight", "weight_from", "contribution")
            table.add_row(feature["feature"], *(cell(feature[name]) for name in names))
    table.add_section()
    table.add_row("sum", "", "", "", cell(one["base"]))
    for rule in one["rules"]:
        moved = f"rank {cell(rule['rank_before'])} -> {cell(rule['rank_after'])}" if "rank_before" in rule else ""
        table.add_row(f"rule {escape(rule['rule'])}", rule["kind"], cell(rule.get("factor")), rule["layer"], moved)
    ranks = one["ranks"]
    steps = ("by_features", "after_boost_and_bury", "after_diversity", "final")
    table.add_row("ranks", "", "", "", " -> ".join(cell(ranks[step]) for step in steps))
    return table


async def _explained(
    desk: Desk, tenant: str, user: str | None, wanted: list[str], context: Context, limit: int
) -> dict[str, Any]:
    """The first page that a user would get."""
    view = (await desk.served([tenant])).view(tenant)
    key = rekeyed(user, view.tenant.pepper, "--user") if user else None
    view = in_arm(view, key)
    journal = EMPTY if key is None else await desk.journals.read(tenant, key)
    # The seed that the feed takes for this user at this hour, so that it is the same page.
    seed = zlib.crc32(f"{key}:{context.now_s // 3600}".encode())
    context = replace(context, seed=seed, cohort=cohort(tenant, key))
    return explained(replayed(view, journal, context, limit), None, wanted)


async def _explained_again(desk: Desk, tenant: str, request_id: str, wanted: list[str]) -> dict[str, Any]:
    """A page that was served."""
    served = await desk.serves.find(request_id, now_s=now_s(), tenant=tenant)
    again = await replay(await desk.past(tenant), served)
    return {"identical": again.identical, **explained(again.made.listed, served.items, wanted)}


def _lines(body: Any) -> list[str]:
    return orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode().splitlines()


def _show_verdict(verdict: Verdict, as_json_: bool, version: int | None = None) -> None:
    if as_json_:
        show({"version": version, **as_json(verdict)}, True)
        return
    rows = [("error", one.pointer, one.message) for one in verdict.errors]
    rows += [("warning", one.pointer, one.message) for one in verdict.warnings]
    if rows:
        Console().print(table_of(("", "where", "what"), rows))
    said = "refused" if verdict.errors else "may be published" if version is None else f"live as version {version}"
    Console().print(f"{said}; rules drive at most {verdict.driven_share:.0%} of a page ({len(verdict.runs)} dry runs)")
