"""Nodes that need no torch: what a worker does around them is what is tested."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from typing import Annotated, Any

import numpy as np

from atoll.errors import NotACheckpoint
from atoll.graph.node import NodeContext, Registry, Socket, Text, node

Number = Annotated[int, Socket("INT")]
ran: list[str] = []  # class types, in the order in which this process ran them
gate = threading.Event()  # what "Wait" waits for


@node("Count", title="Count", category="test")
def count(context: NodeContext, *, steps: int = 3, pause_ms: int = 0, seed: int = 0) -> Number:
    """Takes steps, with a preview at each."""
    ran.append("Count")
    for step in range(1, steps + 1):
        if pause_ms:
            time.sleep(pause_ms / 1000)
        context.on_step(step, steps, lambda: b"\xff\xd8 a picture of noise")
    return seed


@node("Draw", title="Draw", category="test", is_output=True)
def draw(number: Number, context: NodeContext, *, pictures: int = 1, size: int = 8) -> None:
    """Saves pictures whose pixels depend on the number alone."""
    ran.append("Draw")
    for index in range(pictures):
        pixels = np.random.default_rng([number, index]).integers(0, 256, (size, size, 3), dtype=np.uint8)
        context.save_image(
            pixels, filename_prefix="sub/test", kind="output", node_id=context.node_id, index=index,
            metadata={"number": str(number)},
        )  # fmt: skip


@node("Wait", title="Wait", category="test")
def wait(number: Number, context: NodeContext) -> Number:
    """Takes endless steps until the gate opens."""
    ran.append("Wait")
    step = 0
    while not gate.wait(0.005):
        context.on_step(step := step + 1, 10_000, None)
    return number


class OutOfMemoryError(RuntimeError):
    """As torch calls it."""


ERRORS: dict[str, Any] = {
    "atoll": lambda: NotACheckpoint("ink.safetensors is a LoRA."),
    "bug": lambda: KeyError("input_blocks.0.0.weight"),
    "gpu memory": lambda: OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
    "cpu memory": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"
    ),
    "disk": lambda: OSError(errno.ENOSPC, "No space left on device"),
    "device": lambda: RuntimeError("CUDA error: an illegal memory access was encountered"),
}


@node("Fail", title="Fail", category="test")
def fail(number: Number, context: NodeContext, *, how: Annotated[str, Text()] = "bug") -> Number:
    """Takes three of thirty steps, then fails."""
    ran.append("Fail")
    for step in range(1, 4):
        context.on_step(step, 30, None)
    if how == "death":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "silence":
        os.kill(os.getpid(), signal.SIGSTOP)
    raise ERRORS[how]()


def light_registry() -> Registry:
    return Registry.of(count, draw, wait, fail)


def light_graph(seed: int = 0, *, between: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Count -> (a node between) -> Draw."""
    drawn = {name: fields.pop(name) for name in ("pictures", "size") if name in fields}
    graph = {"1": {"class_type": "Count", "inputs": {"seed": seed, "steps": 3, "pause_ms": 0, **fields}}}
    last = "1"
    if between:
        graph["2"] = {"class_type": between["class_type"], "inputs": {"number": ["1", 0], **between.get("inputs", {})}}
        last = "2"
    graph["9"] = {"class_type": "Draw", "inputs": {"number": [last, 0], "pictures": 1, "size": 8, **drawn}}
    return graph
