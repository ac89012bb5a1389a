"""What a request must pass before any handler sees it: who it is addressed to, who sends it, how big it is.

Loopback alone does not keep strangers out: any web page open in the user's browser can send requests to 127.0.0.1, and
one that rebinds its own DNS name to 127.0.0.1 could even read the answers. So the Host must be a loopback name, and an
Origin must be the studio's own.
"""

from __future__ import annotations

import ipaddress
import json
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atoll.errors import InvalidRequest

MIB = 2**20
MAX_JSON_BYTES = 16 * MIB  # a workflow of thousands of nodes is below one
# What carries pictures or files of the user's, below /api too.
UPLOADS = ("/inputs", "/upload/image", "/upload/mask")
USER_FILES = "/userdata/"
MAX_UPLOAD_BYTES = 128 * MIB


class ForbiddenHost(InvalidRequest):
    code = "forbidden_host"


class TooBig(InvalidRequest):
    code = "too_big"


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def refuse_open_host(host: str) -> None:
    """Raises: ForbiddenHost unless `host` is loopback, the only address that needs no accounts."""
    if not is_loopback(host):
        raise ForbiddenHost(
            f"The studio can't listen on {host}: anyone who reaches it could use it, and there are no accounts and no "
            "TLS yet. Use 127.0.0.1, and from another machine an SSH tunnel: ssh -L 7860:127.0.0.1:7860 HOST."
        )


class Gate:
    """ASGI middleware in front of everything, the studio's pages and its sockets too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = MAX_JSON_BYTES if _is_json_route(scope["path"]) else MAX_UPLOAD_BYTES
        try:
            _check_addressee(headers)
            length = headers.get("content-length", "")
            if length.isdecimal() and int(length) > limit:
                raise TooBig(_too_big(limit))
        except InvalidRequest as error:
            await _refuse(scope, receive, send, error)
            return

        received = 0

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b"")) if message["type"] == "http.request" else 0
            if received > limit:  # a body without a content-length: read no further
                raise HTTPException(413, _too_big(limit), headers={"connection": "close"})
            return message

        await self.app(scope, receive_bounded if scope["type"] == "http" else receive, send)


def _is_json_route(path: str) -> bool:
    if path.endswith("/prompt"):
        return True
    return "/api/" in path and not path.endswith(UPLOADS) and USER_FILES not in path


def _too_big(limit: int) -> str:
    return f"The request's body is bigger than {limit // MIB} MiB, the most that is taken here. Nothing was stored."


def _check_addressee(headers: Headers) -> None:
    host = headers.get("host", "")
    if not is_loopback(_hostname(host)):
        raise ForbiddenHost(
            f'This request is addressed to "{host}". The studio answers only as localhost or 127.0.0.1, so that no web '
            "page can reach it under a name of its own."
        )
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        raise ForbiddenHost(f'The page "{origin}" is not the studio\'s own, so it may not send requests to it.')
    if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
        raise ForbiddenHost("Another web page sent this request; only the studio's own pages may.")


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def _refuse(scope: Scope, receive: Receive, send: Send, error: InvalidRequest) -> None:
    status = 413 if isinstance(error, TooBig) else 403
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": error.message[:120]})
        return
    body = json.dumps({"error": {"code": error.code, "message": error.message, "faults": []}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    # Closing tells a client in the middle of sending gigabytes that nobody reads them.
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})
