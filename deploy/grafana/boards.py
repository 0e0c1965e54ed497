"""What the dashboards show: one table of panels each. `python -m deploy.grafana` writes them as Grafana's JSON.

A query is PromQL over the metrics of docs/observability.md; `$tenant` is chosen on the dashboard. Times of objectives
are drawn as lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True)
class Panel:
    """One picture: `queries` by the legend of their lines (`{{label}}` is replaced), `lines` are limits to stay below.

    `unit` is Grafana's name of one: s, percentunit, reqps, short, bytes, d (days), none.
    """

    title: str
    queries: Mapping[str, str]
    unit: str = "short"
    lines: Sequence[float] = ()
    words: str = ""


@dataclass(frozen=True)
class Board:
    """One dashboard: rows of panels by their heading. `by_tenant`: a tenant is chosen on it."""

    title: str
    rows: Mapping[str, Sequence[Panel]] = field(default_factory=dict)
    by_tenant: bool = False


def _quantile(q: float, metric: str, by: str, where: str = "") -> str:
    return f"histogram_quantile({q}, sum by (le{by}) (rate({metric}_bucket{where}[5m])))"


FEED: Final = '{route="/v1/feed"}'
PAGES: Final = "sum(rate(feed_pages_total[5m]))"

FEEDS: Final = Board(
    "Feeds",
    {
        "Against the objectives": [
            Panel(
                "Time of a feed",
                {
                    "p99": _quantile(0.99, "feed_http_request_seconds", "", FEED),
                    "p95": _quantile(0.95, "feed_http_request_seconds", "", FEED),
                    "p50": _quantile(0.5, "feed_http_request_seconds", "", FEED),
                },
                "s",
                (0.25, 0.6),
                "The objectives are p95 < 0.25 s and p99 < 0.6 s.",
            ),
            Panel(
                "Error budget: share of requests outside the objective, last hour",
                {
                    "over 0.6 s (1 % allowed)": "feed:over_600ms:ratio_rate1h",
                    "over 0.25 s (5 % allowed)": "feed:over_250ms:ratio_rate1h",
                    "failed (0.1 % allowed)": "feed:unavailable:ratio_rate1h",
                },
                "percentunit",
                (0.001, 0.01, 0.05),
            ),
            Panel(
                "Feeds by status",
                {"{{status}}": f"sum by (status) (rate(feed_http_requests_total{FEED}[5m]))"},
                "reqps",
            ),
        ],
        "Adoption": [
            Panel(
                "Pages by mode",
                {"{{mode}}": f"sum by (mode) (rate(feed_pages_total[5m])) / scalar({PAGES})"},
                "percentunit",
            ),
            Panel(
                "Tenants with personalisation",
                {
                    "for some users": "sum(min by (tenant) (feed_flag_personalised_ratio) > bool 0)",
                    "for all of them": "sum(min by (tenant) (feed_flag_personalised_ratio) == bool 1)",
                    "killed": "max(feed_killed_tenants)",
                },
            ),
            Panel(
                "Cold start: engaged with, of what was shown, last 15 minutes",
                {"{{mode}}": "sum by (mode) (indexer_recent_taken) / sum by (mode) (indexer_recent_shown)"},
                "percentunit",
                words="cold_start against holdout and personalised; `python -m service report` has it with intervals.",
            ),
        ],
        "Less than it should be": [
            Panel(
                "Why pages are degraded",
                {"{{cause}}": f"sum by (cause) (rate(feed_degraded_total[5m])) / scalar({PAGES})"},
                "percentunit",
            ),
            Panel(
                "Pages without personalisation for want of user state",
                {"share": f'sum(rate(feed_degraded_total{{cause="user_state_unavailable"}}[5m])) / {PAGES}'},
                "percentunit",
                (0.01,),
            ),
            Panel(
                "Empty and short pages",
                {"{{kind}}": f"sum by (kind) (rate(feed_short_pages_total[5m])) / scalar({PAGES})"},
                "percentunit",
            ),
        ],
        "Where the time goes": [
            Panel("Stages, p95", {"{{stage}}": _quantile(0.95, "feed_stage_seconds", ", stage")}, "s"),
            Panel(
                "Videos left after a stage",
                {
                    "{{stage}}": "sum by (stage) (rate(feed_candidates_sum[5m]))"
                    " / sum by (stage) (rate(feed_candidates_count[5m]))"
                },
            ),
            Panel("Expected wait at the busiest worker", {"{{instance}}": "feed_backlog_seconds"}, "s"),
            Panel("CPU of a page", {"{{kind}}": "max by (kind) (feed_page_cpu_seconds)"}, "s"),
            Panel("Lateness of the event loop", {"{{instance}}": "feed_loop_late_seconds"}, "s", (0.25,)),
        ],
        "All routes": [
            Panel("p95 by route", {"{{route}}": _quantile(0.95, "feed_http_request_seconds", ", route")}, "s"),
            Panel(
                "Errors by route",
                {
                    "{{route}} {{status}}": "sum by (route, status)"
                    ' (rate(feed_http_requests_total{status=~"[45].."}[5m]))'
                },
                "reqps",
            ),
            Panel("Events", {"{{result}}": "sum by (result) (rate(feed_events_total[5m]))"}, "reqps"),
        ],
    },
)

CONTENT: Final = Board(
    "Content, signals, stores",
    {
        "Freshness": [
            Panel(
                "From a change to its effect, as the canary sees it", {"{{what}}": "canary_last_seconds"}, "s", (5, 60)
            ),
            Panel(
                "The same, p95 of six hours",
                {"{{what}}": "histogram_quantile(0.95, sum by (le, what) (rate(canary_seconds_bucket[6h])))"},
                "s",
            ),
            Panel(
                "Oldest change that waits",
                {"{{tenant}}": "topk(10, max by (tenant) (indexer_lag_seconds))"},
                "s",
                (60,),
            ),
        ],
        "Indexes": [
            Panel("Videos", {"all tenants": "sum(max by (tenant) (indexer_videos))"}),
            Panel("Size on disk", {"{{tenant}}": "topk(10, max by (tenant) (indexer_index_bytes))"}, "bytes"),
            Panel(
                "What is wrong",
                {
                    "quarantined videos": "sum(max by (tenant) (indexer_quarantined_videos))",
                    "tenants the indexer fails on": "sum(max by (tenant) (indexer_failing))",
                    "tenants on their last good index": "max(feed_snapshots_refused)",
                    "tenants on their last good policy": "max(feed_policies_refused)",
                },
            ),
        ],
        "Versions": [
            Panel("Configuration, per worker", {"{{instance}} {{pid}}": "feed_config_version"}, "none"),
            Panel(
                "Tenants on different policies",
                {
                    "tenants": "sum(max by (tenant) (feed_policy_version_max)"
                    " > bool min by (tenant) (feed_policy_version_min))"
                },
            ),
            Panel(
                "Workers",
                {"{{instance}}": "count by (instance) (time() - feed_worker_refreshed_timestamp_seconds < 30)"},
            ),
        ],
        "Signals": [
            Panel("Archive lag", {"oldest entry": "max(indexer_archive_lag_seconds)"}, "s", (300,)),
            Panel("Entries that wait", {"entries": "max(indexer_stream_entries)"}),
            Panel("Archived", {"rows": "sum(rate(indexer_archived_rows_total[5m]))"}, "reqps"),
            Panel(
                "Age of what is popular",
                {
                    "worked out": "time() - max(indexer_counters_published_timestamp_seconds)",
                    "read by workers": "time() - min(feed_counters_refreshed_timestamp_seconds)",
                },
                "s",
                (120,),
            ),
            Panel(
                "Events that find their page",
                {
                    "of the last hour": "max(indexer_joined_share)",
                    "of the last 15 minutes": 'sum(indexer_recent_events{mode!="(no page)"})'
                    " / sum(indexer_recent_events)",
                },
                "percentunit",
            ),
            Panel(
                "Engagement that does not count",
                {
                    "nobody had served it": "sum(rate(indexer_unserved_events_total[1h]))"
                    " / sum(rate(indexer_counted_events_total[1h]))",
                    "too much of one user": "sum(rate(indexer_excess_events_total[1h]))"
                    " / sum(rate(indexer_counted_events_total[1h]))",
                },
                "percentunit",
            ),
        ],
        "Ninety days": [
            Panel(
                "Oldest event", {"age": "(time() - min(indexer_oldest_event_timestamp_seconds)) / 86400"}, "d", (90,)
            ),
            Panel("Keys without expiry", {"keys": "max(indexer_keys_without_expiry)"}, lines=(1,)),
            Panel(
                "Erasures",
                {
                    "waiting": "max(indexer_erasures_waiting)",
                    "oldest, minutes": "max(indexer_erasure_age_seconds) / 60",
                },
            ),
        ],
        "Stores": [
            Panel(
                "Answers of Redis and SQL, p95",
                {"{{store}}": _quantile(0.95, "feed_store_seconds", ", store")},
                "s",
                (0.05,),
            ),
            Panel("Reached by every worker", {"{{store}} {{instance}}": "feed_store_up"}),
            Panel("Memory of the indexer", {"{{instance}}": 'process_resident_memory_bytes{job="indexer"}'}, "bytes"),
        ],
    },
)

OF: Final = '{tenant=~"$tenant"}'

TENANTS: Final = Board(
    "Tenants",
    {
        "Traffic": [
            Panel("Pages", {"{{tenant}}": f"sum by (tenant) (rate(feed_pages_total{OF}[5m]))"}, "reqps"),
            Panel("Pages by mode", {"{{mode}}": f"sum by (mode) (rate(feed_pages_total{OF}[5m]))"}, "reqps"),
            Panel(
                "Personalised, of all pages",
                {
                    "{{tenant}}": 'sum by (tenant) (rate(feed_pages_total{tenant=~"$tenant",mode="personalised"}[5m]))'
                    f" / sum by (tenant) (rate(feed_pages_total{OF}[5m]))"
                },
                "percentunit",
            ),
            Panel(
                "Empty or short, of all pages",
                {
                    "{{tenant}}": f"sum by (tenant) (rate(feed_short_pages_total{OF}[5m]))"
                    f" / sum by (tenant) (rate(feed_pages_total{OF}[5m]))"
                },
                "percentunit",
            ),
            Panel(
                "Users the flags let have it",
                {"{{tenant}}": f"min by (tenant) (feed_flag_personalised_ratio{OF})"},
                "percentunit",
            ),
            Panel("Policy version", {"{{tenant}}": f"max by (tenant) (feed_policy_version_max{OF})"}, "none"),
        ],
        "Content": [
            Panel("Videos served", {"{{tenant}}": f"min by (tenant) (feed_index_items{OF})"}),
            Panel("Quarantined", {"{{tenant}}": f"max by (tenant) (indexer_quarantined_videos{OF})"}),
            Panel("Oldest change that waits", {"{{tenant}}": f"max by (tenant) (indexer_lag_seconds{OF})"}, "s", (60,)),
            Panel("Index generation served", {"{{tenant}}": f"min by (tenant) (feed_index_generation{OF})"}, "none"),
            Panel(
                "Age of the newest index",
                {"{{tenant}}": f"time() - max by (tenant) (indexer_published_timestamp_seconds{OF})"},
                "s",
            ),
            Panel("Size on disk", {"{{tenant}}": f"max by (tenant) (indexer_index_bytes{OF})"}, "bytes"),
        ],
    },
    by_tenant=True,
)

BOARDS: Final[Mapping[str, Board]] = MappingProxyType({"feeds": FEEDS, "content": CONTENT, "tenants": TENANTS})
"""By the name of their file."""
