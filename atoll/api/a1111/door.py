"""Puts the A1111 door onto the server: `add_a1111_door(app, services)`."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Request

from atoll.api.a1111 import (
    caller_options,
    controlnet,
    extras,
    generate,
    models,
    picture_info,
    progress,
    prompts,
    samplers,
    scripts,
    server_info,
)
from atoll.api.a1111.scope import A1111Route, Door, From
from atoll.api.services import StudioServices
from atoll.errors import NotFound

unknown = APIRouter(route_class=A1111Route)


@unknown.api_route("/sdapi/{path:path}", methods=["GET", "POST"])
@unknown.api_route("/controlnet/{path:path}", methods=["GET", "POST"])
async def answer_unknown(request: Request, caller: From, path: str) -> None:
    raise NotFound(f"Atoll does not have {request.method} {request.url.path[:200]}. See docs/a1111.md for what it has.")


def add_a1111_door(app: FastAPI, services: StudioServices) -> None:
    """The routes, and what the door remembers of its callers."""
    app.state.a1111 = Door(services)
    for room in (
        generate, progress, caller_options, models, samplers, prompts, extras, picture_info, scripts, server_info,
        controlnet,
    ):  # fmt: skip
        app.include_router(room.router, include_in_schema=False)
    app.include_router(unknown, include_in_schema=False)
