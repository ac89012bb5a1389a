"""Prompts that speak during some of the steps only."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from atoll.errors import InvalidRequest
from atoll.graph.node import Range, Text, Tooltip, node
from atoll.nodes.sampling import Sampler, Schedule, Steps
from atoll.nodes.types import Conditionings, Model

_RANGES = re.compile(r"\d{1,5}-\d{1,5}(,\d{1,5}-\d{1,5})*")
# A sampler may ask for a level a rounding above the one that the schedule names.
_ABOVE = 1.0001


def _written_well(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if isinstance(fields["ranges"], str) and not _RANGES.fullmatch(fields["ranges"]):
        yield "ranges", f'{fields["ranges"]!r:.60} is no list of steps. Write "0-10" or "0-1,2-3".'


@node("AtollPromptSteps", title="Prompt for Some Steps", category="conditioning", check=_written_well)
def limit_to_steps(
    conditioning: Conditionings,
    model: Annotated[Model, Tooltip("The one that will be sampled with.")],
    *,
    ranges: Annotated[
        str, Text(max_length=10_000), Tooltip('Steps from 0, the last not counted: "0-10" or "0-1,2-3".')
    ],
    steps: Annotated[Steps, Tooltip("These four as the sampler has them.")] = 20,
    sampler_name: Sampler,
    scheduler: Schedule,
    denoise: Annotated[float, Range(0.0, 1.0, step=0.01)] = 1.0,
    start_at_step: Annotated[int, Range(0, 10_000)] = 0,
) -> Conditionings:
    """Let a prompt speak during some of a sampler's steps, counted from the first that it makes."""
    import numpy as np

    from atoll.diffusion.samplers import find_sampler  # loads torch, which the server must not
    from atoll.diffusion.sigmas import build_partial_sigmas

    schedule = model.noise_schedule
    sigmas = build_partial_sigmas(
        scheduler, schedule, steps, denoise, drop_penultimate=find_sampler(sampler_name).drop_penultimate
    )[start_at_step:]

    def percent(step: int) -> float:
        """How far on the way that step begins."""
        if step <= 0:
            return 0.0
        if step >= min(steps - start_at_step, len(sigmas) - 1):  # ddim_uniform may have a level more than steps
            return 1.0
        level = math.log(float(sigmas[step]) * _ABOVE)
        stride, count = schedule.timestep_stride, schedule.num_train_timesteps
        place = float(np.interp(level, schedule.log_sigmas.double().numpy(), np.arange(count)))
        return 1.0 - (place * stride + stride - 1) / (count * stride - 1)

    said = []
    for first, last in (map(int, span.split("-")) for span in ranges.split(",")):
        if first >= last:
            raise InvalidRequest(f"The steps {first}-{last} are none: the second number must be the bigger one.")
        begins, ends = percent(first), percent(last)
        said += [dataclasses.replace(item, start_percent=begins, end_percent=ends) for item in conditioning]
    return said
