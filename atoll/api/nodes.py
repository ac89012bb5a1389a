"""/api/v1/nodes: what workflows are made of."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from atoll.api.errors import ERROR_REPLIES
from atoll.api.request_scope import Services

router = APIRouter(prefix="/nodes", tags=["nodes"], responses=ERROR_REPLIES)


@router.get("")
def list_nodes(services: Services) -> dict[str, Any]:
    """Every node by class type, in the form of ComfyUI's GET /object_info."""
    return services.node_info()


@router.get("/{class_type}")
def get_node(services: Services, class_type: str) -> dict[str, Any]:
    """One node, in the same form."""
    return services.node_info(class_type)
