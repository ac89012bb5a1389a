"""Other rules of guidance than the usual one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from atoll.diffusion.conditioning import Conditioning
from atoll.diffusion.model import Estimates, Guide

PICTURE = (1, 2, 3)  # the axes of one picture


def rescaled_guidance(share: float) -> Guide:
    """Guidance whose result keeps the spread of the positive answer, so that strong guidance burns nothing out.

    share: of the rescaled result; the rest is the plain one. The network's answer is read as v for that.
    Source: Lin et al. 2023, arXiv:2305.08891, section 3.4.
    """

    def combine(known: Estimates) -> Tensor:
        sigma = known.sigma
        scale = (sigma**2 + 1.0).sqrt()
        signal = known.latents / scale**2
        positive, negative = ((signal - denoised) * scale / sigma for denoised in known.denoised[:2])
        guided = negative + known.guidance_scale * (positive - negative)
        rescaled = guided * (positive.std(dim=PICTURE, keepdim=True) / guided.std(dim=PICTURE, keepdim=True))
        return signal - (share * rescaled + (1.0 - share) * guided) * sigma / scale

    return Guide(combine)


def perpendicular_guidance(empty: Sequence[Conditioning], negative_scale: float) -> Guide:
    """Only that of the negative prompt is taken away which the positive one does not want, too.

    empty: what the network draws unasked.
    Source: Armandpour et al. 2023, arXiv:2304.04968, section 4.2.
    """

    def combine(known: Estimates) -> Tensor:
        positive, negative, unasked = known.denoised[:3]
        wanted, unwanted = positive - unasked, negative - unasked
        shared = (unwanted * wanted).sum() / wanted.norm() ** 2
        across = unwanted - torch.where(shared.isfinite(), shared, 0.0) * wanted
        return unasked + known.guidance_scale * (wanted - negative_scale * across)

    return Guide(combine, (tuple(empty),))
