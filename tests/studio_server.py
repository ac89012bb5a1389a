"""A real server with a real worker process, as `atoll studio` starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

ATOLL = [sys.executable, "-c", "from atoll.cli.main import main; main()"]
UP_WITHIN_S = 60.0  # of a machine that does other things, too


@dataclass
class StudioServer:
    url: str
    home: Path
    process: subprocess.Popen[str]
    client: httpx.Client

    def wait_ready(self) -> None:
        give_up = time.monotonic() + UP_WITHIN_S
        while self.client.get("/api/v1/ready").status_code != 200:
            assert time.monotonic() < give_up, self.client.get("/api/v1/ready").json()
            time.sleep(0.05)

    def make(self, **fields: Any) -> dict[str, Any]:
        """Ask for a picture of the tiny model and wait for its end."""
        fields = {"model": "tiny", "num_inference_steps": 2, "width": 64, "height": 64, "seed": 7, **fields}
        return self.finish(self.client.post("/api/v1/images", json=fields).raise_for_status().json()["job_id"])

    def finish(self, job_id: str) -> dict[str, Any]:
        give_up = time.monotonic() + UP_WITHIN_S
        while True:
            job: dict[str, Any] = self.client.get(f"/api/v1/jobs/{job_id}").raise_for_status().json()
            if job["state"] in ("done", "failed", "cancelled"):
                return job
            assert time.monotonic() < give_up, job
            time.sleep(0.02)

    def rss_mib(self) -> float:
        rss: int = psutil.Process(self.process.pid).memory_info().rss
        return rss / 2**20


def home_with_model(home: Path, checkpoint: Path) -> Path:
    """A home whose models are `tiny`."""
    folder = home / "models" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "tiny").symlink_to(checkpoint, target_is_directory=True)
    return home


@contextmanager
def running_studio(home: Path, *options: str) -> Iterator[StudioServer]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("ATOLL_HOME", None)
    process = subprocess.Popen(
        [*ATOLL, "studio", "--home", str(home), "--port", "0", "--no-browser", "--json", *options],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"the server ended with {process.wait(10)}"
        url = json.loads(line)["url"]
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            yield StudioServer(url, home, process, client)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
