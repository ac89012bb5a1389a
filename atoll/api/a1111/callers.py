"""Who sends a request: options, progress and interrupts are each caller's own."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from dataclasses import dataclass

from fastapi import HTTPException, Request
from pydantic import SecretStr

COOKIE = "atoll_a1111"
_SESSION = re.compile(r"[\w-]{16,64}")


@dataclass(frozen=True)
class Caller:
    """key: what tells callers apart. new_session: the cookie to give to one who brought none."""

    key: str
    new_session: str | None = None


def session_key(session: str) -> str:
    return f"session {session}"


def caller_of(request: Request, users: SecretStr | None) -> Caller:
    """By user name, if one is sent; else by the cookie; else by address and program, which is the best that is left.

    Args:
        users: "name:password" pairs, split by commas, one of which must be sent; None: anyone may call.
    Raises: HTTPException 401.
    """
    name, password = _basic(request.headers.get("authorization", ""))
    if users is not None and not _is_among(name, password, users.get_secret_value()):
        raise HTTPException(401, "Incorrect username or password", headers={"www-authenticate": "Basic"})
    if name:
        return Caller(f"user {name}")
    session = request.cookies.get(COOKIE, "")
    if _SESSION.fullmatch(session):
        return Caller(session_key(session))
    address = request.client.host if request.client else ""
    return Caller(f"program {address} {request.headers.get('user-agent', '')[:200]}", secrets.token_urlsafe(24))


def _basic(header: str) -> tuple[str, str]:
    """(name, password); two empty texts for what is no Basic header, an empty one among it."""
    kind, _, coded = header.partition(" ")
    if kind.lower() != "basic":
        return "", ""
    try:
        name, _, password = base64.b64decode(coded.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return "", ""
    return name, password


def _is_among(name: str, password: str, users: str) -> bool:
    given = f"{name}:{password}".encode()
    known = [secrets.compare_digest(given, user.strip().encode()) for user in users.split(",") if user.strip()]
    return any(known)
