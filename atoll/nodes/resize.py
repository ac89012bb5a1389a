"""Changing the size of pictures and latents the way ComfyUI's nodes do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PICTURE_METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
LATENT_METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "bislerp")
CROPS = ("disabled", "center")


def resize(samples: Tensor, width: int, height: int, method: str, crop: str = "disabled") -> Tensor:
    """(batch, channels, height, width) to another height and width.

    method: one of the names above. "lanczos" goes through 8 bits a channel.
    crop: "center" first cuts off what the new aspect has no room for; "disabled" stretches.
    """
    from torch.nn import functional as F  # loads torch, which the server must not

    if crop == "center":
        samples = _cut_to_aspect(samples, width / height)
    if samples.shape[-2:] == (height, width):
        return samples
    if method == "lanczos":
        return _resize_lanczos(samples, width, height)
    if method == "bislerp":
        return _resize_bislerp(samples, width, height)
    return F.interpolate(samples, size=(height, width), mode=method)


def _cut_to_aspect(samples: Tensor, aspect: float) -> Tensor:
    height, width = samples.shape[-2:]
    if width / height > aspect:
        left = round((width - height * aspect) / 2)
        return samples[..., left : width - left]
    top = round((height - width / aspect) / 2)
    return samples[..., top : height - top, :]


def _resize_lanczos(samples: Tensor, width: int, height: int) -> Tensor:
    import numpy as np
    import torch  # not at the top: the server must not load it
    from PIL import Image

    pictures = []
    for sample in samples.float().cpu():
        channels = [
            Image.fromarray((channel.clamp(0, 1) * 255).byte().numpy()).resize(
                (width, height), Image.Resampling.LANCZOS
            )
            for channel in sample
        ]
        pictures.append(torch.from_numpy(np.stack([np.asarray(channel) for channel in channels])).float() / 255)
    return torch.stack(pictures).to(samples)


def _resize_bislerp(samples: Tensor, width: int, height: int) -> Tensor:
    """Bilinear in the length of each pixel's channel vector, spherical in its direction.

    A plain mean of two unlike latents is shorter than either, which decodes as blur; this keeps the length.
    """
    values = samples.float()
    values = _slerp_along(values, width, dim=-1)
    return _slerp_along(values, height, dim=-2).to(samples)


def _slerp_along(values: Tensor, new_size: int, dim: int) -> Tensor:
    import torch  # not at the top: the server must not load it

    old_size = values.shape[dim]
    # Centre of each new pixel in old pixels, as bilinear interpolation without aligned corners has it.
    position = ((torch.arange(new_size, device=values.device) + 0.5) * old_size / new_size - 0.5).clamp(0, old_size - 1)
    lower = position.floor().long()
    ratio = (position - lower).reshape([-1 if axis == dim % 4 else 1 for axis in range(4)])
    start = values.index_select(dim, lower)
    end = values.index_select(dim, (lower + 1).clamp(max=old_size - 1))

    start_length, end_length = start.norm(dim=1, keepdim=True), end.norm(dim=1, keepdim=True)
    start_direction = torch.where(start_length > 0, start / start_length, 0)
    end_direction = torch.where(end_length > 0, end / end_length, 0)
    cosine = (start_direction * end_direction).sum(dim=1, keepdim=True)
    angle = cosine.clamp(-1, 1).acos()
    direction = (((1 - ratio) * angle).sin() * start_direction + (ratio * angle).sin() * end_direction) / angle.sin()
    slerped = direction * ((1 - ratio) * start_length + ratio * end_length)
    straight = (1 - ratio) * start + ratio * end  # where the angle is undefined: equal or opposite directions
    slerped = torch.where(cosine > 1 - 1e-5, start, slerped)
    return torch.where(cosine < 1e-5 - 1, straight, slerped)
