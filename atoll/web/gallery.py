"""The right side's lower half: every picture kept, newest first. The browser side is gallery.js."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nicegui.element import Element


class Gallery(Element, component="gallery.js"):
    """Reads pictures from the REST API by itself, a page at a time."""

    def __init__(self, handlers: dict[str, Callable[[Any], Any]]) -> None:
        """`handlers` by event: look({sha256}) asks for `describe`; reuse(sha256); start(address)."""
        super().__init__()
        self.props["url"] = "/api/v1/artifacts"
        self.props["details"] = {"sha256": None, "rows": [], "seed": None}
        for event, handler in handlers.items():
            self.on(event, handler)

    def refresh(self) -> None:
        """Something new is in the index."""
        self.run_method("refresh")

    def open(self, sha256: str) -> None:
        self.run_method("open", sha256)

    def describe(self, sha256: str, rows: Sequence[tuple[str, str, bool]], seed: str | None) -> None:
        """Say what is known of the picture in the viewer: rows of (name, value, whether the value is long)."""
        self.props["details"] = {"sha256": sha256, "rows": [list(row) for row in rows], "seed": seed}
