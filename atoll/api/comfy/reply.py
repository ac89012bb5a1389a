"""How this door reads a body and words an error: as ComfyUI does it, but always with a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from atoll.api.errors import STATUS_OF_CODE
from atoll.api.faults import faults_from_validation
from atoll.errors import AtollError, InvalidRequest

GET = ["GET", "HEAD"]  # ComfyUI answers HEAD wherever it answers GET


def error_body(type_: str, message: str, details: str = "") -> dict[str, Any]:
    """An error in ComfyUI's shape."""
    error = {"type": type_, "message": message, "details": details, "extra_info": {}}
    return {"error": error, "node_errors": {}}


class Json(Response):
    """JSON in ASCII: what a client once sent in, half of a surrogate pair for one, can always be sent back."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return to_json(content)


def to_json(content: Any) -> bytes:
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class ComfyRoute(APIRoute):
    """A route whose errors have ComfyUI's shape: 404 for what is not there, 400 for what can't be."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_with_words(request: Request) -> Response:
            try:
                return await handle(request)
            except AtollError as error:
                return Json(error_body(error.code, error.message), STATUS_OF_CODE.get(error.code, 400))
            except RequestValidationError as error:
                sentences = " ".join(fault.message for fault in faults_from_validation(error.errors()))
                return Json(error_body("invalid_request", sentences), 400)

        return handle_with_words


async def _raw_body(request: Request) -> bytes:
    return await request.body()


RawBody = Annotated[bytes, Depends(_raw_body)]


def parse_json(body: bytes) -> Any:
    """Raises: InvalidRequest in words, where it is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:  # wrong syntax or UTF-8, endless digits, endless nesting
        raise InvalidRequest(f"The body is not JSON that can be read: {error}.", code="invalid_json") from error


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object; nothing at all counts as `{}`. Raises: InvalidRequest."""
    value = parse_json(body) if body.strip() else {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"The body must be a JSON object, not {type(value).__name__}.", code="invalid_json")
    return value


def is_yes(text: str) -> bool:
    """Whether a flag in a query or a form is set."""
    return text.lower() in ("true", "1", "yes", "on")


def as_count(text: str | None, name: str) -> int | None:
    """A query value as a whole number from 0 on; None where it is absent or negative, which ComfyUI takes for "all".

    Raises: InvalidRequest.
    """
    if text is None or text == "":
        return None
    try:
        number = int(text)
    except ValueError as error:
        raise InvalidRequest(f"{name} is {text[:80]!r}, which is not a whole number.") from error
    return number if 0 <= number < 2**31 else None
