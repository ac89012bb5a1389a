"""The start picture and the mask painted on it. The browser side is image_well.js."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from nicegui.element import Element
from nicegui.events import GenericEventArguments

INPUTS = "/api/v1/inputs"
MASK_UPLOAD_TIMEOUT_S = 60.0


class ImageWell(Element, component="image_well.js"):
    """Takes a picture by drop, paste or file dialog, stores it as an input, and lets a mask be painted on it."""

    def __init__(
        self,
        *,
        on_picture: Callable[[int, int], Any],
        on_change: Callable[[], Any],
        on_fault: Callable[[str], Any],
    ) -> None:
        super().__init__()
        self.picture: str | None = None  # the name of an input of the server
        self.has_mask = False
        self._on_picture = on_picture
        self._on_change = on_change
        self.props["upload_url"] = INPUTS
        self.show(None)
        self.on("picture", self._taken)
        self.on("removed", self._removed)
        self.on("mask", self._masked)
        self.on("fault", lambda event: on_fault(event.args["message"]))

    def show(self, picture: str | None, mask: str | None = None) -> None:
        """Show an input as the start picture; without `mask`, what this tab last painted on it is painted again."""
        self.picture = picture
        self.has_mask = False
        self.props["name"] = picture or ""
        self.props["source"] = f"{INPUTS}/{quote(picture)}" if picture else ""
        self.props["mask_source"] = f"{INPUTS}/{quote(mask)}" if mask else ""

    def take(self, address: str) -> None:
        """Start from a picture of this server, by its address."""
        self.run_method("take", address)

    async def export_mask(self) -> str | None:
        """The painted mask as an input file; None if nothing is painted."""
        if not self.has_mask:
            return None
        name = await self.run_method("export_mask", timeout=MASK_UPLOAD_TIMEOUT_S)
        return str(name) if name else None

    def _taken(self, event: GenericEventArguments) -> None:
        self.show(event.args["name"])
        self._on_picture(int(event.args["width"]), int(event.args["height"]))

    def _removed(self) -> None:
        self.show(None)
        self._on_change()

    def _masked(self, event: GenericEventArguments) -> None:
        self.has_mask = bool(event.args["present"])
        self._on_change()
