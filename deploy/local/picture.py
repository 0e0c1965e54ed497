"""The README's picture: three people ask the running demo for a feed, and this is what each of them gets.

    make run                                                          in one terminal
    .venv/bin/python -m deploy.local.picture docs/three-feeds.svg     in another

Each person is new; two of them like a few talks about a topic first. Everything goes through the reference client, as
it would from an app; the answers are drawn as they come.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import tempfile
import textwrap
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

import orjson

from deploy.local.demo_file import newest_about
from deploy.local.demo_keys import DemoKeys
from service.client import FeedClient

TENANT: Final = "pycon-us"
TOPICS: Final = (None, "security", "data")
LIKES: Final = 5
SHOWN: Final = 7
ASKED: Final = 20
PHONE_W, PHONE_H, GAP = 280, 560, 24
CARD_H, TITLE_CHARS = 66, 38
COLOURS: Final = {
    "for_you": "#2563eb", "popular": "#b45309", "new": "#15803d", "explore": "#7c3aed", "editor": "#be123c",
}  # fmt: skip
"""Of each reason an item can have."""


@dataclass(frozen=True)
class Feed:
    """What one person is known to like, and the first page they got."""

    likes: str | None
    mode: str
    items: list[dict[str, Any]]


async def asked(keys: DemoKeys, topic: str | None) -> Feed:
    """The first page of somebody new who has just liked a few talks about a topic. Nobody of the hold-out."""
    key = next(tenant["publishable_key"] for tenant in keys["tenants"] if tenant["id"] == TENANT)
    while True:
        with tempfile.TemporaryDirectory() as folder:
            async with FeedClient(keys["base_url"], key, queue=Path(folder) / "events.jsonl") as client:
                client.log_in(secrets.token_hex(32))
                for video in newest_about(topic, TENANT, LIKES) if topic else ():
                    client.track("like", {"id": video})
                await client.flush()
                page = await client.feed(limit=ASKED)
        if page.body["mode"] != "holdout":
            return Feed(topic, page.body["mode"], page.items)


def drawn(feeds: list[Feed]) -> str:
    """The feeds as phones side by side: an SVG."""
    width = len(feeds) * (PHONE_W + GAP) + GAP
    phones = "".join(_phone(feed, GAP + n * (PHONE_W + GAP)) for n, feed in enumerate(feeds))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {PHONE_H + 2 * GAP}" '
        f'font-family="system-ui, sans-serif"><rect width="100%" height="100%" fill="#f1f5f9"/>{phones}</svg>\n'
    )


def _phone(feed: Feed, x: int) -> str:
    title = f"has just liked: {feed.likes}" if feed.likes else "somebody new"
    cards = "".join(_card(item, 62 + n * (CARD_H + 4)) for n, item in enumerate(feed.items[:SHOWN]))
    return (
        f'<g transform="translate({x} {GAP})">'
        f'<rect width="{PHONE_W}" height="{PHONE_H}" rx="22" fill="#ffffff" stroke="#334155" stroke-width="3"/>'
        f'<text x="18" y="32" font-size="15" font-weight="700" fill="#0f172a">{escape(title)}</text>'
        f'<text x="18" y="50" font-size="11" fill="#64748b">mode: {escape(feed.mode)}</text>{cards}</g>'
    )


def _card(item: dict[str, Any], y: int) -> str:
    lines = textwrap.wrap(item["title"], TITLE_CHARS, max_lines=2, placeholder=" …")
    words = "".join(
        f'<text x="24" y="{18 + 15 * n}" font-size="12" fill="#0f172a">{escape(line)}</text>'
        for n, line in enumerate(lines)
    )
    who = textwrap.shorten(item.get("creator") or "", 30, placeholder=" …")
    return (
        f'<g transform="translate(0 {y})"><rect x="12" width="{PHONE_W - 24}" height="{CARD_H}" rx="8" fill="#f8fafc"/>'
        f'<rect x="12" width="4" height="{CARD_H}" rx="2" fill="{COLOURS.get(item["reason"], "#64748b")}"/>{words}'
        f'<text x="24" y="56" font-size="10" fill="#64748b">{escape(who)}</text>'
        f'<text x="{PHONE_W - 20}" y="56" font-size="10" text-anchor="end" fill="{COLOURS.get(item["reason"])}">'
        f"{escape(item['reason'])}</text></g>"
    )


async def _all(keys: DemoKeys) -> list[Feed]:
    return [await asked(keys, topic) for topic in TOPICS]


def main() -> None:
    """Ask the running demo, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--demo", type=Path, default=Path("var/demo.json"), help="the keys that `make run` wrote")
    given = parser.parse_args()
    keys: DemoKeys = orjson.loads(given.demo.read_bytes())
    given.picture.write_text(drawn(asyncio.run(_all(keys))))


if __name__ == "__main__":
    main()
