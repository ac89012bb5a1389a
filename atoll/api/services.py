"""What every door needs done, in one place: REST, the studio's pages and the CLI all call these and hold no logic."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from atoll.api.event_stream import EventStream
from atoll.api.faults import FaultyRequest, RequestFault
from atoll.api.file_choices import FileChoices
from atoll.api.image_request import (
    CompleteImageRequest,
    ImageRequest,
    StartImage,
    complete_request,
    graph_from_image_request,
    parse_image_request,
)
from atoll.api.model_info import ModelInfo, list_model_infos, model_info
from atoll.artifacts.files import ArtifactFiles
from atoll.artifacts.input_files import MAX_UPLOAD_BYTES, InputFiles
from atoll.artifacts.pictures import FORMATS
from atoll.artifacts.thumbnail import thumbnail_of
from atoll.errors import AtollError, InvalidRequest, NotFound
from atoll.graph.graph import Graph
from atoll.graph.object_info import node_info, object_info
from atoll.graph.ui_form import is_ui_format
from atoll.graph.ui_format import api_form
from atoll.graph.validate import Validation, validate_graph
from atoll.jobs.events import Event
from atoll.jobs.job import Job, JobArtifact, JobHead, JobState
from atoll.jobs.sql_store import SqlJobStore
from atoll.models.catalogue import ModelCatalogue
from atoll.nodes.custom import declared_registry
from atoll.nodes.sampling import SAMPLER_NAMES, SCHEDULE_NAMES
from atoll.settings import Settings

REQUEST_KEY = "image_request"  # in Job.extra: the request that a graph came from, for "reuse parameters"


class StudioServices:
    """Everything a door can ask of this installation. Methods block on disk and database unless they are `async`.

    Raises (any method): AtollError of the fitting kind, with words for people.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = SqlJobStore(settings.store_url, lease_s=settings.lease_s)
        self.catalogue = ModelCatalogue.from_settings(settings)
        self.artifact_files = ArtifactFiles(settings.artifacts_dir)
        self.inputs = InputFiles(settings.inputs_dir, self.artifact_files)
        self.registry = declared_registry(settings)
        self._choices = FileChoices(self.catalogue, self.inputs)
        self._stream = EventStream(self.store)
        self.wake_worker: Callable[[], None] = _ignore  # these three are set by the server
        self.free_worker: Callable[[bool], None] = _ignore
        self.worker_device: Callable[[], dict[str, Any] | None] = _ignore

    def close(self) -> None:
        self.store.close()

    # --- asking

    def submit_image(self, request: ImageRequest, *, priority: int = 0, owner: str = "local") -> Job:
        """Store a job for the request; durable on return. `job.extra["image_request"]` holds the real seed.

        Raises: FaultyRequest with every fault.
        """
        complete, graph = self.plan_image(request)
        extra = {REQUEST_KEY: complete.model_dump(mode="json")}
        return self.submit_graph(graph.to_api(), priority=priority, extra=extra, owner=owner)

    def plan_image(self, request: ImageRequest) -> tuple[CompleteImageRequest, Graph]:
        """The request with nothing left open, and its graph. Raises: FaultyRequest with every fault."""
        faults: list[RequestFault] = []
        model = self._model_or_fault("checkpoints", request.model or self.settings.default_model, "model", faults)
        if request.vae is not None:
            self._model_or_fault("vae", request.vae, "vae", faults)
        start = self._start_image_or_fault(request, faults)
        if faults or model is None:
            raise FaultyRequest(faults)
        named = request.model_copy(update={"model": model.name})
        complete = complete_request(named, model.defaults, start.size if start else None)
        return complete, graph_from_image_request(complete, start=start, inpainting_model=model.inpainting)

    def submit_graph(
        self,
        graph: Mapping[str, Any],
        *,
        priority: int = 0,
        extra: dict[str, Any] | None = None,
        owner: str = "local",
        job_id: str | None = None,
    ) -> Job:
        """Store a job for a workflow in ComfyUI's API form, or as its editor saves it; durable on return.

        What the editor saved is kept in `job.extra["workflow"]`, and travels in the pictures.

        Raises: InvalidGraph with every fault.
        """
        if is_ui_format(graph):
            extra = {"workflow": graph, **(extra or {})}
        graph = api_form(graph, self.registry)
        valid = self.judge_graph(graph).strict()
        return self.submit_valid_graph(valid, priority=priority, extra=extra, owner=owner, job_id=job_id)

    def judge_graph(self, graph: object) -> Validation:
        """What is wrong with a graph in API form, and what of it could run. Raises nothing."""
        return validate_graph(graph, self.registry, self._choices)

    def submit_valid_graph(
        self,
        graph: Graph,
        *,
        priority: int = 0,
        extra: dict[str, Any] | None = None,
        owner: str = "local",
        job_id: str | None = None,
    ) -> Job:
        """Store a job for what `judge_graph` gave back; durable on return.

        extra: "workflow" and what else pictures shall carry; under DOOR_NOTES what a door keeps for itself.
        Raises: InvalidRequest "job_exists" when `job_id` is another graph's.
        """
        job = self.store.submit(
            graph.to_api(),
            owner=owner,
            priority=priority,
            extra=extra,
            job_id=job_id,
            on_queued=self.wake_worker,  # so that it starts while the disk takes the job in
        )
        self._stream.notify()
        return job

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop, which a running one does at its next step. One that has ended stays as it is."""
        job = self.store.cancel(job_id)
        self.wake_worker()
        self._stream.notify()
        return job

    def free_memory(self, *, models: bool) -> None:
        """Let the worker forget remembered results, and the loaded models if so asked, before its next task."""
        self.free_worker(models)

    # --- looking

    def job(self, job_id: str) -> Job:
        return self.store.get(job_id)

    def jobs(
        self, *, states: Collection[JobState] | None = None, limit: int = 50, before: int | None = None
    ) -> list[Job]:
        """Newest first; `before` is the `number` of the last job of the page before."""
        return self.store.jobs(states=states, limit=limit, before=before)

    def job_heads(
        self, *, states: Collection[JobState] | None = None, offset: int = 0, limit: int = 50
    ) -> list[JobHead]:
        """Jobs without their graphs, newest first."""
        return self.store.heads(states=states, offset=offset, limit=limit)

    def job_counts(self) -> dict[JobState, int]:
        """How many jobs are in each state."""
        return self.store.counts()

    def queue_position(self, job_id: str) -> int | None:
        """How many queued jobs run before this one; None if it is not queued."""
        return self.store.queue_position(job_id)

    def events(self, job_id: str | None = None, *, after: int = 0) -> AsyncIterator[Event]:
        """`async for event in services.events(job_id)`: the events after number `after`, then each as it happens.

        Ends after the job's last event (done, failed, cancelled); with job_id None never. Raises: NotFound.
        """
        return self._stream.follow(job_id, after=after)

    def read_events(self, job_id: str | None = None, *, after: int = 0, limit: int = 200) -> list[Event]:
        """The stored events after number `after`, without waiting for more."""
        return self.store.events(job_id, after=after, limit=limit)

    def notify(self) -> None:
        """Something was written to the store. From any thread; wakes who follows events."""
        self._stream.notify()

    def last_event_number(self) -> int:
        """To follow only what happens from now on: `events(after=...)`."""
        return self.store.last_seq()

    def artifacts(
        self, *, job_id: str | None = None, limit: int = 50, before: int | None = None, kind: str | None = "output"
    ) -> list[JobArtifact]:
        """Newest first (of one job: in the order they were made): what the gallery shows."""
        return self.store.artifacts(job_id=job_id, kind=kind, limit=limit, before=before)

    def artifact(self, sha256: str) -> JobArtifact:
        return self.store.artifact(sha256)

    def artifact_by_number(self, number: int) -> JobArtifact:
        """Raises: NotFound."""
        found = self.store.artifacts(kind=None, before=number + 1, limit=1)
        if not found or found[0].number != number:
            raise NotFound(f"There is no artifact of number {number}.")
        return found[0]

    def artifact_path(self, sha256: str) -> Path:
        self.store.artifact(sha256)
        return self.artifact_files.path(sha256)

    def thumbnail_path(self, sha256: str) -> Path:
        """A JPEG of at most 256 pixels a side, made when it is first asked for."""
        self.store.artifact(sha256)
        return thumbnail_of(self.artifact_files, sha256)

    def request_of_job(self, job_id: str) -> ImageRequest | None:
        """The request, real seed and all, that a job came from; None if it came from a graph of its own."""
        return request_of(self.store.get(job_id))

    # --- inputs

    def save_input(self, filename: str, content: BinaryIO, *, overwrite: bool = False) -> str:
        """Keep an uploaded picture or mask; returns the name it is known by. Equal content keeps its name.

        overwrite: take the place of another picture of that name, rather than a number beside it.
        Raises: InvalidRequest if it is no picture or too big.
        """
        return self.inputs.save_upload(filename, content.read(MAX_UPLOAD_BYTES + 1), overwrite=overwrite)

    def input_path(self, name: str) -> Path:
        return self.inputs.path(name)

    # --- what there is

    def models(self, kind: str | None = None) -> list[ModelInfo]:
        """Models of a kind (see `MODEL_KINDS`), or of all of these; the default one comes first."""
        found = list_model_infos(self.catalogue, kind)
        return sorted(found, key=lambda model: (model.kind, model.name) != ("checkpoints", self.settings.default_model))

    def samplers(self) -> list[str]:
        return list(SAMPLER_NAMES)

    def schedulers(self) -> list[str]:
        return list(SCHEDULE_NAMES)

    def node_info(self, class_type: str | None = None) -> dict[str, Any]:
        """As ComfyUI's GET /object_info: by class type; of one class only, if it is named. Raises: NotFound."""
        if class_type is None:
            return object_info(self.registry, self._choices)
        spec = self.registry.get(class_type)
        if spec is None:
            raise NotFound(f'There is no node "{class_type}".')
        return {class_type: node_info(spec, self._choices)}

    def device(self) -> dict[str, Any] | None:
        """The worker's device: name, type, index, and memory in bytes; None until a worker has told."""
        return self.worker_device()

    # --- inside

    def _model_or_fault(self, kind: str, name: str, field: str, faults: list[RequestFault]) -> ModelInfo | None:
        try:
            path = self.catalogue.resolve(kind, name)
            model = next(model for model in self.catalogue.models(kind) if model.path == path)
            info = model_info(model)
        except AtollError as error:
            faults.append(RequestFault(field, error.code, error.message))
            return None
        if info.fault:
            faults.append(RequestFault(field, "not_a_checkpoint", info.fault))
            return None
        return info

    def _start_image_or_fault(self, request: ImageRequest, faults: list[RequestFault]) -> StartImage | None:
        if request.init_image is None:
            return None
        size = self._picture_size_or_fault(request.init_image, "init_image", faults)
        if request.mask_image is None or request.mask_image == request.init_image:
            return StartImage(size, size) if size else None
        mask_size = self._picture_size_or_fault(request.mask_image, "mask_image", faults)
        if size is None or mask_size is None:
            return None
        # One pixel of rounding is allowed; anything else would put the mask over the wrong places.
        if abs(size[0] * mask_size[1] - size[1] * mask_size[0]) > max(*size, *mask_size):
            faults.append(
                RequestFault(
                    "mask_image",
                    "mask_shape",
                    f"mask_image {request.mask_image} is {mask_size[0]}x{mask_size[1]}, but init_image "
                    f"{request.init_image} is {size[0]}x{size[1]}: their shapes differ. Give a mask of "
                    f"{size[0]}x{size[1]}, or of the same shape at another scale.",
                )
            )
            return None
        return StartImage(size, mask_size)

    def _picture_size_or_fault(self, name: str, field: str, faults: list[RequestFault]) -> tuple[int, int] | None:
        try:
            return picture_size(self.inputs.path(name), name)
        except AtollError as error:
            faults.append(RequestFault(field, error.code, f"{field}: {error.message}"))
            return None


def request_of(job: Job) -> ImageRequest | None:
    """The request, real seed and all, that a job came from; None if it came from a graph of its own."""
    values = job.extra.get(REQUEST_KEY)
    try:
        return parse_image_request(values) if isinstance(values, dict) else None
    except InvalidRequest:  # written by another version
        return None


def _ignore(*_: object) -> None:
    """There is no worker to tell, or it looks by itself now and then."""


def picture_size(path: Path, name: str) -> tuple[int, int]:
    """(width, height) as it is shown, EXIF rotation included. Raises: InvalidRequest if it is no picture."""
    try:
        with PillowImage.open(path, formats=FORMATS) as picture:
            turned = picture.getexif().get(0x0112, 1) >= 5  # EXIF orientation: 5 to 8 lie on their side
            width, height = picture.size
            return (height, width) if turned else (width, height)
    except (UnidentifiedImageError, PillowImage.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise InvalidRequest(
            f"{name} is not a picture that can be read, or it is damaged. Give a PNG, JPEG or WebP file.",
            code="not_an_image",
        ) from error
