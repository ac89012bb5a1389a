"""What a graph says about a picture, in A1111's words."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from atoll import __version__
from atoll.artifacts.infotext import SAMPLER_LABELS, SCHEDULE_LABELS, Infotext, format_infotext
from atoll.graph.graph import Graph, Link, Node

_SAMPLERS = {"KSampler", "KSamplerAdvanced"}
# Inputs by which a picture or its latents pass from node to node.
_PICTURE_INPUTS = ("latent_image", "samples", "images", "image", "painted", "pixels")
# Where conditioning passes through a node with several, which input an output comes from.
_CONDITIONING_OUTPUTS = {"InpaintModelConditioning": ("positive", "negative")}


def infotext_of(graph: Graph, output_id: str, *, size: tuple[int, int], index: int = 0, batch_size: int = 1) -> str:
    """The `parameters` text of a picture that `output_id` saves; "" where no sampler made it.

    The last sampler before the output is described; if its latents come from another one (a second pass at a higher
    resolution), the first is, with the second as its "Hires" part, as A1111 has it.

    Args:
        size: (width, height) of the finished picture.
        index, batch_size: which picture of the batch it is; all of a batch share one seed.
    """
    last = _nearest(graph, output_id, _SAMPLERS, through=_PICTURE_INPUTS)
    if last is None:
        return ""
    first_id, first = last
    while (earlier := _nearest(graph, first_id, _SAMPLERS, through=_PICTURE_INPUTS)) is not None:
        first_id, first = earlier
    last_id, second = last
    has_second_pass = first_id != last_id

    positive, text_node = _prompt(graph, first, "positive")
    negative, _ = _prompt(graph, first, "negative")
    model = _nearest(graph, last_id, {"CheckpointLoaderSimple", "UNETLoader"}, through=("model",))
    clip_skip = _nearest(graph, text_node, {"CLIPSetLastLayer"}, through=("clip",)) if text_node else None
    vae = _nearest(graph, output_id, {"VAELoader"}, through=(*_PICTURE_INPUTS, "vae"))
    empty = _nearest(graph, first_id, {"EmptyLatentImage"}, through=_PICTURE_INPUTS)
    noise = _nearest(graph, first_id, {"AtollImageNoise"}, through=_PICTURE_INPUTS)
    shown_size = (empty[1].inputs.get("width"), empty[1].inputs.get("height")) if empty and has_second_pass else size

    parameters: dict[str, Any] = {
        "Steps": first.inputs.get("steps"),
        "Sampler": _label(SAMPLER_LABELS, first.inputs.get("sampler_name")),
        "Schedule type": _label(SCHEDULE_LABELS, first.inputs.get("scheduler")),
        "CFG scale": _number(first.inputs.get("cfg")),
        "Seed": first.inputs.get("seed", first.inputs.get("noise_seed")),
        "Size": f"{shown_size[0]}x{shown_size[1]}",
    }
    if noise is not None:
        parameters |= _seeds_of_image(parameters["Seed"], noise[1], index)
    if model is not None:
        name = model[1].inputs.get("ckpt_name", model[1].inputs.get("unet_name"))
        parameters["Model"] = PurePosixPath(str(name)).stem if str(name).endswith((".safetensors", ".ckpt")) else name
    if vae is not None:
        parameters["VAE"] = vae[1].inputs.get("vae_name")
    if empty is None or has_second_pass:
        strength = second.inputs.get("denoise", second.meta.get("denoising_strength"))
        parameters["Denoising strength"] = _number(strength)
    if clip_skip is not None and clip_skip[1].inputs.get("stop_at_clip_layer") != -1:
        parameters["Clip skip"] = -int(clip_skip[1].inputs["stop_at_clip_layer"])
    if has_second_pass:
        parameters |= {"Hires resize": f"{size[0]}x{size[1]}", "Hires steps": second.inputs.get("steps")}
        for name, field, before in (("prompt", "positive", positive), ("negative prompt", "negative", negative)):
            text, _ = _prompt(graph, second, field)
            if text != before:
                parameters[f"Hires {name}"] = text
    if batch_size > 1:
        parameters |= {"Batch size": batch_size, "Batch pos": index}
    parameters["Version"] = f"Atoll {__version__}"
    said = {name: str(value) for name, value in parameters.items() if value is not None and not isinstance(value, Link)}
    return format_infotext(Infotext(positive, negative, said))


def _seeds_of_image(seed: Any, noise: Node, index: int) -> dict[str, Any]:
    """What an AtollImageNoise node makes of the seed for the picture at `index`."""
    if not isinstance(seed, int):
        return {}
    said: dict[str, Any] = {}
    if noise.inputs.get("subseed_strength"):
        said |= {"Seed": seed, "Variation seed": noise.inputs.get("subseed", 0) + index}
        said["Variation seed strength"] = _number(noise.inputs["subseed_strength"])
    else:
        said["Seed"] = seed + index
    width, height = (noise.inputs.get(f"resize_from_{side}", 0) for side in ("width", "height"))
    if width and height:
        said["Seed resize from"] = f"{width}x{height}"
    return said


def _nearest(graph: Graph, node_id: str, class_types: set[str], *, through: tuple[str, ...]) -> tuple[str, Node] | None:
    """The first node of these classes upstream, breadth first, by the inputs that `through` names."""
    seen, layer = {node_id}, [node_id]
    while layer:
        links = [link.node_id for current in layer for name, link in graph.nodes[current].links() if name in through]
        layer = [source for source in dict.fromkeys(links) if source in graph.nodes and source not in seen]
        seen.update(layer)
        for source in layer:
            if graph.nodes[source].class_type in class_types:
                return source, graph.nodes[source]
    return None


def _prompt(graph: Graph, sampler: Node, field: str) -> tuple[str, str | None]:
    """(text, id of the node that encodes it) of one of a sampler's conditionings."""
    link = sampler.inputs.get(field)
    seen: set[str] = set()
    while isinstance(link, Link) and link.node_id in graph.nodes and link.node_id not in seen:
        seen.add(link.node_id)
        node = graph.nodes[link.node_id]
        text = node.meta.get("prompt", node.inputs.get("text"))  # a door may have taken something out of the prompt
        if isinstance(text, str):
            return text, link.node_id
        passed_on = _CONDITIONING_OUTPUTS.get(node.class_type, ())
        name = passed_on[link.slot] if link.slot < len(passed_on) else next((name for name, _ in node.links()), "")
        link = node.inputs.get(name)
    return "", None


def _label(labels: dict[str, str], name: Any) -> Any:
    return labels.get(name, name) if isinstance(name, str) else None


def _number(value: Any) -> Any:
    """7.0 as A1111 writes it: 7."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
