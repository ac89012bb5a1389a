"""Networks between two others."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from atoll.diffusion.text import TextEncoder
from atoll.errors import InvalidRequest

Network = TypeVar("Network", bound=nn.Module)


def merge_networks(first: Network, second: nn.Module, share: float) -> Network:
    """A network of weights share * first + (1 - share) * second; both stay as they are.

    Raises: InvalidRequest if they are not of one shape.
    """
    theirs = dict(second.named_parameters())
    ours = dict(first.named_parameters())
    unlike = [name for name in ours if name not in theirs or theirs[name].shape != ours[name].shape]
    if unlike or len(ours) != len(theirs):
        named = unlike[0] if unlike else next(name for name in theirs if name not in ours)
        raise InvalidRequest(f"The two models are of different families (at {named}), so nothing lies between them.")
    merged = copy.deepcopy(first)
    with torch.no_grad():
        for name, weight in merged.named_parameters():
            between = ours[name].float() * share + theirs[name].to(weight.device).float() * (1 - share)
            weight.copy_(between.to(weight.dtype))
    return merged


def merge_text_encoders(first: TextEncoder, second: TextEncoder, share: float) -> TextEncoder:
    """As `merge_networks`, for each of the encoders."""
    if len(first.encoders) != len(second.encoders):
        counts = f"{len(first.encoders)} and {len(second.encoders)}"
        raise InvalidRequest(f"The two models have {counts} text encoders, so nothing lies between them.")
    merged = tuple(
        replace(ours, network=merge_networks(ours.network, theirs.network, share))
        for ours, theirs in zip(first.encoders, second.encoders, strict=True)
    )
    return replace(first, encoders=merged)
