"""Making a worker's first picture as quick as its second."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from atoll.graph.execute import ResultCache, run_graph
from atoll.graph.graph import Graph
from atoll.graph.node import InputPictures, LoadedModels, Registry
from atoll.jobs.job import JobState
from atoll.jobs.store import JobStore

ENGINE = ("atoll.diffusion.checkpoint", "atoll.diffusion.sample", "atoll.diffusion.preview")  # they load torch

log = logging.getLogger(__name__)


def warm_up(
    registry: Registry, models: LoadedModels, inputs: InputPictures, store: JobStore, default_model: str
) -> None:
    """Load the model that is most likely wanted next, and draw one step of a small picture that nobody sees.

    So the libraries are loaded too, many of which are only when they are first used. What fails here is logged: the
    first job that meets it tells its owner.
    """
    name = likely_model(store, default_model)
    started = time.perf_counter()
    try:
        for module in ENGINE:  # first, as it helps whatever model is asked for
            importlib.import_module(module)
        graph = _small_picture(name)
        run_graph(graph, registry, ResultCache(0, lambda _: 1), _WarmUpContext(graph, models, inputs))
    except Exception as error:
        log.warning("Model %s could not be warmed: %s", name, error)
    else:
        log.info("Model %s is warm after %.1f s.", name, time.perf_counter() - started)


def likely_model(store: JobStore, default_model: str) -> str:
    """The checkpoint of the newest job, or the default one."""
    for job in store.jobs(limit=20):
        if job.state in (JobState.QUEUED, JobState.DONE):
            for node in job.graph.values():
                if isinstance(node, dict) and node.get("class_type") == "CheckpointLoaderSimple":
                    return str(node.get("inputs", {}).get("ckpt_name", default_model))
    return default_model


def _small_picture(checkpoint: str) -> Graph:
    graph = Graph()
    loaded = graph.add("CheckpointLoaderSimple", ckpt_name=checkpoint)
    prompt = graph.add("CLIPTextEncode", text="", clip=loaded[1])
    sampled = graph.add(
        "KSampler",
        model=loaded[0], positive=prompt, negative=prompt,
        latent_image=graph.add("EmptyLatentImage", width=64, height=64, batch_size=1),
        seed=0, steps=1, cfg=2.0, sampler_name="euler", scheduler="normal", denoise=1.0,
    )  # fmt: skip
    graph.add("SaveImage", images=graph.add("VAEDecode", samples=sampled, vae=loaded[2]), filename_prefix="warm")
    return graph


class _WarmUpContext:
    """A NodeContext that reports and saves nothing."""

    def __init__(self, graph: Graph, models: LoadedModels, inputs: InputPictures) -> None:
        self.node_id = ""
        self.graph = graph
        self.extra: Mapping[str, Any] = {}
        self.models = models
        self.inputs = inputs

    def on_step(self, step: int, total: int, preview: Callable[[], bytes] | None) -> None:
        """Nobody waits for this picture."""

    def save_image(self, *_: Any, **__: Any) -> None:
        """It is not kept."""
