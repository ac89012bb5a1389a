"""The real server on a real socket, with a real worker in a thread whose nodes only know shapes (see shape_nodes)."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from shape_nodes import open_gate, shape_registry

from atoll.api.server import create_app
from atoll.api.services import StudioServices
from atoll.models.catalogue import BUILT_IN_MODELS_DIR
from atoll.settings import Settings
from atoll.workers.worker import Worker

OTHER_MODEL = "other"  # the built-in one under a second name


@dataclass
class DoorServer:
    url: str
    services: StudioServices
    home: Path

    def last_graphs(self, count: int) -> list[dict[str, Any]]:
        """Of the newest jobs, the oldest of them first."""
        return [job.graph for job in reversed(self.services.jobs(limit=count))]


@contextmanager
def running_doors(home: Path, **settings: Any) -> Iterator[DoorServer]:
    models = home / "models" / "checkpoints"
    models.mkdir(parents=True)
    (models / OTHER_MODEL).symlink_to(BUILT_IN_MODELS_DIR / "lagoon", target_is_directory=True)
    (home / "models" / "vae").mkdir()
    shutil.copytree(BUILT_IN_MODELS_DIR / "lagoon" / "vae", home / "models" / "vae" / "soft")
    told = Settings(home=home, device="cpu", **settings)
    app = create_app(told, worker=False)
    services: StudioServices = app.state.services
    worker = Worker(told, services.store, shape_registry(), on_news=lambda job_id: services.notify())
    services.wake_worker = worker.wake

    up = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            up.set()

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    threads = [
        threading.Thread(target=worker.serve, daemon=True),
        threading.Thread(target=server.run, args=([listener],), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        assert up.wait(600)
        yield DoorServer(f"http://127.0.0.1:{listener.getsockname()[1]}", services, home)
    finally:
        open_gate.set()
        worker.stop("the test ends")
        threads[0].join(20)
        worker.close()
        server.should_exit = True
        threads[1].join(20)
