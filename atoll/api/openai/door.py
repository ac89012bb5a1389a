"""Puts the OpenAI door onto the server: `add_openai_door(app, services)`."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Request

from atoll.api.openai import images, models
from atoll.api.openai.replies import OpenAIRoute
from atoll.errors import NotFound

unknown = APIRouter(route_class=OpenAIRoute)


@unknown.api_route("/v1/{path:path}", methods=["GET", "POST", "DELETE"])
async def answer_unknown(request: Request, path: str) -> None:
    raise NotFound(
        f"Atoll does not have {request.method} {request.url.path[:200]}. See docs/openai.md for what it has."
    )


def add_openai_door(app: FastAPI) -> None:
    """The routes; their services are the app's."""
    for room in (images, models):
        app.include_router(room.router, include_in_schema=False)
    app.include_router(unknown, include_in_schema=False)
