"""What the demo says to the person who started it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from deploy.local.demo_keys import DemoKeys, TenantKeys


def say(text: str) -> None:
    """One line, at once, also into a pipe."""
    print(text, flush=True)


def demo_user(tenant: str) -> str:
    """A made-up user of this tenant, in the form apps send: 64 hex digits of a hash."""
    return sha256(f"a demo user of {tenant}".encode()).hexdigest()


def feed_curl(base_url: str, tenant: TenantKeys) -> str:
    """A line that prints the tenant's feed when pasted into a shell."""
    headers = f"-H 'Authorization: Bearer {tenant['publishable_key']}' -H 'Feed-User: {demo_user(tenant['id'])}'"
    return f"curl -s {headers} '{base_url}/v1/feed?limit=20'"


def say_how_to_call(keys: DemoKeys, folder: Path) -> None:
    """The curl lines, what to try next, and where the keys are."""
    for tenant in keys["tenants"]:
        say(f"# {tenant['id']}\n{feed_curl(keys['base_url'], tenant)}\n")
    say(f"All keys are in {folder / 'demo.json'}, logs in {folder / 'log'}. Ctrl-C stops everything.")
