"""GET /v1/models."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from atoll.api.openai.replies import OpenAIRoute, UnknownModel
from atoll.api.request_scope import Services
from atoll.api.services import StudioServices
from atoll.models.catalogue import BUILT_IN_MODEL

router = APIRouter(route_class=OpenAIRoute)

# Names that clients have built in. They mean the model that is always there.
OF_OPENAI = ("dall-e", "gpt-image", "chatgpt-image")


@router.get("/v1/models")
def list_models(services: Services) -> dict[str, Any]:
    """Every checkpoint that can be used, by its name."""
    return {"object": "list", "data": [_model(services, name) for name in _names(services)]}


@router.get("/v1/models/{name:path}")
def get_model(services: Services, name: str) -> dict[str, Any]:
    return _model(services, find_model(services, name))


def find_model(services: StudioServices, name: str | None) -> str:
    """The checkpoint that a client means; none, or one of OpenAI's, is the default one. Raises: UnknownModel."""
    known = _names(services)
    if name in known:
        return str(name)
    if not name or name.startswith(OF_OPENAI):
        return known[0] if known else services.settings.default_model  # the default one comes first
    raise UnknownModel(f'There is no model "{name[:120]}" here. GET /v1/models lists what there is.')


def _names(services: StudioServices) -> list[str]:
    return [info.name for info in services.models("checkpoints") if info.fault is None]


def _model(services: StudioServices, name: str) -> dict[str, Any]:
    created = int(services.catalogue.resolve("checkpoints", name).stat().st_mtime)
    owner = "atoll" if name == BUILT_IN_MODEL else "local"
    return {"id": name, "object": "model", "created": created, "owned_by": owner}
