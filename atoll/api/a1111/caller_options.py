"""GET and POST /sdapi/v1/options."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from atoll.api.a1111.models import find_checkpoint, find_vae
from atoll.api.a1111.scope import A1111Route, Doorway, From
from atoll.errors import InvalidRequest

router = APIRouter(route_class=A1111Route)


@router.get("/sdapi/v1/options")
def get_options(door: Doorway, caller: From) -> dict[str, Any]:
    """The caller's own. `sd_model_checkpoint` is the title of a model that is there."""
    options = door.options.of(caller)
    try:
        checkpoint = find_checkpoint(door.services, options["sd_model_checkpoint"])
    except InvalidRequest:  # it was removed since it was chosen
        checkpoint = find_checkpoint(door.services, None)
    return {**options, "sd_model_checkpoint": checkpoint.title, "sd_checkpoint_hash": checkpoint.hash}


@router.post("/sdapi/v1/options")
def set_options(door: Doorway, caller: From, values: dict[str, Any]) -> None:
    """Set the caller's own, and nobody else's. A model or a VAE that is not there is refused, and nothing is set."""
    if values.get("sd_model_checkpoint"):
        values = {
            **values,
            "sd_model_checkpoint": find_checkpoint(door.services, str(values["sd_model_checkpoint"])).name,
        }
    if isinstance(values.get("sd_vae"), str):
        find_vae(door.services, values["sd_vae"])
    door.options.change(caller, values)
