"""The routes of the ControlNet extension, which clients ask for what it has: nothing, as long as no node runs one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from atoll.api.a1111.scope import A1111Route, From
from atoll.errors import NotPossibleYet

router = APIRouter(prefix="/controlnet", route_class=A1111Route)

API_VERSION = 3


@router.get("/version")
async def version(caller: From) -> dict[str, int]:
    return {"version": API_VERSION}


@router.get("/model_list")
async def model_list(caller: From) -> dict[str, list[str]]:
    return {"model_list": []}


@router.get("/module_list")
async def module_list(caller: From) -> dict[str, Any]:
    return {"module_list": ["none"], "module_detail": {}}


@router.get("/control_types")
async def control_types(caller: From) -> dict[str, Any]:
    nothing = {"module_list": ["none"], "model_list": ["None"], "default_option": "none", "default_model": "None"}
    return {"control_types": {"All": nothing}}


@router.get("/settings")
async def settings(caller: From) -> dict[str, int]:
    return {"control_net_unit_count": 0}


@router.post("/detect")
async def detect(caller: From) -> None:
    raise NotPossibleYet("detect: Atoll has no preprocessors for ControlNet yet.")
