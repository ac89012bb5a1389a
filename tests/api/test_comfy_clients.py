"""Programs that were written for ComfyUI, unchanged, before a real server and worker.

Most run on nodes that only know shapes, which take milliseconds; the last ones on a tiny model and its worker process.
"""

from __future__ import annotations

import asyncio
import io
import json
import struct
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from comfy_door import png, txt2img
from door_server import DoorServer, running_doors
from PIL import Image
from shape_nodes import open_gate
from websockets.sync.client import connect

from atoll.artifacts.png import read_png_text

if TYPE_CHECKING:
    from studio_server import StudioServer


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoorServer]:
    with running_doors(tmp_path_factory.mktemp("comfy") / "home") as server:
        yield server


@pytest.fixture
def held_sampler() -> Iterator[None]:
    """Samplers wait in their first step: a job that has ended shows no previews any more."""
    open_gate.clear()
    yield
    open_gate.set()


@pytest.fixture
def workflow_file(tmp_path: Path) -> Path:
    """As ComfyUI exports it: every node has a title."""
    path = tmp_path / "workflow_api.json"
    titled = {node_id: {"_meta": {"title": node["class_type"]}, **node} for node_id, node in txt2img(11).items()}
    path.write_text(json.dumps(titled), encoding="utf-8")
    return path


def address(server: DoorServer) -> str:
    return server.url.removeprefix("http://").rstrip("/")


def run_over_websocket(
    url: str, graph: dict[str, Any], *, features: dict[str, Any] | None = None, **fields: Any
) -> tuple[list[bytes], list[dict[str, Any]], list[bytes]]:
    """A client in thirty lines: (pictures, JSON messages, binary messages) of one workflow.

    A sampler that was held goes on when the first preview is there.
    """
    client_id, prompt_id = str(uuid.uuid4()), str(uuid.uuid4())
    messages: list[dict[str, Any]] = []
    binary: list[bytes] = []
    with (
        connect(f"{url.replace('http', 'ws', 1)}/ws?clientId={client_id}", proxy=None) as socket,
        httpx.Client(base_url=url, timeout=60, trust_env=False) as http,
    ):
        if features is not None:
            socket.send(json.dumps({"type": "feature_flags", "data": features}))
            while not any(message["type"] == "feature_flags" for message in messages):
                messages.append(json.loads(socket.recv()))
        body = {"prompt": graph, "client_id": client_id, "prompt_id": prompt_id, **fields}
        assert http.post("api/prompt", json=body).raise_for_status().json()["prompt_id"] == prompt_id
        for frame in socket:
            if isinstance(frame, bytes):
                binary.append(frame)
                open_gate.set()
                continue
            message = json.loads(frame)
            messages.append(message)
            if message["type"] == "executing" and message["data"]["node"] is None:
                break
        entry = http.get(f"history/{prompt_id}").raise_for_status().json()[prompt_id]
        files = [file for left in entry["outputs"].values() for file in left["images"]]
        pictures = [http.get("view", params=file).raise_for_status().content for file in files]
    return pictures, messages, binary


@pytest.mark.usefixtures("held_sampler")
def test_a_websocket_client_gets_its_picture_and_every_step(doors: DoorServer) -> None:
    graph = txt2img(3, steps=6)
    (content,), messages, binary = run_over_websocket(doors.url, graph)
    assert json.loads(read_png_text(content)["prompt"]) == graph
    assert Image.open(io.BytesIO(content)).size == (64, 64)
    types = [message["type"] for message in messages]
    steps = [message["data"]["value"] for message in messages if message["type"] == "progress"]
    assert steps == sorted(steps) and set(steps) == {1, 2, 3, 4, 5, 6}
    assert types.index("execution_start") < types.index("executing") < types.index("executed")
    assert types.index("executed") < types.index("execution_success") < len(types) - 1
    assert binary and {struct.unpack(">II", frame[:8]) for frame in binary} == {(1, 1)}
    assert Image.open(io.BytesIO(binary[0][8:])).format == "JPEG"


@pytest.mark.usefixtures("held_sampler")
def test_a_client_that_can_read_it_is_told_which_node_a_preview_is_of(doors: DoorServer) -> None:
    features = {"supports_preview_metadata": True}
    _, _, described = run_over_websocket(doors.url, txt2img(4, steps=6), features=features)
    kind, length = struct.unpack(">II", described[0][:8])
    assert kind == 4 and json.loads(described[0][8 : 8 + length])["node_id"] == "3"


def test_an_empty_key_is_no_obstacle(doors: DoorServer) -> None:
    """As Open WebUI sends it where no key is set; httpx would not."""
    connection = HTTPConnection(address(doors), timeout=60)
    connection.request("GET", "/object_info", headers={"Authorization": "Bearer "})
    reply = connection.getresponse()
    assert reply.status == 200 and "KSampler" in json.loads(reply.read())
    connection.close()


def test_what_is_remembered_is_told_and_its_picture_given_again(doors: DoorServer) -> None:
    graph = txt2img(21)
    (first,), *_ = run_over_websocket(doors.url, graph)
    (second,), messages, _ = run_over_websocket(doors.url, graph)
    assert first == second
    cached = next(message["data"]["nodes"] for message in messages if message["type"] == "execution_cached")
    assert "8" in cached
    assert next(message for message in messages if message["type"] == "executed")["data"]["output"]["images"]


def test_comfy_api_simplified(doors: DoorServer, workflow_file: Path) -> None:
    """It opens its socket after it has queued, and takes each binary message for a picture."""
    simplified = pytest.importorskip("comfy_api_simplified", reason="pip install comfy-api-simplified")
    api = simplified.ComfyApiWrapper(doors.url)
    workflow = simplified.ComfyWorkflowWrapper(str(workflow_file))
    workflow.set_node_param("KSampler", "seed", 12)
    images = api.queue_and_wait_images(workflow, "Save Image")
    ((name, content),) = images.items()
    assert name.endswith(".png") and Image.open(io.BytesIO(content)).size == (64, 64)
    said = json.loads(read_png_text(content)["prompt"])
    assert next(node for node in said.values() if node["class_type"] == "KSampler")["inputs"]["seed"] == 12
    assert api.get_queue() == {"queue_running": [], "queue_pending": []}
    assert api.get_queue_size_before is not None and isinstance(api.get_history("unknown"), dict)


def test_comfyui_workflow_client(doors: DoorServer, workflow_file: Path, tmp_path: Path) -> None:
    """Its blocking half polls the history, its other half listens to the socket and uploads a picture."""
    package = pytest.importorskip("comfyuiclient", reason="pip install comfyui-workflow-client")
    client = package.ComfyUIClient(address(doors), str(workflow_file))
    client.connect()
    client.set_data(key="KSampler", seed=13)
    image = client.generate(["Save Image"])["Save Image"]
    client.close()
    assert image.size == (64, 64)

    img2img = txt2img(14)
    img2img["5"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["10", 0], "vae": ["4", 2]}}
    img2img["10"] = {"class_type": "LoadImage", "inputs": {"image": "to be set"}}
    img2img["3"]["inputs"]["denoise"] = 0.5
    file = tmp_path / "img2img.json"
    file.write_text(json.dumps(img2img), encoding="utf-8")

    async def scenario() -> Any:
        client = package.ComfyUIClientAsync(address(doors), str(file))
        await client.connect()
        try:
            await client.set_data(key="LoadImage", image=Image.open(io.BytesIO(png(5, side=64))))
            return await client.generate(["Save Image"])
        finally:
            await client.close()

    assert asyncio.run(scenario())["Save Image"].size == (64, 64)


def test_clients_at_once_get_each_their_own_picture(doors: DoorServer) -> None:
    def run(seed: int) -> tuple[int, bytes, set[str]]:
        graph = txt2img(seed)
        (content,), messages, _ = run_over_websocket(doors.url, graph)
        return seed, content, {message["data"].get("prompt_id", "") for message in messages}

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(run, range(100, 108)))
    for seed, content, prompt_ids in done:
        said = json.loads(read_png_text(content)["prompt"])
        assert said["3"]["inputs"]["seed"] == seed
        assert len(prompt_ids - {""}) == 1
    assert len({content for _, content, _ in done}) == 8


def test_a_real_picture_carries_its_workflow_and_not_its_client(studio_server: StudioServer) -> None:
    url, graph, workflow = studio_server.url.rstrip("/"), txt2img(5, model="tiny"), {"id": "w", "nodes": []}
    extra = {"extra_pnginfo": {"workflow": workflow}, "api_key_comfy_org": "secret"}
    (content,), messages, _ = run_over_websocket(url, graph, extra_data=extra)
    said = read_png_text(content)
    assert json.loads(said["prompt"]) == graph and json.loads(said["workflow"]) == workflow
    assert set(said) == {"prompt", "workflow", "parameters"}
    assert [message["data"]["value"] for message in messages if message["type"] == "progress"] == [1, 2]


def test_the_worker_tells_its_device_and_frees_its_memory(studio_server: StudioServer) -> None:
    (device,) = studio_server.client.get("/system_stats").json()["devices"]
    assert device["type"] in ("cpu", "cuda", "mps") and device["vram_total"] >= device["vram_free"] > 0
    assert studio_server.client.post("/free", json={"unload_models": True, "free_memory": True}).status_code == 200
    (content,), *_ = run_over_websocket(studio_server.url.rstrip("/"), txt2img(31, model="tiny"))
    assert Image.open(io.BytesIO(content)).size == (64, 64)
