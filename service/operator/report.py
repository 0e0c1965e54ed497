"""`report`: what personalisation is worth, from the archive: no dashboard, no other store of events.

Per tenant: adoption, click-through and watch-through by mode and by arm of an experiment, cold start against the
newcomers of the hold-out, how much of the catalogue is used, how soon a new video is in a feed.
`retrieval/reporting.py` says what is counted, and `service/operator/intervals.py` how sure each figure is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console

from service.admin import instant
from service.operator.console import AsJson, Desk, fail, now_s, opened, run, show, table_of
from service.operator.intervals import NOTHING, Estimate, difference, drawn_again, share, share_by_user
from service.page import MODES

if TYPE_CHECKING:
    from retrieval.archive import Archive
    from retrieval.reporting import Published, Time

DAY_S: Final = 86_400
SEED: Final = 1
"""Of the draws of the bootstrap: the same archive gives the same report."""
SLOW_PERCENTILE: Final = 95

Rows = Sequence[Mapping[str, Any]]


def report(
    tenant: Annotated[list[str] | None, typer.Option(help="tenant id; repeatable; default: all of them")] = None,
    days: Annotated[float, typer.Option(min=0.01, max=90, help="how far back")] = 7,
    until: Annotated[datetime | None, typer.Option(help="end of the time, UTC; default: now")] = None,
    as_json: AsJson = False,
) -> None:
    """Adoption, CTR and watch-through by mode, cold start against the hold-out, coverage, freshness; 95 % intervals."""
    until_s = now_s() if until is None else int(until.replace(tzinfo=UTC).timestamp())
    since_s = until_s - round(days * DAY_S)

    async def command() -> list[dict[str, Any]]:
        from retrieval.archive import Archive  # here, because it loads a heavy library that few commands want

        async with opened() as desk:
            known = [one.id for one in await desk.tenants.list()]
            for name in tenant or ():
                if name not in known:
                    fail(f"no such tenant: {name}; there are {', '.join(known) or 'none'}")
            archive = Archive(desk.settings.archive_url)
            return [await reported(desk, archive, one, since_s, until_s) for one in tenant or known]

    found = {"from": instant(since_s), "until": instant(until_s), "tenants": run(command())}
    if as_json:
        show(found, True)
    else:
        _print(found)


async def reported(desk: Desk, archive: Archive, tenant: str, since_s: int, until_s: int) -> dict[str, Any]:
    """The report of one tenant as JSON. Raises StoreUnavailable."""
    from retrieval import reporting  # as above

    time = reporting.Time(since_s, until_s)
    done = reporting.activity(archive, tenant, time)
    return {
        "tenant": tenant,
        **_adoption(done.pages),
        "modes": [{"mode": mode, **_figures("mode", mode, done.pages, done.slots)} for mode in MODES],
        "arms": _arms(done.pages, done.slots),
        **_cold_start(done.slots),
        **_catalogue(done.first_served, await reporting.published(desk.engine, tenant), time),
    }


def _adoption(pages: Rows) -> dict[str, Any]:
    """How many of the users who got a page got a personalised one."""
    users = {row["who"] for row in pages if not row["anonymous"]}
    personal = {row["who"] for row in pages if not row["anonymous"] and row["mode"] == "personalised"}
    total = sum(row["pages"] for row in pages)
    return {"pages": total, "users": len(users), "adoption": share(len(personal), len(users)).as_dict()}


def _figures(column: str, value: str, pages: Rows, slots: Rows) -> dict[str, Any]:
    """Pages, users, click-through and watch-through of the rows with a value in a column."""
    mine, shown = _where(column, value, pages), _where(column, value, slots)
    return {
        "pages": sum(row["pages"] for row in mine),
        "users": len({row["who"] for row in mine if not row["anonymous"]}),
        "ctr": _ctr(shown).as_dict(),
        "watch_through": _watch_through(shown).as_dict(),
    }


def _arms(pages: Rows, slots: Rows) -> list[dict[str, Any]]:
    """Every arm of every experiment; its click-through minus that of the control, the first of its arms by name."""
    ctrs = {arm: _ctr(_where("arm", arm, slots)) for arm in sorted({row["arm"] for row in pages} - {""})}
    found = []
    for arm, ctr in ctrs.items():
        control = next(one for one in ctrs if one.partition(".")[0] == arm.partition(".")[0])
        minus = NOTHING if arm == control else difference(ctr, ctrs[control])
        found.append({"arm": arm, **_figures("arm", arm, pages, slots), "ctr_minus_control": minus.as_dict()})
    return found


def _where(column: str, value: str, rows: Rows) -> Rows:
    return [row for row in rows if row[column] == value]


def _ctr(rows: Rows) -> Estimate:
    by_user = _by_user(rows)
    return share_by_user(by_user[:, 1], by_user[:, 0])


def _watch_through(slots: Rows) -> Estimate:
    """The mean fraction watched of what was shown; users are drawn again."""
    by_user = _by_user(slots)

    def mean(users: npt.NDArray[np.int64]) -> float:
        shown, _, watched = by_user[users].sum(axis=0)
        return float(watched / shown)

    return drawn_again(mean, len(by_user), round(by_user[:, 0].sum()), np.random.default_rng(SEED))


def _cold_start(slots: Rows) -> dict[str, Any]:
    """Users without a taste yet: those who got a cold start, and those whom the hold-out kept from it."""
    cold = _ctr([row for row in _where("mode", "cold_start", slots) if not row["anonymous"]])
    held_out = _ctr([row for row in _where("mode", "holdout", slots) if row["newcomer"]])
    return {
        "cold_start_ctr": cold.as_dict(),
        "holdout_newcomer_ctr": held_out.as_dict(),
        "cold_start_minus_holdout": difference(cold, held_out).as_dict(),
    }


def _catalogue(first_served: Rows, offered: Published, time: Time) -> dict[str, Any]:
    """How much of what is published was in a feed, and after how many seconds what is new was."""
    first = {row["item"]: row["first_s"] for row in first_served}
    items = dict(zip(offered.items.tolist(), offered.stored_s.tolist(), strict=True))
    new = {item for item, stored_s in items.items() if time.since_s <= stored_s < time.until_s}
    waited_s = np.array([max(first[item] - items[item], 0) for item in sorted(new & set(first))], np.float64)
    rng = np.random.default_rng(SEED)
    n = len(waited_s)
    return {
        "published": len(items),
        "coverage": len(items.keys() & first.keys()) / len(items) if items else None,  # all of them: no interval
        "new_videos": len(new),
        "new_served": n,
        "first_served_median_s": drawn_again(lambda i: float(np.median(waited_s[i])), n, n, rng).as_dict(),
        "first_served_p95_s": float(np.percentile(waited_s, SLOW_PERCENTILE)) if n else None,
    }


def _by_user(rows: Rows) -> npt.NDArray[np.float64]:
    """float64[users, 3]: shown, taken, watched of each user, whatever rows they are spread over."""
    sums: dict[str, list[float]] = {}
    for row in rows:
        mine = sums.setdefault(row["who"], [0.0, 0.0, 0.0])
        for place, name in enumerate(("shown", "taken", "watched")):
            mine[place] += row[name]
    return np.array([sums[who] for who in sorted(sums)], np.float64).reshape(-1, 3)


def _print(found: dict[str, Any]) -> None:
    console = Console()
    console.print(f"{found['from']} to {found['until']}; 95 % intervals", highlight=False)
    if not found["tenants"]:
        console.print("there are no tenants")
        return
    for columns, lines in (
        (("tenant", "pages", "users", "adoption", "coverage", "new", "served", "first after", "95 %"), _tenant_lines),
        (("tenant", "mode", "pages", "users", "shown", "CTR", "watch-through"), _mode_lines),
        (("tenant", "cold-start CTR", "hold-out newcomers", "difference"), _cold_start_lines),
        (("tenant", "arm", "pages", "users", "shown", "CTR", "minus control", "watch-through"), _arm_lines),
    ):
        rows = [line for one in found["tenants"] for line in lines(one)]
        if rows:
            console.print(table_of(columns, rows))


def _tenant_lines(one: dict[str, Any]) -> list[tuple[Any, ...]]:
    slow_s = one["first_served_p95_s"]
    used = None if one["coverage"] is None else f"{one['coverage']:.1%} of {one['published']}"
    wait = _seconds(one["first_served_median_s"]), None if slow_s is None else f"{slow_s:,.0f} s"
    counts = one["new_videos"], one["new_served"]
    return [(one["tenant"], one["pages"], one["users"], _percent(one["adoption"]), used, *counts, *wait)]


def _mode_lines(one: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (one["tenant"], row["mode"], row["pages"], row["users"], row["ctr"]["n"], _percent(row["ctr"]),
         _percent(row["watch_through"]))
        for row in one["modes"] if row["pages"]
    ]  # fmt: skip


def _arm_lines(one: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (one["tenant"], row["arm"], row["pages"], row["users"], row["ctr"]["n"], _percent(row["ctr"]),
         _percent(row["ctr_minus_control"]), _percent(row["watch_through"]))
        for row in one["arms"]
    ]  # fmt: skip


def _cold_start_lines(one: dict[str, Any]) -> list[tuple[Any, ...]]:
    names = ("cold_start_ctr", "holdout_newcomer_ctr", "cold_start_minus_holdout")
    return [(one["tenant"], *(_percent(one[name]) for name in names))]


def _percent(estimate: Mapping[str, Any]) -> str | None:
    if estimate["value"] is None:
        return None
    if estimate["low"] is None:
        return f"{estimate['value']:.1%}"
    return f"{estimate['value']:.1%} ({estimate['low']:.1%} to {estimate['high']:.1%})"


def _seconds(estimate: Mapping[str, Any]) -> str | None:
    if estimate["value"] is None:
        return None
    if estimate["low"] is None:
        return f"{estimate['value']:,.0f} s"
    return f"{estimate['value']:,.0f} s ({estimate['low']:,.0f} to {estimate['high']:,.0f})"
