"""What every room's tests share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from studio_server import StudioServer

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with random tiny weights; shared, so read only."""
    from tiny_models import save_tiny_checkpoint

    return save_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may touch the user's own home."""
    monkeypatch.setenv("ATOLL_HOME", str(tmp_path / "atoll-home"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import importlib.util

    cuda = False
    if any(item.get_closest_marker("gpu") for item in items) and importlib.util.find_spec("torch"):
        import torch

        cuda = torch.cuda.is_available()
    for item in items:
        if item.get_closest_marker("gpu") and not cuda:
            item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


@pytest.fixture(scope="session")
def studio_server(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[StudioServer]:
    """One server with one worker for all tests that need no server of their own; its home fills up as they go."""
    from studio_server import home_with_model, running_studio

    with running_studio(home_with_model(tmp_path_factory.mktemp("studio") / "home", tiny_checkpoint)) as server:
        server.wait_ready()
        yield server
