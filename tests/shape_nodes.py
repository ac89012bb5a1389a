"""Every node of Atoll without its arithmetic: what travels is how many pictures there are, and of what size.

So a door's graphs run through the real worker, the real store and the real files, in milliseconds and without torch.
Samplers take their steps with previews; what is saved is a picture whose colours come from the graph alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from atoll.graph.node import NodeContext, NodeSpec, Registry
from atoll.nodes.infotext import infotext_of
from atoll.nodes.registry import core_registry

SAMPLERS = {"KSampler", "KSamplerAdvanced"}
open_gate = threading.Event()  # samplers wait before their second step until it is set
open_gate.set()


@dataclass(frozen=True)
class Shape:
    """Pictures, latents or masks; sizes in pixels."""

    count: int
    width: int
    height: int


def shape_registry() -> Registry:
    return Registry({spec.class_type: replace(spec, function=_light(spec)) for spec in core_registry()})


def _light(spec: NodeSpec) -> Callable[..., Any]:
    def run(**inputs: Any) -> Any:
        context = inputs.pop(spec.context_parameter) if spec.context_parameter else None
        shape = _shape(spec.class_type, inputs, context)
        if spec.class_type in SAMPLERS:
            _take_steps(context, inputs["steps"] - inputs.get("start_at_step", 0))
        if spec.is_output:
            _save(context, shape, "output" if spec.class_type == "SaveImage" else "temp")
            return None
        return shape if len(spec.outputs) == 1 else (shape,) * len(spec.outputs)

    return run


def _shape(class_type: str, inputs: dict[str, Any], context: Any) -> Shape | None:
    preferred = [inputs.get(name) for name in ("image", "pixels", "samples", "latent_image", "images", "painted")]
    given = next((value for value in [*preferred, *inputs.values()] if isinstance(value, Shape)), None)
    match class_type:
        case "LoadImage" | "LoadImageMask":
            with Image.open(io.BytesIO(context.inputs.read(inputs["image"]))) as picture:
                return Shape(1, *picture.size)
        case "EmptyLatentImage":
            return Shape(inputs["batch_size"], inputs["width"] // 8 * 8, inputs["height"] // 8 * 8)
        case "ImageBatch":
            return replace(inputs["image1"], count=inputs["image1"].count + inputs["image2"].count)
        case "RepeatLatentBatch" if given:
            return replace(given, count=given.count * inputs["amount"])
        case "AtollPasteBack":
            return replace(inputs["image"], count=inputs["painted"].count)
        case _ if given and class_type != "EmptyLatentImage" and {"width", "height"} <= set(inputs):
            return replace(given, width=inputs["width"], height=inputs["height"])
    return given


def _take_steps(context: NodeContext, steps: int) -> None:
    for step in range(1, steps + 1):
        context.on_step(step, steps, _preview)
        while step == 1 and not open_gate.wait(0.05):
            context.on_step(step, steps, _preview)


def _preview() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "teal").save(file, "JPEG")
    return file.getvalue()


def _save(context: Any, shape: Shape | None, kind: Any) -> None:
    assert shape is not None
    graph = context.graph.to_api()
    for index in range(shape.count):
        digest = hashlib.sha256(json.dumps([graph, index], sort_keys=True).encode()).digest()
        pixels = np.random.default_rng(list(digest)).integers(0, 256, (shape.height, shape.width, 3), dtype=np.uint8)
        text = infotext_of(
            context.graph, context.node_id, size=(shape.width, shape.height), index=index, batch_size=shape.count
        )
        metadata = {"prompt": json.dumps(graph), **({"parameters": text} if text else {})}
        context.save_image(
            pixels, filename_prefix="shape", kind=kind, node_id=context.node_id, index=index, metadata=metadata
        )  # fmt: skip
