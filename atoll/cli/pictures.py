"""Pictures on their way between a user's folders and Atoll's home."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atoll.cli.terminal import say
from atoll.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from atoll.api.image_request import ImageRequest
    from atoll.api.services import StudioServices
    from atoll.jobs.job import Job

TRAVELS_ALONG = ("workflow", "image_request")  # PNG chunks beside the graph
MAX_WORKFLOW_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Destination:
    """Where `--out` wants pictures: one file, or a folder (which is made if it is not there)."""

    path: Path
    is_folder: bool

    def name_for(self, filename: str, index: int) -> Path:
        """A name that is free now: a folder's pictures keep their names, with a number where one is taken."""
        if self.is_folder:
            first = self.path / filename
        else:
            first = self.path if index == 0 else self.path.with_name(f"{self.path.stem}-{index + 1}{self.path.suffix}")
        number, path = 2, first
        while path.exists():
            path, number = first.with_name(f"{first.stem} ({number}){first.suffix}"), number + 1
        return path


def destination(out: str | None) -> Destination | None:
    """What `--out` means. Raises: InvalidRequest if it is a file that exists, or of another type than PNG."""
    if out is None:
        return None
    path = Path(out).expanduser()
    if out.endswith(("/", "\\")) or path.is_dir() or (not path.suffix and not path.exists()):
        return Destination(path, is_folder=True)
    if path.exists():
        raise InvalidRequest(f"{path} is there already, and nothing is overwritten. Choose another name or a folder.")
    if path.suffix.lower() != ".png":
        raise InvalidRequest(
            f"{path.name}: pictures are written as PNG, which can carry how they were made. Choose a name in .png, or "
            "a folder by ending it in /."
        )
    return Destination(path, is_folder=False)


def deliver(services: StudioServices, job: Job, to: Destination | None) -> list[str]:
    """Copy a job's pictures to where they are wanted; without a wish they stay where they are.

    Returns: where the pictures are.
    Raises: StorageFull, or AtollError "storage_unwritable"; the pictures are in Atoll's home all the same.
    """
    from atoll.artifacts.files import write_durably

    found = [entry.artifact for entry in services.artifacts(job_id=job.job_id, limit=500)]
    sources = [services.artifact_path(artifact.sha256) for artifact in found]
    if to is None:
        return [str(source) for source in sources]
    paths = []
    for index, (artifact, source) in enumerate(zip(found, sources, strict=True)):
        path = to.name_for(artifact.filename, index)
        write_durably(path, source.read_bytes(), replace=False)
        paths.append(str(path))
    return paths


def take_input(services: StudioServices, path: Path, option: str) -> str:
    """Hand a picture of the user's to Atoll. Returns: its name there. Raises: NotFound, InvalidRequest."""
    try:
        with path.open("rb") as file:
            return services.save_input(path.name, file)
    except FileNotFoundError as error:
        raise NotFound(f"{option}: there is no file {path}.") from error
    except OSError as error:
        raise InvalidRequest(f"{option}: {path} can't be read: {error.strerror}.") from error


def read_workflow(path: Path) -> dict[str, Any]:
    """A workflow from a JSON file, in API form or as ComfyUI's editor saves it. Raises: NotFound, InvalidRequest."""
    try:
        if path.stat().st_size > MAX_WORKFLOW_BYTES:
            raise InvalidRequest(f"{path} is bigger than {MAX_WORKFLOW_BYTES // 2**20} MiB; that is no workflow.")
        workflow = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {path}.") from error
    except OSError as error:
        raise InvalidRequest(f"{path} can't be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{path} is not a JSON file: {error}.") from error
    if not isinstance(workflow, dict):
        raise InvalidRequest(f"{path} holds no workflow: a JSON object of nodes by id is wanted.")
    inner = workflow.get("prompt")
    return inner if isinstance(inner, dict) and "class_type" not in inner else workflow


def adopt_pictures(services: StudioServices, graph: Any, folder: Path) -> Any:
    """The graph, with pictures that it names and that lie beside its file handed in.

    A picture that is among the inputs already is taken from there, as every other door would; where the one beside the
    file is another, that is said.

    Args:
        graph: in API form; what is wrong with it is left for validation to tell.
    Raises: InvalidRequest for a file beside it that is no picture; StorageFull.
    """
    from atoll.graph.node import OneFile

    if not isinstance(graph, dict):
        return graph
    for node in graph.values():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        if not isinstance(inputs, dict):
            continue
        spec = services.registry.get(str(node.get("class_type")))
        for item in spec.inputs if spec else ():
            value = inputs.get(item.name)
            if isinstance(item.choices, OneFile) and item.choices.kind == "inputs" and isinstance(value, str):
                inputs[item.name] = _adopted(services, value, folder)
    return graph


def _adopted(services: StudioServices, value: str, folder: Path) -> str:
    """The name of a picture among the inputs, once that beside the workflow is there too."""
    name = value.removesuffix("[input]").rstrip()
    try:
        beside = (folder / name).resolve()
        if not name or not beside.is_relative_to(folder.resolve()) or not beside.is_file():
            return value
        content = beside.read_bytes()
    except (OSError, ValueError):  # a name that no file system takes; validation says so
        return value
    try:
        if services.input_path(value).read_bytes() != content:
            say(f'Picture "{name}" is taken from the inputs. The file of that name beside the workflow is another one.')
        return value
    except (NotFound, InvalidRequest):  # not there, or under a name that inputs do not have and that is changed for it
        return services.save_input(name, io.BytesIO(content))


def how_it_was_made(path: Path) -> tuple[dict[str, Any], dict[str, Any]] | ImageRequest:
    """What a picture says about itself: its graph and what travels with it, or what A1111 wrote into it as a request.

    Raises: NotFound; InvalidRequest if it says nothing.
    """
    from atoll.api.infotext_request import request_from_infotext
    from atoll.artifacts.png import read_png_text

    chunks = read_png_text(path)
    if "prompt" in chunks:
        try:
            graph = json.loads(chunks["prompt"])
            extra: dict[str, Any] = {name: json.loads(chunks[name]) for name in TRAVELS_ALONG if name in chunks}
        except ValueError as error:
            raise InvalidRequest(f"{path} carries a workflow that is damaged: {error}.") from error
        return graph, extra
    if "workflow" in chunks and "parameters" not in chunks:
        try:
            return json.loads(chunks["workflow"]), {}
        except ValueError as error:
            raise InvalidRequest(f"{path} carries a workflow that is damaged: {error}.") from error
    if "parameters" in chunks:
        return request_from_infotext(chunks["parameters"])
    raise InvalidRequest(
        f"{path} does not say how it was made: it has no workflow and no parameters in it. Sites and chat programs "
        "often strip them; use the file as it was written."
    )
