"""Playlists as targets of rules: /v1/admin/playlists."""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response

from retrieval.errors import Problem
from retrieval.playlists import Playlist
from service.admin import answer, body, caller
from service.errors import InvalidRequest
from service.requests import if_match, object_of, text_of, versions_in


async def get_playlists(request: Request) -> Response:
    """Every playlist of the tenant, also those only its videos name (version 0)."""
    who = caller(request, "sk")
    return answer({"playlists": await who.resources.playlists.list(who.tenant or "")})


async def get_playlist(request: Request) -> Response:
    """One playlist with its videos."""
    who = caller(request, "sk")
    return _answer(await who.resources.playlists.get(who.tenant or "", request.path_params["id"]))


async def put_playlist(request: Request) -> Response:
    """Make or replace a playlist: {"title", "videos": [ids]}. If-Match "0" for a new one. Rules follow in seconds."""
    who = caller(request, "sk")
    (version,) = versions_in(if_match(request), 1)
    value = object_of(await body(request), "title", "videos")
    (title,) = text_of(value, "title")
    videos = value.get("videos")
    if not isinstance(videos, list) or not all(isinstance(one, str) for one in videos):
        raise InvalidRequest([Problem("/videos", "is required: a list of video ids")])
    playlists, playlist_id = who.resources.playlists, request.path_params["id"]
    return _answer(
        await playlists.put(
            who.tenant or "", playlist_id, title, videos, if_version=version, who=who.who, now_s=who.now_s
        )
    )


async def delete_playlist(request: Request) -> Response:
    """Take a playlist away: 204. Rules that aim at it aim at nothing then."""
    who = caller(request, "sk")
    (version,) = versions_in(if_match(request), 1)
    playlist_id = request.path_params["id"]
    await who.resources.playlists.remove(
        who.tenant or "", playlist_id, if_version=version, who=who.who, now_s=who.now_s
    )
    return Response(status_code=204)


def _answer(playlist: Playlist) -> Response:
    return answer(asdict(playlist), tag=str(playlist.version))
