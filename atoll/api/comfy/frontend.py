"""/comfy: ComfyUI's official frontend, where its user has installed it. Atoll does not ship it (it is GPL)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse

from atoll.api.comfy.features import FRONTEND_MODULE
from atoll.api.comfy.reply import GET, ComfyRoute, Json
from atoll.api.comfy.state import Door
from atoll.errors import NotFound

router = APIRouter(route_class=ComfyRoute, prefix="/comfy")
root_router = APIRouter(route_class=ComfyRoute)

# Names in /assets hold a hash of the content, so they may be kept; all else may change with the next installation.
KEEP, ASK_AGAIN = "public, max-age=31536000, immutable", "no-cache"
NOT_INSTALLED = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Atoll</title>
<body style="font: 1rem/1.5 system-ui, sans-serif; max-width: 36rem; margin: 4rem auto; padding: 0 1rem">
<h1>ComfyUI's frontend is not installed</h1>
<p>Atoll can serve it here, but does not bring it along, since its licence is the GPL. To install it:</p>
<pre>pip install "atoll[comfy-ui]"</pre>
<p>Then start the studio again. <a href="/">Back to the studio</a></p></body></html>"""


def frontend_folder() -> Path | None:
    """The `static` folder of the installed package; None without it. Loads nothing of it."""
    spec = importlib.util.find_spec(FRONTEND_MODULE)
    places = list(spec.submodule_search_locations or ()) if spec else []
    folder = Path(places[0]) / "static" if places else None
    return folder if folder is not None and (folder / "index.html").is_file() else None


def extension_urls() -> list[str]:
    """The scripts in the frontend's own `extensions` folder, as it asks for them."""
    folder = frontend_folder()
    if folder is None:
        return []
    return [f"/{path.relative_to(folder).as_posix()}" for path in sorted((folder / "extensions").rglob("*.js"))]


@router.api_route("", methods=GET)
def open_frontend() -> RedirectResponse:
    """The frontend finds its server beside itself, so its address must end in a slash."""
    return RedirectResponse("/comfy/")


@router.api_route("/", methods=GET)
def get_index() -> Response:
    folder = frontend_folder()
    if folder is None:
        return HTMLResponse(NOT_INSTALLED, 501)
    return FileResponse(folder / "index.html", media_type="text/html", headers={"cache-control": ASK_AGAIN})


@router.api_route("/user.css", methods=GET)
def get_user_style(door: Door) -> Response:
    """The user's own style sheet; nothing where there is none."""
    try:
        return FileResponse(
            door.user_files.path("user.css"), media_type="text/css", headers={"cache-control": ASK_AGAIN}
        )
    except NotFound:
        return Response("", media_type="text/css")


@router.api_route("/templates/{name}", methods=GET)
def get_templates(name: str) -> Json:
    """The list of workflow templates, which are a package of their own: there are none here."""
    if not (name.startswith("index") and name.endswith(".json")):
        raise NotFound(f"There is no workflow template {name[:200]!r}.")
    return Json([])


@root_router.api_route("/assets/{path:path}", methods=GET)
def get_asset(path: str) -> Response:
    """Some addresses in the frontend leave out where it is served."""
    return get_static_file(f"assets/{path}")


@router.api_route("/{path:path}", methods=GET)
def get_static_file(path: str) -> Response:
    folder = frontend_folder()
    wanted = (folder / path).resolve() if folder is not None and "\0" not in path else None
    if folder is None or wanted is None or not wanted.is_relative_to(folder.resolve()) or not wanted.is_file():
        raise NotFound(f"ComfyUI's frontend has no file {path[:200]!r}.")
    return FileResponse(wanted, headers={"cache-control": KEEP if path.startswith("assets/") else ASK_AGAIN})
