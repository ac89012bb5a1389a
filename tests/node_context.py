"""A NodeContext as a test wants it: everything is remembered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.artifacts.input_files import InputFiles
from atoll.graph.graph import Graph, Node
from atoll.nodes.model_shelf import ModelShelf


@dataclass(frozen=True)
class Saved:
    image: NDArray[np.uint8]
    filename_prefix: str
    kind: str
    node_id: str
    index: int
    metadata: Mapping[str, str]


@dataclass
class RecordingContext:
    """A NodeContext that remembers."""

    models: ModelShelf
    inputs: InputFiles
    graph: Graph = field(default_factory=lambda: Graph({"1": Node("SaveImage", {})}))
    extra: Mapping[str, Any] = field(default_factory=dict)
    node_id: str = "1"
    saved: list[Saved] = field(default_factory=list)
    steps: list[tuple[str, int, int]] = field(default_factory=list)
    preview: bytes = b""

    def on_step(self, step: int, total: int, preview: Callable[[], bytes] | None) -> None:
        self.steps.append((self.node_id, step, total))
        self.preview = preview() if preview else b""

    def save_image(self, image: NDArray[np.uint8], **rest: Any) -> None:
        self.saved.append(Saved(image.copy(), **rest))
