"""/api/v1/inputs: pictures and masks to start from."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, UploadFile
from fastapi.responses import FileResponse
from pydantic import BaseModel

from atoll.api.errors import ERROR_REPLIES
from atoll.api.request_scope import Services

router = APIRouter(prefix="/inputs", tags=["inputs"], responses=ERROR_REPLIES)


class InputView(BaseModel):
    """The name to give as `init_image` or `mask_image`, or to a Load Image node."""

    name: str


@router.post("", status_code=201)
def upload_input(services: Services, file: Annotated[UploadFile, File(description="A picture.")]) -> InputView:
    """Keep a picture. Equal content keeps its name; another picture of the same name gets a number."""
    return InputView(name=services.save_input(file.filename or "picture.png", file.file))


@router.get("/{name:path}", response_class=FileResponse)
def get_input(services: Services, name: str) -> FileResponse:
    return FileResponse(services.input_path(name))
