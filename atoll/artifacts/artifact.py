"""One finished result: a file named by its content, and where in its job it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ArtifactKind = Literal["output", "temp"]


@dataclass(frozen=True)
class Artifact:
    """The index entry of a stored file.

    sha256: hex digest of the file's bytes, which also names it on disk.
    filename: the name a person sees, such as `lagoon_00001_.png`; unique within its job only.
    kind: "output" is kept; "temp" (PreviewImage) may be cleared away.
    node_id, index: which output node of the graph made it, and which picture of that node's batch it is, from 0.
    """

    sha256: str
    filename: str
    media_type: str
    size_bytes: int
    width: int
    height: int
    kind: ArtifactKind
    node_id: str
    index: int
