"""All nodes of Atoll. Loading this loads no torch."""

from __future__ import annotations

from atoll.graph.node import Registry
from atoll.nodes import conditioning, images, inpaint, latents, loaders, sampling

_REGISTRY = Registry.of(
    loaders.load_checkpoint,
    loaders.load_vae,
    loaders.load_clip,
    loaders.load_unet,
    conditioning.encode_text,
    conditioning.encode_a1111_text,
    conditioning.set_last_clip_layer,
    latents.empty_latents,
    latents.give_images_their_own_noise,
    sampling.sample,
    sampling.sample_some_steps,
    latents.decode_latents,
    latents.encode_image,
    inpaint.encode_for_inpainting,
    inpaint.condition_on_masked_picture,
    latents.set_noise_mask,
    latents.upscale_latents,
    latents.repeat_latents,
    images.load_image,
    images.load_mask,
    images.save_images,
    images.preview_images,
    images.scale_image,
    images.scale_image_by,
    images.invert_image,
    images.mask_to_image,
    images.image_to_mask,
    images.pad_for_outpainting,
    inpaint.blur_mask,
    inpaint.crop_to_mask,
    inpaint.paste_back,
)


def core_registry() -> Registry:
    """Every node that Atoll brings along."""
    return _REGISTRY
