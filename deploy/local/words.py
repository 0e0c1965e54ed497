"""What the demo says to the person who started it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import orjson

from deploy.local.demo_keys import DemoKeys, TenantKeys


def say(text: str) -> None:
    """One line, at once, also into a pipe. A terminal that was closed, a pipe nobody reads: nothing stops for that."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def feed_curl(base_url: str, tenant: TenantKeys) -> str:
    """A line that prints the tenant's feed when pasted into a shell."""
    return f"curl -s {_headers(tenant)} '{base_url}/v1/feed?limit=20'"


def like_curl(base_url: str, tenant: TenantKeys, item_ids: Sequence[str]) -> str:
    """A line that likes these videos when pasted into a shell."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    events = [{"id": str(uuid4()), "type": "like", "item_id": name, "occurred_at": now} for name in item_ids]
    body = orjson.dumps({"sent_at": now, "events": events}).decode()  # ids are slugs: no quote ends the shell's word
    return f"curl -s {_headers(tenant)} -H 'Content-Type: application/json' -d '{body}' '{base_url}/v1/events'"


def say_how_to_call(keys: DemoKeys, folder: Path) -> None:
    """A line per tenant that works when pasted, and where the keys and logs are."""
    for tenant in keys["tenants"]:
        say(f"# {tenant['id']}\n{feed_curl(keys['base_url'], tenant)}\n")
    say(f"All keys are in {folder / 'demo.json'}, logs in {folder / 'log'}. Ctrl-C stops everything.")


def say_try_this(base_url: str, tenant: TenantKeys, topic: str, item_ids: Sequence[str]) -> None:
    """A line that visibly turns one tenant's feed, for a person who has just seen it."""
    say(f"\nTry this: like some talks about {topic}, then ask for {tenant['id']}'s feed again.")
    say(like_curl(base_url, tenant, item_ids))


def _headers(tenant: TenantKeys) -> str:
    return f"-H 'Authorization: Bearer {tenant['publishable_key']}' -H 'Feed-User: {tenant['user']}'"
