"""Puts the studio's page onto the server: `mount_studio(app, services)`."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request
from nicegui import ui

from atoll.api.services import StudioServices
from atoll.web.page import StudioPage
from atoll.web.text import Words

# A phone that sleeps for a moment finds its page as it was; a closed tab is forgotten soon after.
RECONNECT_TIMEOUT_S = 20.0
# Kept per tab to bring a lost connection up to date; each may hold a preview of some kilobytes.
MESSAGE_HISTORY = 100


def mount_studio(app: FastAPI, services: StudioServices) -> None:
    """Serve the studio at `/` of an app that has its REST routes already. Needs nothing from any other site."""

    @ui.page("/")
    async def studio(request: Request) -> None:
        words = Words(request.cookies.get("atoll_language", "en"))
        page = StudioPage(services, words, request.cookies.get("atoll_theme"))
        await page.build()
        await ui.context.client.connected()
        await page.start()

    ui.run_with(
        app,
        title="Atoll",
        favicon=Path(__file__).parent / "logo.svg",
        dark=None,
        tailwind=False,
        binding_refresh_interval=None,
        reconnect_timeout=RECONNECT_TIMEOUT_S,
        message_history_length=MESSAGE_HISTORY,
        show_welcome_message=False,
    )
