"""/api/v1/models: what can be named in a request."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter

from atoll.api.errors import ERROR_REPLIES
from atoll.api.model_info import ModelInfo
from atoll.api.request_scope import Services

router = APIRouter(prefix="/models", tags=["models"], responses=ERROR_REPLIES)


@router.get("")
def list_models(
    services: Services, kind: Literal["checkpoints", "vae", "text_encoders", "diffusion_models"] | None = None
) -> list[ModelInfo]:
    """The built-in model first, then by name."""
    return services.models(kind)
