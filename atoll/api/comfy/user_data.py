"""/users, /settings and /userdata: one user, as long as Atoll has no accounts."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from atoll.api.comfy.reply import GET, ComfyRoute, Json, RawBody, error_body, is_yes, parse_json, parse_object
from atoll.api.comfy.state import Door
from atoll.api.comfy.user_files import FileExists
from atoll.errors import InvalidRequest, NotFound

router = APIRouter(route_class=ComfyRoute)


@router.api_route("/users", methods=GET)
def get_users() -> Json:
    return Json({"storage": "server", "migrated": True})


@router.post("/users")
def add_user() -> Json:
    raise InvalidRequest("This studio has one user, so none can be added. Accounts are not there yet.")


@router.api_route("/settings", methods=GET)
def get_settings(door: Door) -> Json:
    return Json(door.settings.all())


@router.post("/settings")
def change_settings(door: Door, body: RawBody) -> Response:
    door.settings.update(parse_object(body))
    return Response()


@router.api_route("/settings/{name}", methods=GET)
def get_setting(door: Door, name: str) -> Json:
    """Null for one that was never set."""
    return Json(door.settings.all().get(name))


@router.post("/settings/{name}")
def change_setting(door: Door, name: str, body: RawBody) -> Response:
    door.settings.update({name: parse_json(body)})
    return Response()


@router.api_route("/userdata", methods=GET)
def list_user_files(door: Door, dir: str = "", recurse: str = "", split: str = "", full_info: str = "") -> Json:
    """Paths from `dir` on: as texts, as `[path, part, part, ...]` with split, or with sizes and times."""
    if not dir:
        raise InvalidRequest("dir is missing: the folder to list, such as workflows.")
    names = door.user_files.names(dir, recurse=is_yes(recurse))
    if is_yes(full_info):
        listed: list[Any] = [door.user_files.info(f"{dir}/{name}", shown_as=name) for name in names]
        return Json(listed)
    return Json([[name, *name.split("/")] for name in names] if is_yes(split) else names)


@router.api_route("/v2/userdata", methods=GET)
def list_user_folder(door: Door, path: str = "") -> Json:
    """Files and folders directly in `path`; a folder that was never made is empty at the top."""
    try:
        return Json(list(door.user_files.entries(path)))
    except NotFound:
        if path.strip("/"):
            raise
        return Json([])


@router.post("/userdata/{name:path}/move/{target:path}")
def move_user_file(door: Door, name: str, target: str, overwrite: str = "true", full_info: str = "") -> Json:
    try:
        moved = door.user_files.move(name, target, overwrite=is_yes(overwrite))
    except FileExists as error:
        return Json(error_body(error.code, error.message), 409)
    return Json(door.user_files.info(moved) if is_yes(full_info) else moved)


@router.api_route("/userdata/{name:path}", methods=GET)
def get_user_file(door: Door, name: str) -> FileResponse:
    """The file as it is; only style sheets and pictures are shown by a browser, all else is downloaded."""
    path = door.user_files.path(name)
    is_style = path.suffix == ".css"
    return FileResponse(
        path,
        media_type="text/css" if is_style else None,
        filename=path.name,
        content_disposition_type="inline" if is_style or path.suffix == ".json" else "attachment",
        headers={"x-content-type-options": "nosniff", "cache-control": "no-cache"},
    )


@router.post("/userdata/{name:path}")
def write_user_file(door: Door, name: str, body: RawBody, overwrite: str = "true", full_info: str = "") -> Json:
    try:
        written = door.user_files.write(name, body, overwrite=is_yes(overwrite))
    except FileExists as error:
        return Json(error_body(error.code, error.message), 409)
    return Json(door.user_files.info(written) if is_yes(full_info) else written)


@router.delete("/userdata/{name:path}")
def delete_user_file(door: Door, name: str) -> Response:
    door.user_files.delete(name)
    return Response(status_code=204)
