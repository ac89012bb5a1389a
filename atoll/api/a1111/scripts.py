"""Scripts and extensions: which there are, and words for those that a request names and Atoll does not have."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from atoll.api.a1111.requests import GenerationRequest
from atoll.api.a1111.scope import A1111Route, From, Refused
from atoll.errors import NotPossibleYet

router = APIRouter(route_class=A1111Route)

# What they would need, by the name that clients send, in lower case.
NEEDS = {
    "controlnet": "Atoll cannot use ControlNets yet",
    "adetailer": "Atoll has no detectors of faces and hands yet",
    "animatediff": "Atoll has no motion modules",
    "roop": "Atoll does not swap faces",
    "reactor": "Atoll does not swap faces",
}


def refuse_scripts(request: GenerationRequest) -> None:
    """Words for a script that is switched on. Those that are switched off are accepted, whoever they are.

    Raises: Refused 422, NotPossibleYet.
    """
    if request.script_name and request.script_name.lower() != "none":
        raise Refused(f'There is no script "{request.script_name[:60]}" here; Atoll runs none of A1111\'s.', 422)
    for name, settings in request.alwayson_scripts.items():
        if is_switched_on(settings):
            need = NEEDS.get(name.lower())
            if need is None:
                raise Refused(f'There is no extension "{name[:60]}" here. Take it out of alwayson_scripts.', 422)
            raise NotPossibleYet(f"{name}: {need}. Switch it off, or take it out of alwayson_scripts.")


def is_switched_on(settings: Any) -> bool:
    """Whether an extension's arguments ask it for anything: `[]`, `[false]` and units that are not enabled do not."""
    args = settings.get("args") if isinstance(settings, dict) else settings
    if isinstance(args, dict):  # by name instead of by place
        args = [args]
    if not isinstance(args, list) or not args:
        return False
    if isinstance(args[0], bool):
        return args[0]
    units = [unit for unit in args if isinstance(unit, dict)]
    if units:
        return any(unit.get("enabled", unit.get("enable", True)) and not _asks_for_nothing(unit) for unit in units)
    return True


def _asks_for_nothing(unit: dict[str, Any]) -> bool:
    """A ControlNet unit without a model and a preprocessor does nothing."""
    model, module = str(unit.get("model", "")).lower(), str(unit.get("module", "")).lower()
    return ("model" in unit or "module" in unit) and model in ("", "none") and module in ("", "none")


@router.get("/sdapi/v1/scripts")
async def list_scripts(caller: From) -> dict[str, list[str]]:
    return {"txt2img": [], "img2img": []}


@router.get("/sdapi/v1/script-info")
@router.get("/sdapi/v1/extensions")
async def list_script_info(caller: From) -> list[dict[str, Any]]:
    return []
