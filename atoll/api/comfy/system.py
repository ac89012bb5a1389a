"""What this server is and has: /system_stats, /features, /free, logs, and the lists that are empty here."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Any

import psutil
from fastapi import APIRouter, Response

from atoll.api.comfy.artifact_names import comfy_name
from atoll.api.comfy.features import COMFYUI_VERSION, FRONTEND_PACKAGE, FRONTEND_VERSION, SERVER_FEATURES
from atoll.api.comfy.frontend import extension_urls
from atoll.api.comfy.nodes_and_models import model_folders
from atoll.api.comfy.reply import GET, ComfyRoute, Json, RawBody, error_body, parse_object
from atoll.api.comfy.state import Door
from atoll.api.errors import ANY_METHOD
from atoll.api.request_scope import Services
from atoll.api.services import StudioServices
from atoll.errors import InvalidRequest
from atoll.models.catalogue import MODEL_FOLDERS

router = APIRouter(route_class=ComfyRoute)
assets_router = APIRouter(route_class=ComfyRoute)  # below /api only: bare /assets belongs to the frontend's files

LOG_SIZE = {"cols": 120, "rows": 40}  # of a terminal that nobody has open
MOST_FILES = 10_000


@router.api_route("/system_stats", methods=GET)
def get_system_stats(services: Services) -> Json:
    memory = psutil.virtual_memory()
    return Json(
        {
            "system": {
                "os": sys.platform,
                "ram_total": memory.total,
                "ram_free": memory.available,
                "comfyui_version": COMFYUI_VERSION,
                "required_frontend_version": _version(FRONTEND_PACKAGE) or FRONTEND_VERSION,
                "installed_templates_version": None,
                "required_templates_version": None,
                "comfy_package_versions": [],
                "python_version": sys.version,
                "pytorch_version": _version("torch"),
                "embedded_python": False,
                "deploy_environment": "atoll",
                "argv": ["atoll", "studio"],
            },
            "devices": [_device(services, memory)],
        }
    )


def _device(services: StudioServices, memory: Any) -> dict[str, Any]:
    """As the worker last told; before that, by its name in the settings and the machine's memory."""
    told = services.device()
    if told is not None:
        return told
    wanted = services.settings.device
    family = "cpu" if wanted == "auto" else wanted.partition(":")[0]
    sizes = {"vram_total": memory.total, "vram_free": memory.available}
    sizes |= {"torch_vram_total": memory.total, "torch_vram_free": memory.available}
    return {"name": family if wanted == "auto" else wanted, "type": family, "index": None, **sizes}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@router.api_route("/features", methods=GET)
def get_features() -> Json:
    return Json(SERVER_FEATURES)


@router.post("/free")
def free(services: Services, body: RawBody) -> Response:
    """`{unload_models, free_memory}`: before its next task the worker lets go of them."""
    request = parse_object(body)
    if request.get("unload_models") or request.get("free_memory"):
        services.free_memory(models=bool(request.get("unload_models")))
    return Response()


@router.api_route("/extensions", methods=GET)
def list_extensions() -> Json:
    return Json(extension_urls())


@router.api_route("/i18n", methods=GET)
@router.api_route("/workflow_templates", methods=GET)
@router.api_route("/global_subgraphs", methods=GET)
@router.api_route("/node_replacements", methods=GET)
def get_nothing() -> Json:
    """There are none of these."""
    return Json({})


@router.api_route("/global_subgraphs/{name}", methods=GET)
def get_global_subgraph(name: str) -> Json:
    return Json(error_body("not_found", f"There is no global subgraph {name[:200]!r}."), 404)


@assets_router.api_route("/assets", methods=ANY_METHOD)
@assets_router.api_route("/assets/{path:path}", methods=ANY_METHOD)
@assets_router.api_route("/tags", methods=ANY_METHOD)
@assets_router.api_route("/tags/{path:path}", methods=ANY_METHOD)
def refuse_assets(path: str = "") -> Json:
    words = "Assets are switched off here, as /features says. Use /view, /upload/image and /history."
    return Json(error_body("SERVICE_DISABLED", words), 503)


@router.api_route("/internal/logs", methods=GET)
def get_log(door: Door) -> Json:
    return Json("".join(f"{entry['t']} - {entry['m']}" for entry in door.log.entries()))


@router.api_route("/internal/logs/raw", methods=GET)
def get_raw_log(door: Door) -> Json:
    return Json({"entries": door.log.entries(), "size": LOG_SIZE})


@router.patch("/internal/logs/subscribe")
def subscribe_to_log(body: RawBody) -> Response:
    """Taken, and nothing is sent: the frontend's panel also reads /internal/logs/raw."""
    parse_object(body)
    return Response()


@router.api_route("/internal/folder_paths", methods=GET)
def get_folder_paths(services: Services) -> Json:
    """Where models of each kind are looked for."""
    return Json({kind: model_folders(services, kind) for kind in MODEL_FOLDERS})


@router.api_route("/internal/files/{place}", methods=GET)
def list_files(services: Services, place: str) -> Json:
    """`name [place]`, the newest first, as Load Image nodes name them."""
    if place == "input":
        return Json([f"{name} [input]" for name in services.inputs.names()])
    if place not in ("output", "temp"):
        raise InvalidRequest(f"type {place!r:.80} is not known. Known: output, input, temp.")
    entries = services.artifacts(kind=place, limit=MOST_FILES)
    return Json([f"{comfy_name(entry)} [{place}]" for entry in entries])
