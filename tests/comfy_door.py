"""Tests of the ComfyUI door without torch: the real app, and a worker whose moves the test makes by hand."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient

from atoll.api.server import create_app
from atoll.api.services import StudioServices
from atoll.artifacts.artifact import Artifact, ArtifactKind
from atoll.artifacts.png import encode_png
from atoll.jobs.events import EventKind, NewEvent
from atoll.jobs.job import Claim, Failure, JobState, Outcome
from atoll.settings import Settings

JPEG = b"\xff\xd8 a picture of noise"


def txt2img(seed: int = 7, *, model: str = "lagoon", prefix: str = "ComfyUI", steps: int = 2) -> dict[str, Any]:
    """A workflow in API form, as a client sends it. Its output node is "9"."""
    return {
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["4", 0], "seed": seed, "steps": steps, "cfg": 7.0, "sampler_name": "euler",
                "scheduler": "normal", "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
                "denoise": 1.0,
            },
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": model}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red apple", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {
            "class_type": "SaveImage",
            "inputs": {"images": ["8", 0], "filename_prefix": prefix},
            "_meta": {"title": "Save Image"},
        },
    }  # fmt: skip


def png(seed: int = 0, *, side: int = 8, channels: int = 3, text: dict[str, str] | None = None) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, channels), dtype=np.uint8)
    return encode_png(pixels, text or {})


class HandWorker:
    """Does what a worker does to the store, when the test says so."""

    def __init__(self, services: StudioServices) -> None:
        self._services = services
        self._store = services.store

    def claim(self, job_id: str) -> Claim:
        claim = self._store.claim("hand", job_id=job_id)
        assert claim is not None
        self._services.notify()
        return claim

    def tell(self, claim: Claim, *events: NewEvent) -> None:
        self._store.report(claim.lease, events)
        self._services.notify()

    def enter(self, claim: Claim, node_id: str) -> None:
        class_type = claim.job.graph[node_id]["class_type"]
        self.tell(claim, NewEvent(EventKind.NODE, {"node_id": node_id, "class_type": class_type}))

    def step(self, claim: Claim, node_id: str, step: int, total: int, *, preview: bytes | None = None) -> None:
        shown = base64.b64encode(preview).decode() if preview else None
        data = {"node_id": node_id, "step": step, "total": total, "preview": shown}
        self.tell(claim, NewEvent(EventKind.STEP, data))

    def artifact(
        self, content: bytes, *, kind: ArtifactKind = "output", node_id: str = "9", index: int = 0
    ) -> Artifact:
        sha256 = self._services.artifact_files.write(content, ".png")
        name = "ComfyUI_00001_.png" if kind == "output" else "preview_00001_.png"
        return Artifact(sha256, name, "image/png", len(content), 8, 8, kind, node_id, index)

    def finish(self, claim: Claim, *artifacts: Artifact) -> None:
        self._store.record(claim.lease, Outcome(JobState.DONE, artifacts))
        self._services.notify()

    def fail(self, claim: Claim, code: str, message: str, node_id: str | None) -> None:
        self._store.record(claim.lease, Outcome(JobState.FAILED, failure=Failure(code, message, node_id)))
        self._services.notify()

    def stop(self, claim: Claim) -> None:
        """What a worker does when it hears that its job was cancelled."""
        self._store.record(claim.lease, Outcome(JobState.CANCELLED))
        self._services.notify()

    def run(self, job_id: str, *contents: bytes) -> None:
        """A job from its claim to its end, leaving these pictures."""
        claim = self.claim(job_id)
        for node_id in ("4", "6", "7", "5", "3", "8", "9"):
            self.enter(claim, node_id)
        self.finish(claim, *(self.artifact(content, index=index) for index, content in enumerate(contents)))


@dataclass
class ComfyServer:
    client: TestClient
    worker: HandWorker
    services: StudioServices
    home: Path

    def queue(self, graph: dict[str, Any] | None = None, **fields: Any) -> str:
        reply = self.client.post("/prompt", json={"prompt": graph or txt2img(), **fields})
        assert reply.status_code == 200, reply.text
        return str(reply.json()["prompt_id"])

    def get(self, path: str, **query: Any) -> Any:
        reply = self.client.get(path, params=query or None)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def socket(self, path: str) -> Any:
        """A websocket of the test client, which would else be addressed to a host that the gate refuses."""
        return self.client.websocket_connect(f"ws://127.0.0.1:7860{path}")

    def history_of(self, job_id: str) -> dict[str, Any]:
        entry: dict[str, Any] = self.get(f"/history/{job_id}")[job_id]
        return entry


@contextmanager
def comfy_server(home: Path) -> Iterator[ComfyServer]:
    """The app in this process, without a worker of its own."""
    app = create_app(Settings(home=home, device="cpu"), worker=False)
    services: StudioServices = app.state.services
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        yield ComfyServer(client, HandWorker(services), services, home)


def error_of(reply: Any, status: int) -> dict[str, Any]:
    """An error in ComfyUI's shape."""
    assert reply.status_code == status, reply.text
    error: dict[str, Any] = reply.json()["error"]
    assert {"type", "message", "details", "extra_info"} <= set(error) and error["message"]
    return error


class Heard:
    """What came over a websocket of the test client, in order."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self.messages: list[dict[str, Any]] = []
        self.binary: list[bytes] = []

    def next(self) -> dict[str, Any] | bytes:
        frame = self._socket.receive()
        if frame.get("bytes") is not None:
            self.binary.append(frame["bytes"])
            return bytes(frame["bytes"])
        assert frame["type"] == "websocket.send", frame
        message: dict[str, Any] = json.loads(frame["text"])
        self.messages.append(message)
        return message

    def until(self, type_: str, **data: Any) -> dict[str, Any]:
        """Read on to a message of this type with these data; the test's timeout ends what never comes."""
        while True:
            message = self.next()
            if isinstance(message, dict) and message["type"] == type_ and data.items() <= message["data"].items():
                return message

    def until_end(self, prompt_id: str) -> None:
        self.until("executing", node=None, prompt_id=prompt_id)

    def types(self, *left_out: str) -> list[str]:
        return [message["type"] for message in self.messages if message["type"] not in left_out]
