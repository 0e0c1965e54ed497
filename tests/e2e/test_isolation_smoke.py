"""Tenants never meet: not in feeds, not by foreign ids, not with foreign keys, not through a shared user."""

from __future__ import annotations

from tests.support.running import System, read, video


def test_a_feed_holds_only_its_tenants_videos(running: System) -> None:
    """Whoever asks, cold or with a taste, every item is the tenant's own."""
    for tenant, other in (("news", "talks"), ("talks", "news")):
        running.events(tenant, "traveller", ("like", f"{tenant}-bread-1"), ("like", f"{tenant}-bread-2"))
        for user in (None, "traveller", "stranger"):
            ids = running.ids(tenant, user, limit=50)
            assert ids
            assert not [one for one in ids if one.startswith(other)]


def test_a_user_of_two_apps_is_two_users(running: System) -> None:
    """The same user id in another tenant has no history there."""
    running.events("news", "commuter", ("like", "news-trains-1"), ("like", "news-trains-2"))
    assert running.feed("news", "commuter")["mode"] == "personalised"
    assert running.feed("talks", "commuter")["mode"] == "cold_start"


def test_a_foreign_id_looks_like_one_that_does_not_exist(running: System) -> None:
    """In the catalogue and in events: the answers differ in nothing but the id."""
    key = running.tenants["news"].secret
    foreign = running.call("GET", "/v1/admin/videos/talks-chess-1", key)
    unknown = running.call("GET", "/v1/admin/videos/there-is-none", key)
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.text.replace("talks-chess-1", "there-is-none") == unknown.text
    assert running.call("DELETE", "/v1/admin/videos/talks-chess-1", key).status_code == 404
    assert running.stored("talks", "talks-chess-1")["status"] == "published"
    rejected = running.events("news", "curious", ("like", "talks-chess-1"), ("like", "there-is-none"))["rejected"]
    assert [(one["code"], one["detail"]) for one in rejected] == [("unknown_item", "item_id: no such video here")] * 2
    assert running.feed("news", "curious")["mode"] == "cold_start"


def test_the_same_id_in_two_tenants_is_two_videos(running: System) -> None:
    """Each tenant sees and changes its own."""
    running.put("news", video("same", "of the news"))
    running.put("talks", video("same", "of the talks"))
    for tenant in ("news", "talks"):
        running.visible(tenant, "same")
        titles = {item["id"]: item["title"] for item in running.feed(tenant, limit=50)["items"]}
        assert titles["same"] == f"of the {tenant}"
    running.delete("news", "same")
    running.gone("news", "same")
    assert "same" in running.ids("talks", limit=50)


def test_a_key_opens_its_own_tenant_only(running: System) -> None:
    """The key decides the tenant; nothing in the request can."""
    key = running.tenants["news"].publishable
    for query in ({"tenant": "talks"}, {"tenant_id": "talks"}):
        answer = running.call("GET", "/v1/feed", key, params=query, headers={"Feed-User": running.user_id("x")})
        assert all(not item["id"].startswith("talks") for item in read(answer, 200)["items"])
    listed = running.call("GET", "/v1/admin/videos", running.tenants["news"].secret, params={"limit": 500})
    assert not [one for one in read(listed, 200)["videos"] if one["id"].startswith("talks")]
