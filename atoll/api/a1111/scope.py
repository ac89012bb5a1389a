"""What the door's handlers are handed: who calls, what they have set, and what is being done for them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from atoll.api.a1111.callers import COOKIE, Caller, caller_of
from atoll.api.a1111.in_flight import InFlight
from atoll.api.a1111.options import CallerOptions
from atoll.api.errors import STATUS_OF_CODE, logger
from atoll.api.faults import FaultyRequest, faults_from_validation
from atoll.api.services import StudioServices
from atoll.errors import AtollError, InvalidRequest


class Refused(InvalidRequest):
    """A request that A1111 refuses with a status of its own."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Door:
    """The door's memory: one for each app."""

    def __init__(self, services: StudioServices) -> None:
        self.services = services
        self.options = CallerOptions(services.settings.home / "a1111-options.json")
        self.in_flight = InFlight()


def door_of(request: Request) -> Door:
    door: Door = request.app.state.a1111
    return door


def call_of(request: Request, response: Response, door: Annotated[Door, Depends(door_of)]) -> Caller:
    """Who calls; a client that keeps cookies is known by one from its second request on.

    Raises: HTTPException 401 where the settings ask for a name and a password.
    """
    caller = poller_of(request, door)
    if caller.new_session is not None:
        response.set_cookie(COOKIE, caller.new_session, httponly=True, samesite="strict")
    return caller


def poller_of(request: Request, door: Annotated[Door, Depends(door_of)]) -> Caller:
    """The same, but gives no cookie: who asks for the progress of a request that is under way has to stay who it was.

    Raises: as `call_of`.
    """
    caller = caller_of(request, door.services.settings.a1111_auth)
    if caller.new_session is None:
        door.options.claim(caller.key)
    return caller


Doorway = Annotated[Door, Depends(door_of)]
From = Annotated[Caller, Depends(call_of)]
Poller = Annotated[Caller, Depends(poller_of)]


class A1111Route(APIRoute):
    """Answers errors in A1111's shape: `{"error", "detail", "body", "errors"}`, our sentence in `detail`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                faulty = FaultyRequest(faults_from_validation(error.errors()))
                return _reply(422, "ValidationError", faulty.message)
            except AtollError as error:
                status = error.status if isinstance(error, Refused) else STATUS_OF_CODE.get(error.code, 422)
                return _reply(status, type(error).__name__, error.message)
            except HTTPException as error:
                return _reply(error.status_code, "HTTPException", str(error.detail), error.headers)
            except Exception:
                logger.exception("%s %s failed", request.method, request.url.path)
                return _reply(500, "Internal", "Something went wrong inside Atoll; its log says what.")

        return answer


def _reply(status: int, kind: str, words: str, headers: Any = None) -> Response:
    return JSONResponse({"error": kind, "detail": words, "body": "", "errors": words}, status, headers=headers)
