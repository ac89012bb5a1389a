"""What every door needs done, in one place: REST, the studio's pages and the CLI all call these and hold no logic."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic import BaseModel

from atoll.api.image_request import ImageDefaults, ImageRequest
from atoll.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from atoll.artifacts.artifact import Artifact
    from atoll.jobs.events import Event
    from atoll.jobs.job import Job, JobState


class ModelInfo(BaseModel):
    """One model file or folder that can be named in a request or a graph."""

    name: str
    kind: str  # "checkpoint", "vae", "text_encoder", "unet"
    base: str | None  # "sd1", "sd2", "sdxl"; None when the files do not tell
    inpainting: bool  # a U-Net of 9 input channels
    defaults: ImageDefaults


class StudioServices:
    """Everything a door can ask of this installation. Methods block on the store unless they are `async`.

    Raises (any method): AtollError of the fitting kind, with words for people.
    """

    def __init__(self, settings: Settings) -> None: ...

    # --- asking
    def submit_image(self, request: ImageRequest, *, priority: int = 0, owner: str = "local") -> Job:
        """Store a job for the request; durable on return. `job.graph` holds the real seed."""
        raise NotImplementedError

    def submit_graph(
        self, graph: Mapping[str, Any], *, priority: int = 0, extra: dict[str, Any] | None = None, owner: str = "local"
    ) -> Job:
        """Store a job for a graph in ComfyUI's API form. Raises: InvalidGraph with every fault."""
        raise NotImplementedError

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop. One that has ended stays as it is."""
        raise NotImplementedError

    # --- looking
    def job(self, job_id: str) -> Job:
        raise NotImplementedError

    def jobs(self, *, states: Sequence[JobState] = (), limit: int = 50, before: str | None = None) -> list[Job]:
        """Newest first; `before` is the id of the last job of the page before."""
        raise NotImplementedError

    def events(self, job_id: str | None = None, *, after: int = 0) -> AsyncIterator[Event]:
        """`async for event in services.events(job.id)`: the events after number `after`, then each as it happens.

        Ends after the job's last event (done, failed, cancelled); with job_id None never.
        """
        raise NotImplementedError

    def artifacts(
        self, *, job_id: str | None = None, limit: int = 50, before: str | None = None, kind: str = "output"
    ) -> list[Artifact]:
        """Newest first: what the gallery shows."""
        raise NotImplementedError

    def artifact(self, sha256: str) -> Artifact:
        raise NotImplementedError

    def artifact_path(self, sha256: str) -> Path:
        raise NotImplementedError

    def thumbnail_path(self, sha256: str) -> Path:
        """A JPEG of at most 256 pixels a side, made when first asked for."""
        raise NotImplementedError

    def request_of_artifact(self, sha256: str) -> ImageRequest | None:
        """The request that would make this picture again ("reuse parameters"); None if its graph is not one."""
        raise NotImplementedError

    # --- inputs
    def save_input(self, filename: str, content: BinaryIO) -> str:
        """Keep an uploaded picture or mask; returns the name it is known by. Equal content keeps its name."""
        raise NotImplementedError

    def input_path(self, name: str) -> Path:
        raise NotImplementedError

    # --- what there is
    def models(self, kind: str | None = None) -> list[ModelInfo]:
        raise NotImplementedError

    def samplers(self) -> list[str]:
        raise NotImplementedError

    def schedulers(self) -> list[str]:
        raise NotImplementedError

    def node_info(self, class_type: str | None = None) -> dict[str, Any]:
        """As ComfyUI's GET /object_info."""
        raise NotImplementedError
