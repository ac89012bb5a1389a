"""Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from atoll.api.errors import STATUS_OF_CODE, logger
from atoll.api.faults import FaultyRequest, describe_faults, faults_from_validation
from atoll.errors import AtollError, NotFound


class UnknownModel(NotFound):
    """A model that nothing answers to."""


class OpenAIRoute(APIRoute):
    """Answers errors in that shape. What can't be is 400 here, not 422."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                return JSONResponse(error_body(FaultyRequest(faults_from_validation(error.errors()))), 400)
            except AtollError as error:
                status = STATUS_OF_CODE.get(error.code, 422)
                return JSONResponse(error_body(error), 400 if status == 422 else status)
            except HTTPException as error:
                return JSONResponse(_error(str(error.detail), error.status_code), error.status_code)
            except Exception:
                logger.exception("%s %s failed", request.method, request.url.path)
                return JSONResponse(_error("Something went wrong inside Atoll; its log says what.", 500), 500)

        return answer


def error_body(error: AtollError) -> dict[str, Any]:
    """The body for an error, its first faulty field as `param`."""
    fields = [fault.get("field") for fault in describe_faults(error)]
    status = STATUS_OF_CODE.get(error.code, 422)
    code = "model_not_found" if isinstance(error, UnknownModel) else error.code
    return _error(error.message, status, code, next((field for field in fields if field), None))


def _error(message: str, status: int, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
