"""Latents: making, changing, and crossing the VAE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from atoll.graph.node import OneOf, Range, Tooltip, node
from atoll.nodes.resize import CROPS, LATENT_METHODS, resize
from atoll.nodes.types import Image, Latents, Mask, Vae

if TYPE_CHECKING:
    from torch import Tensor

MAX_SIDE = 16_384  # pixels, as ComfyUI's nodes have it
MAX_BATCH_PIXELS = MAX_SIDE**2  # of all pictures of a batch together
LATENT_CHANNELS = 4
VAE_STRIDE = 8  # pixels along a side that become one latent
MAX_SEED = 2**64 - 1


def _possible_size(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    sizes = [fields[name] for name in ("width", "height", "batch_size")]
    if all(isinstance(size, int) for size in sizes) and sizes[0] * sizes[1] * sizes[2] > MAX_BATCH_PIXELS:
        times = " x ".join(str(size) for size in sizes)
        sentence = f"{times} (width x height x batch_size) are more than {MAX_BATCH_PIXELS:,} pixels. Ask for less."
        yield "batch_size", sentence


@node("EmptyLatentImage", title="Empty Latent Image", category="latent", check=_possible_size)
def empty_latents(
    *,
    width: Annotated[int, Range(16, MAX_SIDE, step=8), Tooltip("Pixels; what is over a multiple of 8 is cut off.")] = 512,
    height: Annotated[int, Range(16, MAX_SIDE, step=8), Tooltip("Pixels; what is over a multiple of 8 is cut off.")] = 512,
    batch_size: Annotated[int, Range(1, 4096), Tooltip("How many pictures.")] = 1,
) -> Latents:
    """Latents that say nothing, to draw upon."""
    import torch  # not at the top: the server must not load it

    return {"samples": torch.zeros(batch_size, LATENT_CHANNELS, height // VAE_STRIDE, width // VAE_STRIDE)}


@node("AtollImageNoise", title="A Seed for Each Image", category="latent")
def give_images_their_own_noise(
    samples: Latents,
    *,
    subseed: Annotated[int, Range(0, MAX_SEED, control_after_generate=True), Tooltip("The seed to turn towards.")] = 0,
    subseed_strength: Annotated[float, Range(0.0, 1.0, step=0.01), Tooltip("0: the seed alone; 1: the subseed.")] = 0.0,
    resize_from_width: Annotated[int, Range(0, MAX_SIDE, step=8), Tooltip("Pixels; 0 is no other size.")] = 0,
    resize_from_height: Annotated[int, Range(0, MAX_SIDE, step=8), Tooltip("Pixels; 0 is no other size.")] = 0,
) -> Latents:
    """Let a sampler draw noise as A1111 does: picture i of a batch gets seed + i, or seed and subseed + i.

    With the size of another picture, the noise that the seed would draw there lies in the middle of this one's.
    """
    from atoll.diffusion.noise import Variation  # loads torch, which the server must not

    resized = resize_from_width >= VAE_STRIDE and resize_from_height >= VAE_STRIDE
    size = (resize_from_height // VAE_STRIDE, resize_from_width // VAE_STRIDE) if resized else None
    changed = samples.copy()
    changed["variation"] = Variation(subseed, subseed_strength, size)
    return changed


@node("VAEDecode", title="VAE Decode", category="latent")
def decode_latents(
    samples: Annotated[Latents, Tooltip("The latents.")], vae: Annotated[Vae, Tooltip("The VAE they belong to.")]
) -> Image:
    """Latents to a picture."""
    return vae.decode_latents(samples["samples"]).movedim(1, -1)


@node("VAEEncode", title="VAE Encode", category="latent")
def encode_image(pixels: Image, vae: Vae) -> Latents:
    """A picture to latents. What is over a multiple of 8 pixels is cut off evenly."""
    return {"samples": encode_pixels(vae, pixels)}


@node("SetLatentNoiseMask", title="Set Latent Noise Mask", category="latent/inpaint")
def set_noise_mask(samples: Latents, mask: Mask) -> Latents:
    """Let the sampler change only what the mask marks."""
    masked = samples.copy()
    masked["noise_mask"] = mask.reshape(-1, 1, *mask.shape[-2:])
    return masked


@node("RepeatLatentBatch", title="Repeat Latent Batch", category="latent/batch")
def repeat_latents(samples: Latents, *, amount: Annotated[int, Range(1, 64)] = 1) -> Latents:
    """The same latents several times, each to get noise of its own."""
    repeated = samples.copy()
    repeated["samples"] = samples["samples"].repeat(amount, 1, 1, 1)
    if len(samples.get("noise_mask", ())) > 1:
        repeated["noise_mask"] = samples["noise_mask"].repeat(amount, 1, 1, 1)
    if "batch_index" in samples:
        index = samples["batch_index"]
        span = max(index) - min(index) + 1
        repeated["batch_index"] = [place + round * span for round in range(amount) for place in index]
    return repeated


@node("LatentUpscale", title="Upscale Latent", category="latent")
def upscale_latents(
    samples: Latents,
    *,
    upscale_method: Annotated[str, OneOf(LATENT_METHODS)],
    width: Annotated[int, Range(0, MAX_SIDE, step=8)] = 512,
    height: Annotated[int, Range(0, MAX_SIDE, step=8)] = 512,
    crop: Annotated[str, OneOf(CROPS)],
) -> Latents:
    """Latents to another size, given in pixels of the picture. 0 keeps the aspect; 0 twice changes nothing."""
    if width == 0 and height == 0:
        return samples
    latents = samples["samples"]
    old_height, old_width = latents.shape[-2:]
    smallest = 8 * VAE_STRIDE  # pixels; networks of this kind halve the latents three times
    if width == 0:
        width = round(old_width * max(smallest, height) / old_height)
    elif height == 0:
        height = round(old_height * max(smallest, width) / old_width)
    width, height = max(smallest, width), max(smallest, height)
    scaled = samples.copy()
    scaled["samples"] = resize(latents, width // VAE_STRIDE, height // VAE_STRIDE, upscale_method, crop)
    return scaled


def cut_to_stride(pixels: Tensor, height_dim: int = 1) -> Tensor:
    """Cut evenly what is over a multiple of 8 in height and width; `height_dim` is the first of the two."""
    for dim in (height_dim, height_dim + 1):
        size = pixels.shape[dim]
        kept = size // VAE_STRIDE * VAE_STRIDE
        pixels = pixels.narrow(dim, size % VAE_STRIDE // 2, kept)
    return pixels


def encode_pixels(vae: Vae, pixels: Tensor) -> Tensor:
    """(batch, height, width, 3 or more channels) to latents; opacity is left out."""
    return vae.encode_image(pixels[..., :3].movedim(-1, 1))
