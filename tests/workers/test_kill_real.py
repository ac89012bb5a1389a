"""The whole server and the real nodes, killed three times in the middle of a picture."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from atoll.jobs.sql_store import SqlJobStore

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
SERVE = """
import sys
from atoll.api.server import serve
from atoll.settings import load_settings
settings = load_settings(home=sys.argv[1], port=0, device="cpu", precision="fp32")
serve(settings, on_ready=lambda url: print(url, flush=True))
"""


class Server:
    def __init__(self, home: Path) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", SERVE, home], stdout=subprocess.PIPE, text=True)
        self.http = httpx.Client(base_url=self.process.stdout.readline().strip() + "api/v1", timeout=30)

    def worker(self) -> psutil.Process:
        while not (children := psutil.Process(self.process.pid).children()):
            time.sleep(0.02)
        return children[0]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.http.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Server]]:
    servers = []

    def start_one() -> Server:
        servers.append(Server(tmp_path / "home"))
        return servers[-1]

    yield start_one
    for server in servers:
        server.kill()


def graph(seed: int, steps: int) -> dict:
    sampler = {"seed": seed, "steps": steps, "cfg": 5.0, "sampler_name": "euler_ancestral", "scheduler": "karras"}
    links = {"model": ["1", 0], "positive": ["3", 0], "negative": ["4", 0], "latent_image": ["2", 0]}
    nodes = {
        "1": ("CheckpointLoaderSimple", {"ckpt_name": "tiny"}),
        "2": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "3": ("CLIPTextEncode", {"text": "a red apple", "clip": ["1", 1]}),
        "4": ("CLIPTextEncode", {"text": "", "clip": ["1", 1]}),
        "5": ("KSampler", {**sampler, "denoise": 1.0, **links}),
        "6": ("VAEDecode", {"samples": ["5", 0], "vae": ["1", 2]}),
        "7": ("SaveImage", {"images": ["6", 0], "filename_prefix": "tiny"}),
    }
    return {node_id: {"class_type": name, "inputs": inputs} for node_id, (name, inputs) in nodes.items()}


def wait_for(ask, timeout_s: float = 150.0):
    deadline = time.monotonic() + timeout_s
    while not (found := ask()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


def test_a_picture_survives_three_kills_and_is_the_same_one(tmp_path, tiny_checkpoint, start):
    home = tmp_path / "home"
    (home / "models" / "checkpoints").mkdir(parents=True)
    (home / "models" / "checkpoints" / "tiny").symlink_to(tiny_checkpoint)

    server = start()
    submitted = [server.http.post("/jobs", json={"graph": graph(7, steps=60)}) for _ in range(2)]
    assert [response.status_code for response in submitted] == [201, 201], submitted[0].text
    first, second = (response.json()["job_id"] for response in submitted)
    store = SqlJobStore(f"sqlite:///{home / 'atoll.db'}")
    server.worker().kill()  # before it could do anything

    def state(job_id: str) -> str:
        return server.http.get(f"/jobs/{job_id}").json()["state"]

    def worker_of_step() -> str | None:
        """The worker that tells steps of the first job now."""
        told = store.events(first)
        worker = next((event.data["worker"] for event in told if event.kind == "running"), None)
        return worker if told[-1].kind == "step" else None

    worker = wait_for(worker_of_step)
    os.kill(int(worker.split("/")[1]), signal.SIGSTOP)  # it must not give its task back in good order
    os.kill(int(worker.split("/")[1]), signal.SIGKILL)
    server.kill()
    server = start()
    server.worker().kill()

    wait_for(lambda: state(first) == state(second) == "done")
    pictures = [server.http.get(f"/jobs/{job_id}").json()["artifacts"] for job_id in (first, second)]
    store.close()
    assert [len(found) for found in pictures] == [1, 1]
    assert pictures[0][0]["sha256"] == pictures[1][0]["sha256"], "run twice and interrupted, it is the same picture"
