"""/object_info, /embeddings, /models, /view_metadata and /experiment/models: what a workflow can name."""

from __future__ import annotations

import io
from pathlib import Path, PurePosixPath
from typing import Any

from fastapi import APIRouter, Request, Response

from atoll.api.comfy.frontend_nodes import missing_loaders
from atoll.api.comfy.reply import GET, ComfyRoute, Json
from atoll.api.request_scope import Services
from atoll.api.services import StudioServices
from atoll.artifacts.pictures import load_picture
from atoll.errors import NotACheckpoint, NotFound
from atoll.models.catalogue import MODEL_FOLDERS, SUFFIXES_OF_KIND, WEIGHT_SUFFIXES, ModelFile
from atoll.models.identify import read_safetensors_header

router = APIRouter(route_class=ComfyRoute)

PREVIEW_ENDINGS = (".preview.png", ".png", ".preview.jpg", ".jpg", ".jpeg", ".webp")
FRONTEND_PATH = "/comfy/"
PREVIEW_SIDE = 512  # pixels
# Older names of folders, and what Atoll calls them.
KIND_OF_FOLDER = {folder: kind for kind, folders in MODEL_FOLDERS.items() for folder in folders}


@router.api_route("/object_info", methods=GET)
def get_object_info(services: Services, request: Request) -> Json:
    """All nodes; below /comfy, where the frontend asks, also those that it cannot do without."""
    info = services.node_info()
    if request.url.path.startswith(FRONTEND_PATH):
        info = {**info, **missing_loaders(services, info)}
    return Json(info)


@router.api_route("/object_info/{class_type}", methods=GET)
def get_object_info_of(services: Services, class_type: str) -> Json:
    """`{}` for a node that there is not."""
    return Json(services.node_info(class_type) if services.registry.get(class_type) else {})


@router.api_route("/embeddings", methods=GET)
def list_embeddings(services: Services) -> Json:
    """Names without their endings."""
    names = services.catalogue.names("embeddings")
    return Json([PurePosixPath(name).with_suffix("").as_posix() for name in names])


@router.api_route("/models", methods=GET)
def list_model_folders() -> Json:
    return Json(list(MODEL_FOLDERS))


@router.api_route("/models/{folder}", methods=GET)
def list_models(services: Services, folder: str) -> Json:
    return Json([model.name for model in _models(services, folder)])


@router.api_route("/view_metadata/{folder}", methods=GET)
def view_metadata(services: Services, folder: str, filename: str = "") -> Json:
    """What a safetensors file says of itself in `__metadata__`."""
    path = services.catalogue.resolve(_kind(folder), filename)
    try:
        metadata = dict(read_safetensors_header(path).metadata) if path.suffix in (".safetensors", ".sft") else {}
    except NotACheckpoint as error:
        raise NotFound(error.message) from error
    if not metadata:
        raise NotFound(f"{filename[:200]} says nothing of itself.")
    return Json(metadata)


@router.api_route("/experiment/models", methods=GET)
def list_model_folders_in_detail(services: Services) -> Json:
    return Json(
        [
            {
                "name": kind,
                "folders": model_folders(services, kind),
                "extensions": sorted(SUFFIXES_OF_KIND.get(kind, WEIGHT_SUFFIXES)),
            }
            for kind in MODEL_FOLDERS
        ]
    )


@router.api_route("/experiment/models/{folder}", methods=GET)
def list_models_in_detail(services: Services, folder: str) -> Json:
    return Json([_detail(model) for model in _models(services, folder)])


@router.api_route("/experiment/models/preview/{folder}/{index}/{name:path}", methods=GET)
def get_model_preview(services: Services, folder: str, index: str, name: str) -> Response:
    """The picture that lies beside a model, as WebP."""
    stem = services.catalogue.resolve(_kind(folder), name.removesuffix(".webp")).with_suffix("")
    for ending in PREVIEW_ENDINGS:
        path = stem.with_name(stem.name + ending)
        if path.is_file():
            picture = load_picture(path, name=path.name).convert("RGBA")
            picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
            file = io.BytesIO()
            picture.save(file, "WEBP")
            return Response(file.getvalue(), media_type="image/webp")
    raise NotFound(f"No picture lies beside {name[:200]}.")


def model_folders(services: StudioServices, kind: str) -> list[str]:
    """Where models of a kind are looked for, whether or not the folders are there."""
    return [(root / folder).as_posix() for root in services.catalogue.roots for folder in MODEL_FOLDERS[kind]]


def _kind(folder: str) -> str:
    """Raises: NotFound."""
    if folder not in KIND_OF_FOLDER:
        raise NotFound(f"There is no folder {folder[:200]!r} of models. There are: {', '.join(MODEL_FOLDERS)}.")
    return KIND_OF_FOLDER[folder]


def _models(services: StudioServices, folder: str) -> list[ModelFile]:
    return services.catalogue.models(_kind(folder))


def _detail(model: ModelFile) -> dict[str, Any]:
    status = Path(model.path).stat()
    return {
        "name": model.name,
        "pathIndex": 0,
        "size": model.size_bytes,
        "modified": status.st_mtime,
        "created": status.st_ctime,
    }
