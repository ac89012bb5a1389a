"""What the doors' tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from comfy_door import ComfyServer


@pytest.fixture
def comfy(tmp_path: Path) -> Iterator[ComfyServer]:
    """The app in this process, with a worker that the test moves by hand."""
    from comfy_door import comfy_server

    with comfy_server(tmp_path / "home") as server:
        yield server
