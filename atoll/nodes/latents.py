"""Latents: making, changing, and crossing the VAE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, cast

from atoll.graph.node import OneOf, Range, Tooltip, node
from atoll.nodes.resize import CROPS, LATENT_METHODS, resize
from atoll.nodes.types import Image, LatentBatch, Latents, Mask, Vae

if TYPE_CHECKING:
    from torch import Tensor

MAX_SIDE = 16_384  # pixels, as ComfyUI's nodes have it
MAX_BATCH_PIXELS = 2**34  # of all pictures of a batch together: 4 GiB of latents
LATENT_CHANNELS = 4
VAE_STRIDE = 8  # pixels along a side that become one latent
MAX_SEED = 2**64 - 1

Place = Annotated[int, Range(0, MAX_SIDE, step=8)]


def _possible_size(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    sizes = [fields[name] for name in ("width", "height", "batch_size")]
    if all(isinstance(size, int) for size in sizes) and sizes[0] * sizes[1] * sizes[2] > MAX_BATCH_PIXELS:
        times = " x ".join(str(size) for size in sizes)
        sentence = f"{times} (width x height x batch_size) are more than {MAX_BATCH_PIXELS:,} pixels. Ask for less."
        yield "batch_size", sentence


@node("EmptyLatentImage", title="Empty Latent Image", category="latent", check=_possible_size)
def empty_latents(
    *,
    width: Annotated[
        int, Range(16, MAX_SIDE, step=8), Tooltip("Pixels; what is over a multiple of 8 is cut off.")
    ] = 512,
    height: Annotated[
        int, Range(16, MAX_SIDE, step=8), Tooltip("Pixels; what is over a multiple of 8 is cut off.")
    ] = 512,
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


@node("VAEDecodeTiled", title="VAE Decode (Tiled)", category="_for_testing")
def decode_latents_in_tiles(
    samples: Latents,
    vae: Vae,
    *,
    tile_size: Annotated[int, Range(64, 4096, step=32)] = 512,
    overlap: Annotated[int, Range(0, 4096, step=32)] = 64,
    temporal_size: Annotated[int, Range(8, 4096, step=4)] = 64,
    temporal_overlap: Annotated[int, Range(4, 4096, step=4)] = 8,
) -> Image:
    """Latents to a picture in tiles, for big pictures on small devices. The temporal fields are for video only."""
    overlap = tile_size // 4 if tile_size < overlap * 4 else overlap
    pictures = vae.decode_latents_tiled(samples["samples"], tile_size // VAE_STRIDE, overlap // VAE_STRIDE)
    return pictures.movedim(1, -1)


@node("VAEEncodeTiled", title="VAE Encode (Tiled)", category="_for_testing")
def encode_image_in_tiles(
    pixels: Image,
    vae: Vae,
    *,
    tile_size: Annotated[int, Range(64, 4096, step=64)] = 512,
    overlap: Annotated[int, Range(0, 4096, step=32)] = 64,
    temporal_size: Annotated[int, Range(8, 4096, step=4)] = 64,
    temporal_overlap: Annotated[int, Range(4, 4096, step=4)] = 8,
) -> Latents:
    """A picture to latents in tiles, for big pictures on small devices. The temporal fields are for video only."""
    # The narrowest of the three shapes of tiles is half as wide, and must get on at each step.
    overlap = min(overlap, tile_size // 4)
    return {"samples": vae.encode_image_tiled(pixels[..., :3].movedim(-1, 1), tile_size, overlap)}


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
        repeated["noise_mask"] = _mask_for_each(samples["noise_mask"], len(samples["samples"])).repeat(amount, 1, 1, 1)
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


@node("LatentUpscaleBy", title="Upscale Latent By", category="latent")
def upscale_latents_by(
    samples: Latents,
    *,
    upscale_method: Annotated[str, OneOf(LATENT_METHODS)],
    scale_by: Annotated[float, Range(0.01, 8.0, step=0.01)] = 1.5,
) -> Latents:
    """Latents to a multiple of their size."""
    height, width = (max(1, round(side * scale_by)) for side in samples["samples"].shape[-2:])
    return _changed(samples, resize(samples["samples"], width, height, upscale_method))


@node("LatentComposite", title="Latent Composite", category="latent")
def composite_latents(
    samples_to: Latents, samples_from: Latents, *, x: Place = 0, y: Place = 0, feather: Place = 0
) -> Latents:
    """Latents laid on others with their left upper corner at x, y; `feather` pixels fade over. All in pixels."""
    import torch  # not at the top: the server must not load it

    left, top, reach = x // VAE_STRIDE, y // VAE_STRIDE, feather // VAE_STRIDE
    result = samples_to["samples"].clone()
    height, width = result.shape[-2:]
    above = samples_from["samples"][..., : max(height - top, 0), : max(width - left, 0)].to(result)
    if above.numel() == 0:
        return _changed(samples_to, result)
    above_height, above_width = above.shape[-2:]
    mask = torch.ones_like(above)
    for step in range(reach):
        share = (step + 1) / reach
        if top != 0 and step < above_height:
            mask[:, :, step] *= share
        if top + above_height < height and step < above_height:
            mask[:, :, above_height - 1 - step] *= share
        if left != 0 and step < above_width:
            mask[..., step] *= share
        if left + above_width < width and step < above_width:
            mask[..., above_width - 1 - step] *= share
    below = result[..., top : top + above_height, left : left + above_width]
    below.copy_(above * mask + below * (1 - mask))
    return _changed(samples_to, result)


@node("LatentBlend", title="Latent Blend", category="_for_testing")
def blend_latents(
    samples1: Latents, samples2: Latents, *, blend_factor: Annotated[float, Range(0, 1, step=0.01)] = 0.5
) -> Latents:
    """Latents between two: `blend_factor` of the first and the rest of the second."""
    first = samples1["samples"]
    second = samples2["samples"]
    if first.shape != second.shape:
        second = resize(second, first.shape[-1], first.shape[-2], "bicubic", "center")
    return _changed(samples1, first * blend_factor + second.to(first) * (1 - blend_factor))


@node("LatentRotate", title="Rotate Latent", category="latent/transform")
def rotate_latents(
    samples: Latents, *, rotation: Annotated[str, OneOf(("none", "90 degrees", "180 degrees", "270 degrees"))]
) -> Latents:
    """Latents turned clockwise. What the VAE makes of turned latents is not quite the turned picture."""
    turns = 0 if rotation == "none" else int(rotation.split()[0]) // 90
    return _changed(samples, samples["samples"].rot90(turns, dims=(3, 2)))


@node("LatentFlip", title="Flip Latent", category="latent/transform")
def flip_latents(
    samples: Latents, *, flip_method: Annotated[str, OneOf(("x-axis: vertically", "y-axis: horizontally"))]
) -> Latents:
    """Latents mirrored."""
    return _changed(samples, samples["samples"].flip(2 if flip_method.startswith("x") else 3))


@node("LatentCrop", title="Crop Latent", category="latent/transform")
def crop_latents(
    samples: Latents,
    *,
    width: Annotated[int, Range(64, MAX_SIDE, step=8)] = 512,
    height: Annotated[int, Range(64, MAX_SIDE, step=8)] = 512,
    x: Place = 0,
    y: Place = 0,
) -> Latents:
    """A rectangle cut out of latents, given in pixels; at least 64 x 64 are left."""
    latents = samples["samples"]
    left = max(0, min(x // VAE_STRIDE, latents.shape[3] - 8))
    top = max(0, min(y // VAE_STRIDE, latents.shape[2] - 8))
    return _changed(samples, latents[..., top : top + height // VAE_STRIDE, left : left + width // VAE_STRIDE])


@node("LatentFromBatch", title="Latent From Batch", category="latent/batch")
def take_from_batch(
    samples: Latents,
    *,
    batch_index: Annotated[int, Range(0, 63)] = 0,
    length: Annotated[int, Range(1, 64)] = 1,
) -> Latents:
    """Some latents of a batch. Each keeps the noise that it would get in the whole batch."""
    latents = samples["samples"]
    first = min(batch_index, len(latents) - 1)
    last = min(first + length, len(latents))
    taken = _changed(samples, latents[first:last].clone())
    if len(samples.get("noise_mask", ())) > 1:
        taken["noise_mask"] = _mask_for_each(samples["noise_mask"], len(latents))[first:last].clone()
    taken["batch_index"] = samples.get("batch_index", list(range(len(latents))))[first:last]
    return taken


@node("LatentBatch", title="Batch Latents", untitled=True, schema="v3", category="latent/batch")
def batch_latents(samples1: Latents, samples2: Latents) -> Latents:
    """Latents as one batch; the second's are brought to the first's size and cut to its aspect."""
    import torch  # not at the top: the server must not load it

    first, second = samples1["samples"], samples2["samples"]
    if first.shape[1:] != second.shape[1:]:
        second = resize(second, first.shape[-1], first.shape[-2], "bilinear", "center")
    batch = _changed(samples1, torch.cat([first, second.to(first)]))
    indices = [latents.get("batch_index", list(range(len(latents["samples"])))) for latents in (samples1, samples2)]
    batch["batch_index"] = [*indices[0], *indices[1]]
    return batch


@node(
    "RebatchLatents", title="Rebatch Latents", schema="v3", category="latent/batch", takes_lists=True, gives_lists=True
)
def rebatch_latents(latents: Latents, *, batch_size: Annotated[int, Range(1, 4096)] = 1) -> Latents:
    """Latents as a list of batches of that size; later nodes take one batch after the other."""
    sizes, batches = cast(list[int], batch_size), cast(list[LatentBatch], latents)  # as it takes lists
    groups: list[list[LatentBatch]] = []
    for batch in batches:
        for index in range(len(batch["samples"])):
            one = take_from_batch(batch, batch_index=index, length=1)
            if groups and len(groups[-1]) < sizes[0] and _shape_of(groups[-1][0]) == _shape_of(one):
                groups[-1].append(one)
            else:
                groups.append([one])
    return cast(LatentBatch, [_joined(group) for group in groups])


def _shape_of(latents: LatentBatch) -> tuple[Any, Any]:
    return latents["samples"].shape, latents["noise_mask"].shape if "noise_mask" in latents else None


def _joined(group: list[LatentBatch]) -> LatentBatch:
    import torch  # not at the top: the server must not load it

    joined = _changed(group[0], torch.cat([one["samples"] for one in group]))
    if "noise_mask" in joined:
        joined["noise_mask"] = torch.cat([one["noise_mask"] for one in group])
    joined["batch_index"] = [index for one in group for index in one["batch_index"]]
    return joined


def _changed(latents: LatentBatch, samples: Tensor) -> LatentBatch:
    changed = latents.copy()
    changed["samples"] = samples
    return changed


def _mask_for_each(mask: Tensor, batch: int) -> Tensor:
    """A mask for each of a batch, cycling through those that are there."""
    return mask if len(mask) >= batch else mask.repeat(-(-batch // len(mask)), 1, 1, 1)[:batch]


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
