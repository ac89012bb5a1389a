"""What a picture says of its seed when each picture of a batch has its own."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.artifacts.infotext import parse_infotext
from atoll.graph.graph import Graph
from atoll.nodes.infotext import infotext_of


def said_of(index: int, **noise: Any) -> dict[str, str]:
    graph = Graph()
    checkpoint = graph.add("CheckpointLoaderSimple", ckpt_name="a.safetensors")
    latents = graph.add("EmptyLatentImage", width=64, height=64, batch_size=4)
    latents = graph.add("AtollImageNoise", samples=latents, **noise)
    prompts = {
        name: graph.add("AtollTextEncode", clip=checkpoint[1], text=text)
        for name, text in (("positive", "a [red] apple"), ("negative", "blurry"))
    }
    sampled = graph.add(
        "KSampler",
        model=checkpoint, latent_image=latents, seed=40, steps=3, cfg=7.0, sampler_name="euler", scheduler="normal",
        denoise=1.0, **prompts,
    )  # fmt: skip
    saved = graph.add("SaveImage", images=graph.add("VAEDecode", samples=sampled, vae=checkpoint[2]))
    text = infotext_of(graph, saved.node_id, size=(64, 64), index=index, batch_size=4)
    assert text.startswith("a [red] apple\nNegative prompt: blurry\n")
    return dict(parse_infotext(text).parameters)


@pytest.mark.parametrize("index", [0, 3])
def test_each_picture_names_the_seed_that_makes_it_alone(index: int) -> None:
    said = said_of(index, subseed=7, subseed_strength=0.0, resize_from_width=0, resize_from_height=0)
    assert said["Seed"] == str(40 + index)
    assert "Variation seed" not in said and "Seed resize from" not in said


def test_a_variation_keeps_the_seed_and_counts_the_subseed() -> None:
    said = said_of(2, subseed=7, subseed_strength=0.25, resize_from_width=512, resize_from_height=768)
    assert (said["Seed"], said["Variation seed"], said["Variation seed strength"]) == ("40", "9", "0.25")
    assert said["Seed resize from"] == "512x768"
