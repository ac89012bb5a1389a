"""The studio's server: REST, event sockets and pages in one process, which never imports torch.

`python -m atoll.api.server` prints the OpenAPI schema; its committed copy is docs/openapi.json.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import uvicorn
from fastapi import APIRouter, FastAPI

from atoll import __version__
from atoll.api import artifacts, health, inputs, jobs, models, nodes
from atoll.api.a1111.door import add_a1111_door
from atoll.api.comfy.door import add_comfy_door
from atoll.api.errors import answer_errors
from atoll.api.gate import Gate, refuse_open_host
from atoll.api.openai.door import add_openai_door
from atoll.api.services import StudioServices
from atoll.errors import AtollError
from atoll.settings import Settings

logger = logging.getLogger(__name__)

SHUTDOWN_S = 5  # for requests that are still being answered
KEEP_ALIVE_S = 75  # longer than programs think between two requests: many stumble when theirs meets a closed connection
DESCRIPTION = """Pictures from prompts and workflows, as jobs that survive any crash.

Errors have one shape: `{"error": {"code", "message", "faults": [...]}}`; docs/errors.md lists the codes.

Events: open a WebSocket on `/api/v1/jobs/{job_id}/events?after=N` or `/api/v1/events?after=N`; each text is
`{"seq", "job_id", "kind", "time", "data"}`, and whoever reconnects with the last `seq` seen misses nothing."""


AddPages = Callable[[FastAPI, StudioServices], None]


def create_app(settings: Settings, *, worker: bool = True, add_pages: AddPages | None = None) -> FastAPI:
    """The whole server as an ASGI app.

    Args:
        worker: start a worker process with it; without one, jobs wait for another process's worker.
        add_pages: what puts the studio's pages onto the app; without it there is the REST surface alone.
    """
    refuse_open_host(settings.host)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        comfy.log.attach()
        if worker:
            from atoll.workers.process_executor import ProcessExecutor

            executor = ProcessExecutor(settings, services.store, on_news=services.notify)
            app.state.executor, services.wake_worker = executor, executor.wake
            services.free_worker = lambda models: executor.free_memory(models=models)
            services.worker_device = executor.device
            executor.start()
        try:
            yield
        finally:
            if app.state.executor is not None:
                app.state.executor.stop()
            services.close()
            comfy.log.detach()

    app = _rest_app(lifespan)
    services = app.state.services = StudioServices(settings)
    app.state.executor = None
    comfy = add_comfy_door(app, services)
    add_a1111_door(app, services)
    add_openai_door(app)
    answer_errors(app)
    if add_pages is not None:
        add_pages(app, services)
    app.add_middleware(Gate)
    return app


def serve(settings: Settings, on_ready: Callable[[str], None], *, add_pages: AddPages | None = None) -> None:
    """Serve until SIGINT or SIGTERM; what is being answered is finished, a running job goes back to the queue.

    Args:
        on_ready: told the server's address once it answers.
        add_pages: as for `create_app`.
    Raises: ForbiddenHost; AtollError "port_in_use".
    """
    refuse_open_host(settings.host)
    listener = _listen(settings.host, settings.port)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{listener.getsockname()[1]}/"
    config = uvicorn.Config(
        create_app(settings, add_pages=add_pages),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        timeout_keep_alive=KEEP_ALIVE_S,
        ws_per_message_deflate=False,  # events are small or JPEGs: nothing to gain
        server_header=False,
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            if not self.should_exit:
                on_ready(url)

    Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # where it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise AtollError(
            f"Port {port} of {host} can't be used: {error.strerror}. If a studio runs there already, open "
            f"http://{host}:{port}/; else choose another port with --port.",
            code="port_in_use",
        ) from error
    return listener


def openapi_schema() -> str:
    """The schema of the REST surface as JSON text, which depends on no installation's settings."""
    return json.dumps(_rest_app().openapi(), indent=1, ensure_ascii=False) + "\n"


def _rest_app(lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None) -> FastAPI:
    app = FastAPI(title="Atoll", version=__version__, description=DESCRIPTION, lifespan=lifespan)
    router = APIRouter(prefix="/api/v1")
    for surface in (jobs, artifacts, inputs, models, nodes, health):
        router.include_router(surface.router)
    app.include_router(router)
    return app


if __name__ == "__main__":
    sys.stdout.write(openapi_schema())
