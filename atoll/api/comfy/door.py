"""Puts the ComfyUI door onto the server: every route at `/x` and `/api/x`, and below `/comfy` for its frontend."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, WebSocket

from atoll.api.comfy import frontend, jobs, nodes_and_models, pictures, prompt, queue_and_history, system, user_data
from atoll.api.comfy.state import ComfyDoor
from atoll.api.services import StudioServices

PREFIXES = ("", "/api", "/comfy", "/comfy/api")

_sockets = APIRouter()


@_sockets.websocket("/ws")
async def listen(socket: WebSocket) -> None:
    """JSON messages and binary previews, as `messages` makes them."""
    door: ComfyDoor = socket.app.state.comfy
    await door.hub.serve(socket, socket.query_params.get("clientId", "")[:200])


def add_comfy_door(app: FastAPI, services: StudioServices) -> ComfyDoor:
    """Add the routes; what they share is `app.state.comfy`."""
    surfaces = (prompt, queue_and_history, jobs, pictures, nodes_and_models, user_data, system)
    for prefix in PREFIXES:
        for surface in surfaces:
            app.include_router(surface.router, prefix=prefix, include_in_schema=False)
        app.include_router(_sockets, prefix=prefix)
        if prefix.endswith("/api"):
            app.include_router(system.assets_router, prefix=prefix, include_in_schema=False)
    app.include_router(frontend.router, include_in_schema=False)
    app.include_router(frontend.root_router, include_in_schema=False)
    door = ComfyDoor(services)
    app.state.comfy = door
    return door
