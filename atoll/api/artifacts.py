"""/api/v1/artifacts: finished pictures, named by the SHA-256 of their files."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import FileResponse
from pydantic import BaseModel

from atoll.api.errors import ERROR_REPLIES
from atoll.api.request_scope import Services
from atoll.jobs.job import JobArtifact

router = APIRouter(prefix="/artifacts", tags=["artifacts"], responses=ERROR_REPLIES)

Sha256 = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the file, 64 hex digits.")]
# A name made of the content can be kept for ever.
CACHE_FOREVER = {"cache-control": "private, max-age=31536000, immutable"}


class ArtifactView(BaseModel):
    """number: rises with every artifact; page with it. created_at: seconds since 1970."""

    number: int
    job_id: str
    sha256: str
    filename: str
    media_type: str
    size_bytes: int
    width: int
    height: int
    kind: Literal["output", "temp"]
    node_id: str
    index: int
    created_at: float

    @classmethod
    def of(cls, entry: JobArtifact) -> ArtifactView:
        return cls(
            number=entry.number, job_id=entry.job_id, created_at=entry.created_at, **vars(entry.artifact)
        )  # fmt: skip


@router.get("")
def list_artifacts(
    services: Services,
    job_id: str | None = None,
    kind: Literal["output", "temp"] | None = "output",
    before: Annotated[int | None, Query(ge=0, description="The `number` of the last one seen.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> list[ArtifactView]:
    """Newest first; of one job: in the order they were made."""
    found = services.artifacts(job_id=job_id, kind=kind, before=before, limit=limit)
    return [ArtifactView.of(entry) for entry in found]


@router.get("/{sha256}")
def get_artifact(services: Services, sha256: Sha256) -> ArtifactView:
    return ArtifactView.of(services.artifact(sha256))


@router.get("/{sha256}/file", response_class=FileResponse)
def get_artifact_file(services: Services, sha256: Sha256) -> FileResponse:
    """The file itself; a PNG carries the workflow that made it."""
    artifact = services.artifact(sha256).artifact
    return FileResponse(
        services.artifact_path(sha256),
        media_type=artifact.media_type,
        filename=artifact.filename,
        content_disposition_type="inline",
        headers=CACHE_FOREVER,
    )


@router.get("/{sha256}/thumbnail", response_class=FileResponse)
def get_thumbnail(services: Services, sha256: Sha256) -> FileResponse:
    """A JPEG of at most 256 pixels a side."""
    return FileResponse(services.thumbnail_path(sha256), media_type="image/jpeg", headers=CACHE_FOREVER)
