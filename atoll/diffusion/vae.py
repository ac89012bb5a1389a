"""Between pixels and latents: the variational autoencoder, on its device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from atoll.diffusion.tiling import run_tiled
from atoll.errors import InvalidRequest, NotANumber

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

Image = Tensor
Latents = Tensor


@dataclass(frozen=True)
class Vae:
    """An AutoencoderKL. Its latents are unscaled: what a U-Net sees is these times `Model.scaling_factor`."""

    network: AutoencoderKL
    name: str = ""

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def dtype(self) -> torch.dtype:
        return self.network.dtype

    @property
    def latent_channels(self) -> int:
        return int(self.network.config.latent_channels)

    @property
    def downscale_ratio(self) -> int:
        """Pixels along one edge of a latent: 8 for Stable Diffusion."""
        return int(2 ** (len(self.network.config.block_out_channels) - 1))

    def encode_image(self, image: Image) -> Latents:
        """Pixels to latents, always the same ones: the mean of the distribution that the encoder answers.

        diffusers' pipelines and ComfyUI draw a sample from it, which for Stable Diffusion's VAEs is hardly another.

        Args:
            image: (batch, 3, height, width) in [0, 1]. Edges that are no multiple of `downscale_ratio` lose what is
                over, half of it on either side.
        Returns: (batch, channels, height/8, width/8) float32 on the CPU, unscaled.
        Raises: InvalidRequest for another shape, or an image smaller than one latent.
        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise InvalidRequest(
                f"An image of shape {list(image.shape)} cannot be encoded; (batch, 3, height, width) can."
            )
        image = crop_to_multiple(image, self.downscale_ratio)
        return _checked(torch.cat([self._encode(one) for one in image.split(1)]), "set of latents")

    def encode_image_tiled(self, image: Image, tile: int, overlap: int) -> Latents:
        """As `encode_image`, in tiles that overlap, so that a big picture needs no more memory than a tile.

        tile, overlap: pixels. Tiles of three shapes are averaged, since each shape's seams lie elsewhere.
        """
        image = crop_to_multiple(image, self.downscale_ratio)
        ratio = self.downscale_ratio
        shapes = ((tile, tile), (tile // 2, tile * 2), (tile * 2, tile // 2))
        total = sum(run_tiled(self._encode, image, shape, overlap, 1 / ratio) for shape in shapes)
        return _checked(torch.as_tensor(total) / len(shapes), "set of latents")

    def _encode(self, image: Image) -> Latents:
        with torch.no_grad():
            pixels = image.to(self.device, self.dtype) * 2.0 - 1.0
            return self.network.encode(pixels).latent_dist.mode().float().cpu()

    def decode_latents(self, latents: Latents) -> Image:
        """Latents to pixels, one picture of the batch after the other, since a decode takes the most memory of all.

        Args:
            latents: (batch, channels, height/8, width/8), unscaled.
        Returns: (batch, 3, height, width) float32 on the CPU, in [0, 1].
        Raises: InvalidRequest for another shape; NotANumber where the picture is none.
        """
        self._check_latents(latents)
        images = torch.cat([self._decode(one) for one in latents.split(1)])
        return (_checked(images, "picture") / 2.0 + 0.5).clamp(0.0, 1.0)

    def decode_latents_tiled(self, latents: Latents, tile: int, overlap: int) -> Image:
        """As `decode_latents`, in tiles that overlap. tile, overlap: latents. Tiles of three shapes are averaged."""
        self._check_latents(latents)
        shapes = ((tile * 2, tile // 2), (tile // 2, tile * 2), (tile, tile))
        total = sum(run_tiled(self._decode, latents, shape, overlap, self.downscale_ratio) for shape in shapes)
        images = _checked(torch.as_tensor(total) / len(shapes), "picture")
        return (images / 2.0 + 0.5).clamp(0.0, 1.0)

    def _decode(self, latents: Latents) -> Image:
        with torch.no_grad():
            return self.network.decode(latents.to(self.device, self.dtype)).sample.float().cpu()

    def _check_latents(self, latents: Latents) -> None:
        if latents.ndim != 4 or latents.shape[1] != self.latent_channels:
            raise InvalidRequest(
                f"Latents of shape {list(latents.shape)} do not fit this VAE of {self.latent_channels} channels. "
                "Use the VAE of the checkpoint that made them."
            )


def crop_to_multiple(image: Image, multiple: int) -> Image:
    """Cut height and width, the last two dimensions, down to multiples, half of the rest on either side.

    Raises: InvalidRequest if nothing would be left.
    """
    height, width = image.shape[-2:]
    kept_height, kept_width = height // multiple * multiple, width // multiple * multiple
    if not kept_height or not kept_width:
        raise InvalidRequest(f"A picture of {width}x{height} is too small; the least is {multiple}x{multiple}.")
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    return image[..., top : top + kept_height, left : left + kept_width]


def _checked(result: Tensor, what: str) -> Tensor:
    result = result.float().cpu()
    if not bool(result.isfinite().all()):
        raise NotANumber(
            f"The VAE answered a {what} that is not made of numbers (NaN or infinite). With fp16 this happens where it "
            "overflows: choose precision fp32 or bf16. Otherwise the latents were not finite: lower guidance_scale."
        )
    return result
