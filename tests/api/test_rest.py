"""The REST surface on a real server with a real worker process."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from PIL import Image
from websockets.sync.client import ClientConnection, connect

from atoll.api.gate import MAX_JSON_BYTES, MAX_UPLOAD_BYTES
from atoll.api.image_request import parse_image_request
from atoll.api.services import StudioServices
from atoll.artifacts.png import read_png_text
from atoll.jobs.job import JobState
from atoll.jobs.sql_store import SqlJobStore
from atoll.settings import load_settings

if TYPE_CHECKING:
    from studio_server import StudioServer

MIB = 2**20


def picture(width: int = 64, height: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def upload(server: StudioServer, name: str, content: bytes) -> str:
    reply = server.client.post("/api/v1/inputs", files={"file": (name, content)})
    return str(reply.raise_for_status().json()["name"])


def file_of(server: StudioServer, job: dict[str, Any], index: int = 0) -> bytes:
    assert job["state"] == "done", job["failure"]
    return server.client.get(f"/api/v1/artifacts/{job['artifacts'][index]['sha256']}/file").raise_for_status().content


def pixels_of(server: StudioServer, job: dict[str, Any], index: int = 0) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(file_of(server, job, index))).convert("RGB"))


def events_at(server: StudioServer, path: str) -> ClientConnection:
    return connect(server.url.replace("http", "ws", 1) + f"api/v1/{path}", proxy=None)


def listen(socket_: ClientConnection) -> Iterator[dict[str, Any]]:
    for text in socket_:
        yield json.loads(text)


def error_of(reply: Any, status: int) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    error: dict[str, Any] = reply.json()["error"]
    assert set(error) == {"code", "message", "faults"}
    return error


# --- pictures


def test_a_prompt_becomes_a_picture_that_says_how_it_was_made(studio_server: StudioServer) -> None:
    job = studio_server.make(prompt="a red apple", seed=11, batch_size=2)
    assert [(a["width"], a["height"], a["index"]) for a in job["artifacts"]] == [(64, 64, 0), (64, 64, 1)]
    said = read_png_text(file_of(studio_server, job))
    assert json.loads(said["prompt"]) == job["graph"]
    assert said["parameters"].startswith("a red apple\nSteps: 2, Sampler: DPM++ 2M")
    assert "Seed: 11" in said["parameters"]


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others(studio_server: StudioServer) -> None:
    first, again, other = (studio_server.make(prompt="a red apple", seed=seed) for seed in (7, 7, 8))
    assert first["artifacts"][0]["sha256"] == again["artifacts"][0]["sha256"]
    assert (pixels_of(studio_server, first) != pixels_of(studio_server, other)).any()


def test_a_random_seed_is_written_back_and_repeats_the_picture(studio_server: StudioServer) -> None:
    job = studio_server.make(seed=-1)
    seed = job["request"]["seed"]
    assert seed >= 0
    assert studio_server.make(seed=seed)["artifacts"][0]["sha256"] == job["artifacts"][0]["sha256"]


def test_the_model_gives_the_size(studio_server: StudioServer) -> None:
    job = studio_server.make(width=None, height=None)
    assert (job["artifacts"][0]["width"], job["artifacts"][0]["height"]) == (64, 64)  # 8 latents x 8 pixels


def test_strength_zero_gives_the_start_image_back_exactly(studio_server: StudioServer) -> None:
    start = picture()
    name = upload(studio_server, "start.png", png(start))
    job = studio_server.make(init_image=name, denoising_strength=0)
    np.testing.assert_array_equal(pixels_of(studio_server, job), start)
    changed = studio_server.make(init_image=name, denoising_strength=0.5)
    assert (pixels_of(studio_server, changed) != start).any()


def test_strength_one_forgets_the_start_image(studio_server: StudioServer) -> None:
    name = upload(studio_server, "start.png", png(picture(seed=1)))
    for batch_size in (1, 2):
        made, plain = (
            studio_server.make(batch_size=batch_size, **fields)
            for fields in ({"init_image": name, "denoising_strength": 1.0}, {})
        )
        for index in range(batch_size):
            np.testing.assert_array_equal(pixels_of(studio_server, made, index), pixels_of(studio_server, plain, index))


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("mask_scale", [1, 2])
def test_inpainting_changes_what_is_masked_and_nothing_else(
    studio_server: StudioServer, batch_size: int, mask_scale: int
) -> None:
    start, mask = picture(), np.zeros((64, 64, 3), np.uint8)
    mask[16:48, 16:48] = 255
    big_mask = mask.repeat(mask_scale, axis=0).repeat(mask_scale, axis=1)
    names = {
        "init_image": upload(studio_server, "start.png", png(start)),
        "mask_image": upload(studio_server, f"mask{mask_scale}.png", png(big_mask)),
    }
    job = studio_server.make(**names, denoising_strength=1, mask_blur=0, batch_size=batch_size)
    assert len(job["artifacts"]) == batch_size
    outside = mask[:, :, 0] == 0
    for index in range(batch_size):
        result = pixels_of(studio_server, job, index)
        np.testing.assert_array_equal(result[outside], start[outside])
        assert (result[~outside] != start[~outside]).any(axis=1).mean() > 0.9


def test_only_masked_keeps_a_start_image_of_any_size_but_for_the_mask(studio_server: StudioServer) -> None:
    start, mask = picture(107, 75), np.zeros((75, 107, 3), np.uint8)
    mask[30:50, 40:60] = 255
    names = {
        "init_image": upload(studio_server, "odd.png", png(start)),
        "mask_image": upload(studio_server, "odd mask.png", png(mask)),
    }
    job = studio_server.make(**names, denoising_strength=1, mask_blur=0, only_masked=True, only_masked_padding=5)
    result, outside = pixels_of(studio_server, job), mask[:, :, 0] == 0
    np.testing.assert_array_equal(result[outside], start[outside])
    assert (result[~outside] != start[~outside]).any()


def test_a_hole_in_the_start_image_can_be_its_mask(studio_server: StudioServer) -> None:
    pixels = np.dstack([picture(), np.full((64, 64), 255, np.uint8)])
    pixels[20:40, 20:40, 3] = 0
    name = upload(studio_server, "hole.png", png(pixels))
    job = studio_server.make(init_image=name, mask_image=name, denoising_strength=1, mask_blur=0)
    changed = (pixels_of(studio_server, job) != pixels[:, :, :3]).any(axis=2)
    assert changed[20:40, 20:40].mean() > 0.9
    changed[20:40, 20:40] = False
    assert not changed.any()


def test_a_result_can_be_the_next_start_image(studio_server: StudioServer) -> None:
    first = studio_server.make(seed=3)
    name = f"{first['artifacts'][0]['sha256']}.png [output]"
    job = studio_server.make(init_image=name, denoising_strength=0)
    np.testing.assert_array_equal(pixels_of(studio_server, job), pixels_of(studio_server, first))


# --- what can't be


def test_every_fault_of_a_request_is_listed(studio_server: StudioServer) -> None:
    body = '{"width": 517, "num_inference_steps": 0, "guidance_scale": NaN, "sampler": "eulr", "steps": 3}'
    reply = studio_server.client.post("/api/v1/images", content=body, headers={"content-type": "application/json"})
    error = error_of(reply, 422)
    assert {fault["field"] for fault in error["faults"]} == {
        "width", "num_inference_steps", "guidance_scale", "sampler", "steps"
    }  # fmt: skip
    assert "the nearest are 512 and 520" in error["message"]


def test_unknown_files_are_all_named(studio_server: StudioServer) -> None:
    request = {"model": "tinny", "vae": "gone.safetensors", "init_image": "no.png", "mask_image": "../../etc/passwd"}
    error = error_of(studio_server.client.post("/api/v1/images", json=request), 422)
    assert [fault["field"] for fault in error["faults"]] == ["model", "vae", "init_image", "mask_image"]
    assert 'Did you mean "tiny"?' in error["message"]


def test_a_mask_of_another_shape_is_refused_in_words(studio_server: StudioServer) -> None:
    names = {
        "init_image": upload(studio_server, "start.png", png(picture())),
        "mask_image": upload(studio_server, "wide.png", png(picture(96, 64))),
    }
    error = error_of(studio_server.client.post("/api/v1/images", json={"model": "tiny", **names}), 422)
    assert "wide.png is 96x64" in error["message"] and "64x64" in error["message"]


def test_a_text_file_is_no_picture_and_no_checkpoint(studio_server: StudioServer) -> None:
    reply = studio_server.client.post("/api/v1/inputs", files={"file": ("notes.png", b"just words")})
    assert "notes.png is not a picture" in error_of(reply, 422)["message"]
    folder = studio_server.home / "models" / "checkpoints"
    (folder / "notes.safetensors").write_text("just words")
    (folder / "short.safetensors").write_bytes((500).to_bytes(8, "little") + b'{"a": {"dtype": "F32", "shape": [1')
    try:
        for name, words in (("notes.safetensors", "a text file, not a checkpoint"), ("short.safetensors", "")):
            reply = studio_server.client.post("/api/v1/images", json={"prompt": "x", "model": name})
            error = error_of(reply, 422)
            assert error["faults"][0]["field"] == "model"
            assert name in error["message"] and words in error["message"]
    finally:
        (folder / "notes.safetensors").unlink()
        (folder / "short.safetensors").unlink()


def test_every_fault_of_a_graph_is_listed_and_nothing_is_queued(studio_server: StudioServer) -> None:
    newest = studio_server.client.get("/api/v1/jobs", params={"limit": 1}).json()
    graph = {
        "1": {"class_type": "EmptyLatentImage", "inputs": {"width": 517, "height": 100_000, "batch_size": 1}},
        "2": {"class_type": "VAEDecode", "inputs": {"samples": ["1", 0], "vae": ["9", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
    }
    error = error_of(studio_server.client.post("/api/v1/jobs", json={"graph": graph}), 422)
    assert error["code"] == "invalid_graph"
    assert {(fault["node_id"], fault["field"]) for fault in error["faults"]} >= {("1", "height"), ("2", "vae")}
    assert studio_server.client.get("/api/v1/jobs", params={"limit": 1}).json() == newest


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/nothing", 404),
        ("DELETE", "/api/v1/jobs", 404),
        ("GET", "/api/v1/jobs/no-such-job", 404),
        ("POST", "/api/v1/jobs/no-such-job/cancel", 404),
        ("GET", f"/api/v1/artifacts/{'0' * 64}", 404),
        ("GET", f"/api/v1/artifacts/{'0' * 64}/file", 404),
        ("GET", f"/api/v1/artifacts/{'0' * 64}/thumbnail", 404),
        ("GET", "/api/v1/artifacts/..%2f..%2fatoll.db", 404),
        ("GET", "/api/v1/artifacts/abc", 422),
        ("GET", "/api/v1/inputs/..%2f..%2fatoll.db", 422),
        ("GET", "/api/v1/inputs/none.png", 404),
        ("GET", "/api/v1/nodes/NoSuchNode", 404),
        ("GET", "/api/v1/jobs?limit=0", 422),
        ("GET", "/api/v1/jobs?state=asleep", 422),
        ("POST", "/api/v1/images", 422),
    ],
)
def test_errors_have_one_shape(studio_server: StudioServer, method: str, path: str, status: int) -> None:
    assert error_of(studio_server.client.request(method, path), status)["message"]


def test_broken_json_is_answered_in_words(studio_server: StudioServer) -> None:
    for body in (b'{"prompt": ', b"\xff\xfe", b"[" * 100_000):
        headers = {"content-type": "application/json"}
        reply = studio_server.client.post("/api/v1/images", content=body, headers=headers)
        assert reply.status_code in (400, 422)
        assert reply.json()["error"]["message"]


def test_two_gigabytes_of_prompt_are_not_read(studio_server: StudioServer) -> None:
    host, port = studio_server.url.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        announced = f"POST /api/v1/images HTTP/1.1\r\nHost: {host}\r\nContent-Length: {2 * 2**30}\r\n\r\n"
        connection.sendall(announced.encode() + b'{"prompt": "')
        answer = b""
        while part := connection.recv(65536):  # until the server closes
            answer += part
    assert answer.startswith(b"HTTP/1.1 413") and b'"too_big"' in answer

    def endless() -> Iterator[bytes]:
        yield b'{"prompt": "'
        for _ in range(2 * MAX_JSON_BYTES // MIB):
            yield b"x" * MIB

    headers = {"content-type": "application/json"}
    reply = studio_server.client.post("/api/v1/images", content=endless(), headers=headers)
    assert "16 MiB" in error_of(reply, 413)["message"]


def test_a_huge_upload_is_refused_and_stays_out_of_memory(studio_server: StudioServer) -> None:
    class Zeros(io.RawIOBase):
        """150 MiB that are never anywhere."""

        left = MAX_UPLOAD_BYTES + 22 * MIB

        def read(self, size: int = -1) -> bytes:
            given = min(self.left, MIB if size < 0 else size)
            self.left -= given
            return bytes(given)

    reply = studio_server.client.post("/api/v1/inputs", files={"file": ("big.png", Zeros())})
    assert error_of(reply, 413)["code"] == "too_big"
    assert studio_server.rss_mib() < 250


# --- events and queue


def test_events_tell_the_whole_story_and_resume(studio_server: StudioServer) -> None:
    job = studio_server.make(num_inference_steps=4, seed=101)
    with events_at(studio_server, f"jobs/{job['job_id']}/events") as socket_:
        story = list(listen(socket_))
    kinds = [event["kind"] for event in story]
    assert kinds[:2] == ["queued", "running"] and kinds[-1] == "done"
    assert [event["data"]["step"] for event in story if event["kind"] == "step"] == [1, 2, 3, 4]
    assert [event["data"]["sha256"] for event in story if event["kind"] == "artifact"] == [
        artifact["sha256"] for artifact in job["artifacts"]
    ]
    assert all(earlier["seq"] < later["seq"] for earlier, later in pairwise(story))
    middle = story[len(story) // 2]["seq"]
    with events_at(studio_server, f"jobs/{job['job_id']}/events?after={middle}") as socket_:
        assert list(listen(socket_)) == [event for event in story if event["seq"] > middle]


def test_events_come_while_the_job_runs_and_show_previews(studio_server: StudioServer) -> None:
    with events_at(studio_server, "events") as everything:
        request = {"model": "tiny", "width": 64, "height": 64, "num_inference_steps": 400, "seed": 5}
        job_id = studio_server.client.post("/api/v1/images", json=request).json()["job_id"]
        previews = []
        for event in listen(everything):
            if event["job_id"] == job_id and event["kind"] == "step" and event["data"]["preview"]:
                previews.append(event["data"]["preview"])
                if len(previews) == 1:
                    studio_server.client.post(f"/api/v1/jobs/{job_id}/cancel").raise_for_status()
            if event["job_id"] == job_id and event["kind"] in ("done", "cancelled", "failed"):
                break
    assert event["kind"] == "cancelled"
    assert previews and previews[0].startswith("/9j/")  # a JPEG in base64
    assert studio_server.client.get(f"/api/v1/jobs/{job_id}").json()["state"] == "cancelled"


def test_a_listener_who_reads_nothing_or_vanishes_hurts_nobody(studio_server: StudioServer) -> None:
    host, port = studio_server.url.removeprefix("http://").rstrip("/").split(":")
    handshake = (
        f"GET /api/v1/events?after=0 HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    sleepers = [socket.create_connection((host, int(port)), timeout=10) for _ in range(20)]
    for sleeper in sleepers:
        sleeper.sendall(handshake.encode())
    for sleeper in sleepers[:10]:
        sleeper.close()
    assert studio_server.make(num_inference_steps=30, seed=202)["state"] == "done"
    for sleeper in sleepers[10:]:
        sleeper.close()
    assert studio_server.make(seed=203)["state"] == "done"
    assert studio_server.rss_mib() < 250


def test_following_a_job_that_is_not_there_says_so(studio_server: StudioServer) -> None:
    with events_at(studio_server, "jobs/none/events") as socket_:
        assert next(listen(socket_))["error"]["code"] == "not_found"


def test_another_web_page_can_not_listen(studio_server: StudioServer) -> None:
    url = studio_server.url.replace("http", "ws", 1) + "api/v1/events"
    with pytest.raises(Exception, match="403"), connect(url, proxy=None, additional_headers={"Origin": "http://evil"}):
        pass


def test_sending_a_graph_twice_under_one_id_queues_it_once(studio_server: StudioServer) -> None:
    graph = studio_server.make(seed=31)["graph"]
    replies = [
        studio_server.client.post("/api/v1/jobs", json={"graph": graph, "job_id": "mine-31"}).raise_for_status().json()
        for _ in range(2)
    ]
    assert replies[0]["job_id"] == replies[1]["job_id"] == "mine-31"
    assert replies[0]["number"] == replies[1]["number"]
    other = {**graph, "5": {**graph["5"], "inputs": {**graph["5"]["inputs"], "seed": 32}}}
    error_of(studio_server.client.post("/api/v1/jobs", json={"graph": other, "job_id": "mine-31"}), 422)
    studio_server.finish("mine-31")


def test_lists_are_paged_by_number(studio_server: StudioServer) -> None:
    for seed in (41, 42, 43):
        studio_server.make(seed=seed)
    for surface in ("jobs", "artifacts"):
        page = studio_server.client.get(f"/api/v1/{surface}", params={"limit": 2}).json()
        rest = studio_server.client.get(f"/api/v1/{surface}", params={"limit": 2, "before": page[-1]["number"]}).json()
        numbers = [entry["number"] for entry in page + rest]
        assert len(page) == 2 and numbers == sorted(numbers, reverse=True) and len(set(numbers)) == len(numbers)


# --- files, models, nodes, health


def test_a_thumbnail_is_a_small_jpeg(studio_server: StudioServer) -> None:
    sha256 = studio_server.make(width=512, height=256, num_inference_steps=1)["artifacts"][0]["sha256"]
    reply = studio_server.client.get(f"/api/v1/artifacts/{sha256}/thumbnail").raise_for_status()
    assert reply.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(reply.content)).size == (256, 128)


def test_an_upload_keeps_its_name_and_content(studio_server: StudioServer) -> None:
    first, second = png(picture(seed=8)), png(picture(seed=9))
    assert upload(studio_server, "苹果 1.png", first) == upload(studio_server, "苹果 1.png", first) == "苹果 1.png"
    assert upload(studio_server, "苹果 1.png", second) == "苹果 1 (1).png"
    assert studio_server.client.get("/api/v1/inputs/苹果 1.png").content == first


def test_the_model_that_the_settings_name_is_used_and_listed_first(tmp_path: Path, tiny_checkpoint: Path) -> None:
    from studio_server import home_with_model

    home = home_with_model(tmp_path / "home", tiny_checkpoint)
    services = StudioServices(load_settings(home=home, default_model="tiny"))
    assert [model.name for model in services.models("checkpoints")] == ["tiny", "lagoon"]
    assert services.models()[0].name == "tiny"
    complete, _ = services.plan_image(parse_image_request({"prompt": "a red apple"}))
    assert (complete.model, complete.width) == ("tiny", 64)
    services.close()


def test_models_and_nodes_are_listed(studio_server: StudioServer) -> None:
    models = studio_server.client.get("/api/v1/models", params={"kind": "checkpoints"}).json()
    (tiny,) = (model for model in models if model["name"] == "tiny")
    assert (tiny["defaults"]["width"], tiny["defaults"]["height"], tiny["fault"]) == (64, 64, None)
    nodes = studio_server.client.get("/api/v1/nodes").json()
    assert nodes["KSampler"]["output"] == ["LATENT"]
    assert studio_server.client.get("/api/v1/nodes/KSampler").json() == {"KSampler": nodes["KSampler"]}
    assert "tiny" in nodes["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0]


def test_the_server_is_alive_ready_light_and_without_torch(studio_server: StudioServer) -> None:
    assert studio_server.client.get("/api/v1/health").json()["status"] == "alive"
    assert studio_server.client.get("/api/v1/ready").json()["ready"] is True
    maps = Path(f"/proc/{studio_server.process.pid}/maps")
    if maps.exists():
        assert "torch" not in maps.read_text()
    assert studio_server.rss_mib() < 250


def test_asked_to_stop_the_server_stops_though_somebody_listens(tmp_path: Path, tiny_checkpoint: Path) -> None:
    from studio_server import home_with_model, running_studio

    with running_studio(home_with_model(tmp_path / "home", tiny_checkpoint)) as server:
        job_id = server.client.post("/api/v1/images", json={"model": "tiny"}).raise_for_status().json()["job_id"]
        with events_at(server, "events?after=0") as listener:
            assert next(listen(listener))["job_id"] == job_id
            workers = psutil.Process(server.process.pid).children()
            server.process.terminate()
            server.process.wait(30)
        psutil.wait_procs(workers, timeout=30)
        assert not any(worker.is_running() for worker in workers)
    store = SqlJobStore(load_settings(home=server.home).store_url)
    assert store.get(job_id).state in (JobState.QUEUED, JobState.DONE)  # kept for the next start, or done in time
    store.close()
