"""Who may talk to the server, and how much they may say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from atoll.api.gate import MAX_JSON_BYTES, ForbiddenHost, Gate, is_loopback, refuse_open_host
from atoll.api.server import create_app
from atoll.settings import load_settings


async def answer_ok(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def send_through(headers: dict[str, str], *, kind: str = "http", path: str = "/api/v1/jobs") -> dict[str, Any]:
    """The first message that comes back."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "path": path, "headers": encoded}
    asyncio.run(Gate(answer_ok)(scope, receive, send))  # type: ignore[arg-type]
    return sent[0]


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1:7860", "[::1]:7860", "LOCALHOST", "127.1.2.3"])
def test_loopback_names_are_let_in(host: str) -> None:
    assert send_through({"host": host})["status"] == 200
    assert send_through({"host": host, "origin": f"http://{host}"})["status"] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},  # a name that was rebound to 127.0.0.1
        {"host": "localhost.evil.example:7860"},
        {"host": "192.168.1.5:7860"},
        {"host": ""},
        {},
        {"host": "[::1"},
        {"host": "127.0.0.1:7860", "origin": "http://evil.example"},
        {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:3000"},  # another program's page on this machine
        {"host": "127.0.0.1:7860", "origin": "null"},
        {"host": "127.0.0.1:7860", "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    ],
    ids=str,
)
def test_everybody_else_is_kept_out(headers: dict[str, str]) -> None:
    assert send_through(headers)["status"] == 403
    assert send_through(headers, kind="websocket")["type"] == "websocket.close"


def test_a_link_from_another_site_may_open_the_studio() -> None:
    headers = {"host": "127.0.0.1:7860", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert send_through(headers, path="/")["status"] == 200


def test_a_body_that_is_announced_too_big_is_refused_unread() -> None:
    assert send_through({"host": "localhost", "content-length": str(MAX_JSON_BYTES + 1)})["status"] == 413
    assert send_through({"host": "localhost", "content-length": str(MAX_JSON_BYTES)})["status"] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org", ""])
def test_only_loopback_can_be_listened_on(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ForbiddenHost, match="no accounts"):
        refuse_open_host(host)
    with pytest.raises(ForbiddenHost):
        create_app(load_settings(host=host or "0.0.0.0"), worker=False)
