"""Pictures in, user files, settings, models and what the server says of itself."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfy_door import ComfyServer, comfy_server, error_of, png, txt2img
from PIL import Image

from atoll.api.comfy.frontend_nodes import LOADERS
from atoll.artifacts.png import read_png_text

# Every bare GET of the contract that needs no name, and what its reply must be made of.
LISTS = [
    "/embeddings",
    "/models",
    "/experiment/models",
    "/extensions",
    "/internal/files/output",
    "/internal/files/input",
]
OBJECTS = [
    "/prompt", "/queue", "/history", "/jobs", "/object_info", "/system_stats", "/users", "/settings", "/features",
    "/i18n", "/workflow_templates", "/global_subgraphs", "/node_replacements", "/internal/logs/raw",
    "/internal/folder_paths",
]  # fmt: skip


def upload(comfy: ComfyServer, name: str, content: bytes, *, path: str = "/upload/image", **fields: str) -> Any:
    return comfy.client.post(path, files={"image": (name, content)}, data=fields)


@pytest.mark.parametrize("path", [*LISTS, *OBJECTS])
def test_every_route_is_there_bare_and_below_api(comfy: ComfyServer, path: str) -> None:
    bare, below = comfy.get(path), comfy.get(f"/api{path}")
    assert isinstance(bare, list if path in LISTS else dict) and type(bare) is type(below)
    assert comfy.client.get(f"/comfy/api{path}").status_code == 200
    head = comfy.client.head(path)
    assert head.status_code == 200 and not head.content


def test_an_empty_key_and_a_strange_header_are_no_obstacle(comfy: ComfyServer) -> None:
    for headers in ({"authorization": "Bearer "}, {"authorization": ""}, {"comfy-user": "default"}):
        assert comfy.client.get("/object_info", headers=headers).status_code == 200


def test_combos_have_the_form_that_every_client_reads(comfy: ComfyServer) -> None:
    info = comfy.get("/object_info")
    for class_type, name in (
        ("KSampler", "sampler_name"),
        ("CheckpointLoaderSimple", "ckpt_name"),
        ("VAELoader", "vae_name"),
    ):
        choices = info[class_type]["input"]["required"][name][0]
        assert isinstance(choices, list), class_type
    assert "euler" in info["KSampler"]["input"]["required"]["sampler_name"][0]
    assert comfy.get("/object_info/KSampler") == {"KSampler": info["KSampler"]}
    assert comfy.get("/object_info/NoSuchNode") == {}


def test_an_uploaded_picture_keeps_its_name_or_gets_a_number(comfy: ComfyServer) -> None:
    assert upload(comfy, "cat.png", png(1)).json() == {"name": "cat.png", "subfolder": "", "type": "input"}
    assert upload(comfy, "cat.png", png(1)).json()["name"] == "cat.png"
    assert upload(comfy, "cat.png", png(2)).json()["name"] == "cat (1).png"
    assert upload(comfy, "cat.png", png(3), overwrite="true").json()["name"] == "cat.png"
    told = upload(comfy, "cat.png", png(4), subfolder="pets/small").json()
    assert told == {"name": "cat.png", "subfolder": "pets/small", "type": "input"}
    shown = comfy.client.get("/view", params={**told, "filename": told["name"]})
    assert shown.content == png(4)
    assert comfy.client.get("/view?filename=cat.png&type=input").content == png(3)
    choices = comfy.get("/object_info/LoadImage")["LoadImage"]["input"]["required"]["image"][0]
    assert {"cat.png", "cat (1).png"} <= set(choices)
    assert "cat.png [input]" in comfy.get("/internal/files/input")
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "pets/small/cat.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    comfy.queue(graph)


def test_what_is_no_picture_is_refused(comfy: ComfyServer) -> None:
    error_of(upload(comfy, "cat.png", b"<svg onload='alert(1)'/>"), 400)
    error_of(comfy.client.post("/upload/image", data={"overwrite": "1"}), 400)
    for name in ("../secret.png", "/etc/passwd", "a/../../secret.png"):
        error_of(comfy.client.get("/view", params={"filename": name, "type": "input"}), 400)
    error_of(comfy.client.get("/view?filename=cat.png&type=input"), 404)
    error_of(comfy.client.get("/view?filename=cat.png&type=elsewhere"), 400)


def test_a_mask_becomes_the_opacity_of_the_picture(comfy: ComfyServer) -> None:
    colours = np.full((8, 8, 3), 200, np.uint8)
    original, mask = io.BytesIO(), io.BytesIO()
    Image.fromarray(colours).save(original, "PNG")
    alpha = np.zeros((8, 8), np.uint8)
    alpha[:4] = 255
    Image.fromarray(np.dstack([np.zeros((8, 8, 3), np.uint8), alpha])).save(mask, "PNG")
    upload(comfy, "cat.png", original.getvalue())
    reference = json.dumps({"filename": "cat.png", "type": "input", "subfolder": ""})
    told = upload(comfy, "mask.png", mask.getvalue(), path="/api/upload/mask", original_ref=reference).json()
    view = {"filename": told["name"], "type": "input"}
    masked = Image.open(io.BytesIO(comfy.client.get("/view", params=view).content))
    assert masked.mode == "RGBA" and np.array_equal(np.asarray(masked)[..., 3], alpha)
    assert np.array_equal(np.asarray(masked)[..., :3], colours)
    rgb = Image.open(io.BytesIO(comfy.client.get("/view", params={**view, "channel": "rgb"}).content))
    assert rgb.mode == "RGB" and np.array_equal(np.asarray(rgb), colours)
    opacity = Image.open(io.BytesIO(comfy.client.get("/view", params={**view, "channel": "a"}).content))
    assert np.array_equal(np.asarray(opacity)[..., 3], alpha) and not np.asarray(opacity)[..., :3].any()
    error_of(upload(comfy, "m.png", png(1, side=16), path="/upload/mask", original_ref=reference), 400)
    error_of(upload(comfy, "m.png", mask.getvalue(), path="/upload/mask", original_ref="{}"), 400)
    error_of(upload(comfy, "m.png", mask.getvalue(), path="/upload/mask"), 400)


def test_a_mask_keeps_what_the_picture_says_of_itself(comfy: ComfyServer) -> None:
    upload(comfy, "cat.png", png(1, text={"prompt": '{"1": {}}'}))
    reference = json.dumps({"filename": "cat.png", "type": "input"})
    told = upload(comfy, "mask.png", png(2, channels=4), path="/upload/mask", original_ref=reference).json()
    content = comfy.client.get("/view", params={"filename": told["name"], "type": "input"}).content
    assert read_png_text(content)["prompt"] == '{"1": {}}'


def test_settings_last(tmp_path: Path) -> None:
    with comfy_server(tmp_path) as comfy:
        assert comfy.get("/settings") == {} and comfy.get("/settings/Comfy.Theme") is None
        comfy.client.post("/settings", json={"Comfy.Theme": "dark", "Comfy.Size": 1})
        comfy.client.post("/api/settings/Comfy.Size", json=2)
        comfy.client.post("/settings/odd", content=b'"\\ud800"')
    with comfy_server(tmp_path) as comfy:
        assert comfy.get("/settings") == {"Comfy.Theme": "dark", "Comfy.Size": 2, "odd": "\ud800"}
        assert comfy.get("/settings/Comfy.Theme") == "dark"
        error_of(comfy.client.post("/settings", content=b"[]"), 400)
        error_of(comfy.client.post("/settings/x", content=b""), 400)
        error_of(comfy.client.post("/users", json={"username": "you"}), 400)


def test_workflows_are_kept_as_files(comfy: ComfyServer) -> None:
    error_of(comfy.client.get("/userdata?dir=workflows&recurse=true"), 404)
    assert comfy.get("/v2/userdata") == []
    body = json.dumps({"nodes": []}).encode()
    assert comfy.client.post("/userdata/workflows%2Fmy%20cat.json", content=body).json() == "workflows/my cat.json"
    told = comfy.client.post(
        "/api/userdata/workflows%2Fsub%2Fdog.json?full_info=true&overwrite=false", content=body
    ).json()
    assert told["path"] == "workflows/sub/dog.json" and told["size"] == len(body) and told["modified"] > 1e12
    again = comfy.client.post("/userdata/workflows%2Fsub%2Fdog.json?overwrite=false", content=b"other")
    error_of(again, 409)
    assert comfy.client.get("/userdata/workflows%2Fsub%2Fdog.json").content == body
    assert comfy.get("/userdata?dir=workflows&recurse=true") == ["my cat.json", "sub/dog.json"]
    assert comfy.get("/userdata?dir=workflows&recurse=false") == ["my cat.json"]
    assert comfy.get("/userdata?dir=workflows&recurse=true&split=true")[1] == ["sub/dog.json", "sub", "dog.json"]
    full = comfy.get("/userdata?dir=workflows&recurse=true&split=false&full_info=true")
    assert [entry["path"] for entry in full] == ["my cat.json", "sub/dog.json"]
    assert [(entry["name"], entry["type"]) for entry in comfy.get("/v2/userdata?path=workflows")] == [
        ("my cat.json", "file"), ("sub", "directory")
    ]  # fmt: skip
    moved = comfy.client.post("/userdata/workflows%2Fmy%20cat.json/move/workflows%2Fpuss.json")
    assert moved.json() == "workflows/puss.json"
    clash = comfy.client.post("/userdata/workflows%2Fpuss.json/move/workflows%2Fsub%2Fdog.json?overwrite=false")
    error_of(clash, 409)
    assert comfy.client.delete("/userdata/workflows%2Fpuss.json").status_code == 204
    error_of(comfy.client.delete("/userdata/workflows%2Fpuss.json"), 404)
    error_of(comfy.client.get("/userdata/workflows%2Fpuss.json"), 404)


@pytest.mark.parametrize(
    "name", ["..%2F..%2Fatoll.db", "%2Fetc%2Fpasswd", "a%2F..%2F..%2Fb", "a%00b", "%2E%2E%5Csettings.json"]
)
def test_user_files_stay_in_their_folder(comfy: ComfyServer, name: str) -> None:
    error_of(comfy.client.get(f"/userdata/{name}"), 400)
    error_of(comfy.client.post(f"/userdata/{name}", content=b"x"), 400)
    error_of(comfy.client.delete(f"/userdata/{name}"), 400)
    assert not (comfy.home / "comfy" / "user").exists()


def test_models_are_named_and_described(comfy: ComfyServer) -> None:
    folder = comfy.home / "models" / "loras"
    folder.mkdir(parents=True)
    header = json.dumps({"__metadata__": {"ss_tag": "ink"}}).encode()
    (folder / "ink.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (folder / "ink.png").write_bytes(png(1))
    embeddings = comfy.home / "models" / "embeddings"
    embeddings.mkdir()
    (embeddings / "easy.pt").write_bytes(b"x")
    assert {"checkpoints", "loras", "vae"} <= set(comfy.get("/models"))
    assert comfy.get("/models/checkpoints")[0] == "lagoon" and comfy.get("/models/loras") == ["ink.safetensors"]
    assert comfy.get("/embeddings") == ["easy"]
    assert comfy.get("/view_metadata/loras", filename="ink.safetensors") == {"ss_tag": "ink"}
    (entry,) = comfy.get("/experiment/models/loras")
    assert (entry["name"], entry["pathIndex"]) == ("ink.safetensors", 0) and entry["size"] > 0
    preview = comfy.client.get("/experiment/models/preview/loras/0/ink.safetensors")
    assert preview.headers["content-type"] == "image/webp"
    error_of(comfy.client.get("/models/nothing"), 404)
    error_of(comfy.client.get("/view_metadata/embeddings?filename=easy.pt"), 404)
    error_of(comfy.client.get("/view_metadata/loras?filename=none.safetensors"), 404)


def test_the_server_says_what_it_is_and_has(comfy: ComfyServer) -> None:
    stats = comfy.get("/system_stats")
    assert stats["system"]["ram_total"] > stats["system"]["ram_free"] > 0
    assert stats["system"]["comfyui_version"] and stats["system"]["pytorch_version"]
    (device,) = stats["devices"]
    assert {"name", "type", "index", "vram_total", "vram_free", "torch_vram_total", "torch_vram_free"} == set(device)
    told = {**device, "name": "cuda:0 A Card", "type": "cuda", "index": 0}
    comfy.services.worker_device = lambda: told
    assert comfy.get("/system_stats")["devices"] == [told]


def test_memory_is_freed_by_the_worker(comfy: ComfyServer) -> None:
    asked: list[bool] = []
    comfy.services.free_worker = asked.append
    for body in ({"unload_models": True}, {"free_memory": True}, {}):
        assert comfy.client.post("/free", json=body).status_code == 200
    assert asked == [True, False]


def test_assets_are_switched_off_and_say_so(comfy: ComfyServer) -> None:
    assert comfy.get("/features")["assets"] is False
    assert error_of(comfy.client.get("/api/assets?limit=1"), 503)["type"] == "SERVICE_DISABLED"
    assert comfy.client.post("/comfy/api/assets/from-hash", json={}).status_code == 503


def test_the_door_is_no_way_around_the_gate(comfy: ComfyServer) -> None:
    headers = {"origin": "http://evil.example"}
    assert comfy.client.post("/prompt", json={"prompt": txt2img()}, headers=headers).status_code == 403
    assert (
        comfy.client.post("/api/prompt", content=b"x", headers={"content-length": str(17 * 2**20)}).status_code == 413
    )
    assert not comfy.services.jobs()


def test_the_frontend_is_served_where_it_is_installed(comfy: ComfyServer) -> None:
    pytest.importorskip("comfyui_frontend_package", reason="not installed: pip install 'atoll[comfy-ui]'")
    assert comfy.client.get("/comfy", follow_redirects=False).headers["location"] == "/comfy/"
    index = comfy.client.get("/comfy/")
    assert (
        index.status_code == 200 and "ComfyUI" in index.text and index.headers["content-type"].startswith("text/html")
    )
    scripts = [part.split('"')[0] for part in index.text.split('src="./')[1:]]
    assert scripts
    for script in scripts:
        reply = comfy.client.get(f"/comfy/{script}")
        assert reply.status_code == 200 and "javascript" in reply.headers["content-type"], script
    extensions = comfy.get("/comfy/api/extensions")
    assert extensions and comfy.client.get(f"/comfy{extensions[0]}").status_code == 200
    assert comfy.client.get("/comfy/user.css").headers["content-type"].startswith("text/css")
    assert comfy.client.get("/comfy/templates/index.json").json() == []
    for outside in ("/comfy/..%2F__init__.py", "/comfy/%2Fetc%2Fpasswd", "/comfy/nothing.js"):
        error_of(comfy.client.get(outside), 404)


def test_the_frontend_alone_is_shown_the_loaders_that_it_cannot_do_without(comfy: ComfyServer) -> None:
    there, shown = comfy.get("/object_info"), comfy.get("/comfy/api/object_info")
    added = set(shown) - set(there)
    assert set(LOADERS) <= set(shown) and added <= set(LOADERS)
    recorded = json.loads((Path(__file__).parent.parent / "data/comfy/object_info.core.json").read_text("utf-8"))
    for name in added:
        assert list(shown[name]["input"]["required"]) == list(recorded[name]["input"]["required"])
        assert shown[name]["output"] == recorded[name]["output"]
        assert "cannot run" in shown[name]["description"]
        graph = {**txt2img(), "20": {"class_type": name, "inputs": {}}}
        assert name in error_of(comfy.client.post("/comfy/api/prompt", json={"prompt": graph}), 400)["message"]


def test_without_the_frontend_its_address_says_how_to_get_it(
    comfy: ComfyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoll.api.comfy.frontend.FRONTEND_MODULE", "no_such_package")
    page = comfy.client.get("/comfy/")
    assert page.status_code == 501 and "atoll[comfy-ui]" in page.text
    assert comfy.get("/extensions") == [] and comfy.get("/comfy/api/prompt")["exec_info"]
