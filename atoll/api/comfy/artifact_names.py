"""The names under which ComfyUI's clients know pictures: `sub/folder`, `ComfyUI_00042_.png`, `output`.

An artifact lies under its content's name, and the name that its job gave it is unique in that job alone. What clients
are told has the artifact's number in place of the counter: unique for ever, and found again without any table.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from atoll.api.services import StudioServices
from atoll.artifacts.artifact import Artifact
from atoll.errors import InvalidRequest, NotFound
from atoll.jobs.job import JobArtifact

_COUNTED = re.compile(r"(?P<prefix>.*)_(?P<number>\d{5,9})_(?P<suffix>\.\w+)", re.DOTALL)
_BY_CONTENT = re.compile(r"(?P<sha256>[0-9a-f]{64})(\.\w+)?")
_PLACE = re.compile(r"(?P<name>.*?) ?\[(?P<place>input|output|temp)\]", re.DOTALL)


def split_place(name: str, place: str = "output") -> tuple[str, str]:
    """`cat.png [input]` as (name, place); `place` where the name does not say."""
    match = _PLACE.fullmatch(name)
    return (match["name"], match["place"]) if match else (name, place)


def comfy_file(entry: JobArtifact, graph: Mapping[str, Any]) -> dict[str, str]:
    """`{filename, subfolder, type}` of an artifact of a job with this graph."""
    return {
        "filename": comfy_name(entry),
        "subfolder": _subfolder(entry, graph),
        "type": entry.artifact.kind,
    }


def comfy_name(entry: JobArtifact) -> str:
    told = PurePosixPath(entry.artifact.filename)
    counted = _COUNTED.fullmatch(told.name)
    prefix, suffix = (counted["prefix"], counted["suffix"]) if counted else (told.stem, told.suffix)
    return f"{prefix}_{entry.number:05}_{suffix}"


def find_artifact(services: StudioServices, name: str, place: str) -> JobArtifact:
    """The artifact that a client means. Raises: NotFound."""
    if by_content := _BY_CONTENT.fullmatch(name):
        return services.artifact(by_content["sha256"])
    counted = _COUNTED.fullmatch(PurePosixPath(name.replace("\\", "/")).name)
    if counted:
        entry = services.artifact_by_number(int(counted["number"]))
        if entry.artifact.kind == place and comfy_name(entry).startswith(counted["prefix"]):
            return entry
    raise NotFound(f'There is no {place} picture "{name[:200]}". GET /history names those that there are.')


def outputs_by_node(entries: Iterable[JobArtifact], graph: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the nodes of a job left, as ComfyUI's history has it: node -> `{"images": [files]}`."""
    outputs: dict[str, dict[str, Any]] = {}
    for entry in entries:
        node = outputs.setdefault(entry.artifact.node_id, {})
        node.setdefault(output_kind(entry.artifact), []).append(comfy_file(entry, graph))
    return outputs


def output_kind(artifact: Artifact) -> str:
    """The list of a node's outputs that a file of this type belongs to."""
    family = artifact.media_type.partition("/")[0]
    return {"image": "images", "audio": "audio", "video": "gifs"}.get(family, "files")


def name_by_content(services: StudioServices, value: str) -> str:
    """A picture that a Load Image node names by ComfyUI's name, by its content instead; other texts as they are."""
    name, place = split_place(value, "input")
    if place == "input":
        return value
    try:
        entry = find_artifact(services, name, place)
    except (NotFound, InvalidRequest):
        return value  # the judge of the graph says what is wrong with it
    return f"{entry.artifact.sha256}{PurePosixPath(entry.artifact.filename).suffix} [{place}]"


def _subfolder(entry: JobArtifact, graph: Mapping[str, Any]) -> str:
    """The folder in the node's filename_prefix, its placeholders filled in as when it was saved."""
    inputs = graph.get(entry.artifact.node_id, {}).get("inputs", {})
    prefix = inputs.get("filename_prefix") if entry.artifact.kind == "output" else None
    if not isinstance(prefix, str):
        return ""
    folder = PurePosixPath(prefix.replace("\\", "/")).parent.as_posix()
    if folder == ".":
        return ""
    when = time.localtime(entry.created_at)
    values = {"year": f"{when.tm_year}", "month": f"{when.tm_mon:02}", "day": f"{when.tm_mday:02}"}
    values |= {"hour": f"{when.tm_hour:02}", "minute": f"{when.tm_min:02}", "second": f"{when.tm_sec:02}"}
    values |= {"width": f"{entry.artifact.width}", "height": f"{entry.artifact.height}"}
    values |= {"batch_num": f"{entry.artifact.index}"}
    for name, value in values.items():
        folder = folder.replace(f"%{name}%", value)
    return folder
