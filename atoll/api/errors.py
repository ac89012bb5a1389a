"""Errors over HTTP: one shape for all, `{"error": {"code", "message", "faults": [...]}}`."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from atoll.api.faults import FaultyRequest, describe_faults, faults_from_validation
from atoll.api.image_request import ImageRequest
from atoll.errors import AtollError, NotFound

logger = logging.getLogger(__name__)

STATUS_OF_CODE = {
    "not_found": 404,
    "missing_dependency": 501,
    "not_possible_yet": 501,
    "storage_full": 507,
    "out_of_memory": 507,
    "store_unavailable": 503,
    "store_too_new": 503,
    "cancelled": 409,
    "too_big": 413,
    "forbidden_host": 403,
    "error": 500,
}  # every other code: 422, the caller's request can't be


ANY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


class ErrorBody(BaseModel):
    """code: stable, for programs. message: for people. faults: every single thing wrong, with its field or node."""

    code: str
    message: str
    faults: list[dict[str, Any]]


class ErrorReply(BaseModel):
    error: ErrorBody


ERROR_REPLIES: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorReply, "description": "Nothing answers to that name"},
    413: {"model": ErrorReply, "description": "The body is too big"},
    422: {"model": ErrorReply, "description": "The request has faults; all of them are listed"},
}


def error_reply(error: AtollError) -> dict[str, Any]:
    return {"error": {"code": error.code, "message": error.message, "faults": describe_faults(error)}}


def answer_errors(app: FastAPI) -> None:
    """Put every error of the app into our words and shape; what it has no route for, too. Call it after the routes."""

    @app.exception_handler(AtollError)
    def answer_atoll_error(request: Request, error: AtollError) -> JSONResponse:
        return JSONResponse(error_reply(error), STATUS_OF_CODE.get(error.code, 422))

    @app.exception_handler(RequestValidationError)
    def answer_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = faults_from_validation(error.errors(), ImageRequest.model_fields)
        return JSONResponse(error_reply(FaultyRequest(faults)), 422)

    @app.exception_handler(HTTPException)
    def answer_http_error(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 413: "too_big"}.get(error.status_code, "http_error")
        reply = {"error": {"code": code, "message": str(error.detail), "faults": []}}
        return JSONResponse(reply, error.status_code, headers=error.headers)

    @app.api_route("/api/{path:path}", methods=ANY_METHOD, include_in_schema=False)
    def answer_unknown(request: Request, path: str) -> None:
        words = f"{request.method} {request.url.path[:200]} is nothing that this server does. See /docs for what is."
        raise NotFound(words)

    @app.exception_handler(Exception)
    def answer_unexpected(request: Request, error: Exception) -> JSONResponse:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        words = "Something went wrong inside Atoll; its log says what. Nothing was changed that is not listed."
        return JSONResponse({"error": {"code": "internal", "message": words, "faults": []}}, 500)
