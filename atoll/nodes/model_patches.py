"""Models asked in another way: the weights stay as they are, and shared with the original.

None of these is cached: what they give holds the model's weights, which the shelf of models counts already.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from atoll.graph.node import OneOf, Range, node
from atoll.nodes.resize import resize
from atoll.nodes.types import Clip, Conditionings, Model

PREDICTIONS = ("eps", "v_prediction", "lcm", "x0", "img_to_img")
SHRINK_METHODS = ("bicubic", "nearest-exact", "bilinear", "area", "bislerp")
CONSISTENCY_SIGMAS = 50  # noise levels that a consistency network was distilled to

Factor = Annotated[float, Range(0.0, 10.0, step=0.01)]
Share = Annotated[float, Range(0.0, 1.0, step=0.001)]


@node("ModelSamplingDiscrete", title="ModelSamplingDiscrete", category="advanced/model", cached=False)
def set_prediction(model: Model, *, sampling: Annotated[str, OneOf(PREDICTIONS)], zsnr: bool = False) -> Model:
    """What the network answers, where its file does not say: the noise, v, a consistency model's noise, or the picture.

    With `zsnr` the noise levels are stretched so that nothing of the picture is left at the last one.
    """
    schedule = model.noise_schedule
    if sampling == "lcm":
        schedule = replace(schedule, prediction_type="lcm").every_nth(CONSISTENCY_SIGMAS)
    elif sampling == "v_prediction":
        schedule = replace(schedule, prediction_type="v_prediction")
    elif sampling == "x0":
        schedule = replace(schedule, prediction_type="x0")
    elif sampling == "img_to_img":
        schedule = replace(schedule, prediction_type="img_to_img")
    else:
        schedule = replace(schedule, prediction_type="epsilon")
    return replace(model, noise_schedule=schedule.with_zero_terminal_snr() if zsnr else schedule)


@node("RescaleCFG", title="RescaleCFG", category="advanced/model", cached=False)
def rescale_guidance(model: Model, *, multiplier: Annotated[float, Range(0.0, 1.0, step=0.01)] = 0.7) -> Model:
    """Guidance whose result keeps the spread of the positive answer, so that strong guidance burns nothing out."""
    from atoll.diffusion.guides import rescaled_guidance  # loads torch, which the server must not

    return replace(model, guide=rescaled_guidance(multiplier))


@node(
    "PerpNeg",
    title="Perp-Neg (DEPRECATED by PerpNegGuider)",
    schema="v3",
    category="_for_testing",
    cached=False,
    deprecated=True,
    experimental=True,
)
def keep_out_what_is_not_wanted(
    model: Model, empty_conditioning: Conditionings, *, neg_scale: Annotated[float, Range(0.0, 100.0, step=0.01)] = 1.0
) -> Model:
    """Of the negative prompt only that is kept out which the positive one does not want."""
    from atoll.diffusion.guides import perpendicular_guidance  # loads torch, which the server must not

    return replace(model, guide=perpendicular_guidance(empty_conditioning, neg_scale))


@node(
    "SelfAttentionGuidance",
    title="Self-Attention Guidance",
    schema="v3",
    category="_for_testing",
    cached=False,
    experimental=True,
)
def guide_by_attention(
    model: Model,
    *,
    scale: Annotated[float, Range(-2.0, 5.0, step=0.01)] = 0.5,
    blur_sigma: Annotated[float, Range(0.0, 10.0, step=0.1)] = 2.0,
) -> Model:
    """Away from a picture that is blurred where the network looks most: sharper, and one call more in each step."""
    from atoll.diffusion.unet_patches import SelfAttentionGuidance  # loads torch, which the server must not

    return replace(model, corrections=(*model.corrections, SelfAttentionGuidance(scale, blur_sigma)))


@node("FreeU", title="FreeU", category="model_patches/unet", cached=False)
def free_u(model: Model, *, b1: Factor = 1.1, b2: Factor = 1.2, s1: Factor = 0.9, s2: Factor = 0.2) -> Model:
    """Louder inner features (b) and quieter skip connections (s) in the two widest stages."""
    from atoll.diffusion.unet_patches import FreeU  # loads torch, which the server must not

    return replace(model, patches=(*model.patches, FreeU((b1, b2), (s1, s2))))


@node("FreeU_V2", title="FreeU_V2", category="model_patches/unet", cached=False)
def free_u_by_structure(
    model: Model, *, b1: Factor = 1.3, b2: Factor = 1.4, s1: Factor = 0.9, s2: Factor = 0.2
) -> Model:
    """As FreeU, but features are made louder only where the picture has structure."""
    from atoll.diffusion.unet_patches import FreeU  # loads torch, which the server must not

    return replace(model, patches=(*model.patches, FreeU((b1, b2), (s1, s2), by_structure=True)))


@node("HyperTile", title="HyperTile", untitled=True, schema="v3", category="model_patches/unet", cached=False)
def attend_in_tiles(
    model: Model,
    *,
    tile_size: Annotated[int, Range(1, 2048)] = 256,
    swap_size: Annotated[int, Range(1, 128)] = 2,
    max_depth: Annotated[int, Range(0, 10)] = 0,
    scale_depth: bool = False,
) -> Model:
    """Self-attention within tiles of the picture: big pictures take less time and memory."""
    from atoll.diffusion.unet_patches import HyperTile  # loads torch, which the server must not

    tile = max(32, tile_size) // 8
    return replace(model, patches=(*model.patches, HyperTile(tile, swap_size, max_depth, scale_depth)))


@node("TomePatchModel", title="Merge Tokens", untitled=True, schema="v3", category="model_patches/unet", cached=False)
def merge_tokens(model: Model, *, ratio: Annotated[float, Range(0.0, 1.0, step=0.01)] = 0.3) -> Model:
    """Self-attention asks for like parts of the picture only once: faster, a little less exact."""
    from atoll.diffusion.unet_patches import TokenMerging  # loads torch, which the server must not

    return replace(model, patches=(*model.patches, TokenMerging(ratio)))


@node(
    "PatchModelAddDownscale",
    title="PatchModelAddDownscale (Kohya Deep Shrink)",
    schema="v3",
    category="model_patches/unet",
    cached=False,
)
def shrink_inside(
    model: Model,
    *,
    block_number: Annotated[int, Range(1, 32, step=1)] = 3,
    downscale_factor: Annotated[float, Range(0.1, 9.0, step=0.001)] = 2.0,
    start_percent: Share = 0.0,
    end_percent: Share = 0.35,
    downscale_after_skip: bool = True,
    downscale_method: Annotated[str, OneOf(SHRINK_METHODS)],
    upscale_method: Annotated[str, OneOf(SHRINK_METHODS)],
) -> Model:
    """The picture is smaller inside the network at first, so that big pictures get one composition, not several."""
    from atoll.diffusion.unet_patches import DeepShrink  # loads torch, which the server must not

    schedule = model.noise_schedule
    shrink = DeepShrink(
        block_number,
        downscale_factor,
        schedule.sigma_at_percent(start_percent),
        schedule.sigma_at_percent(end_percent),
        downscale_after_skip,
        downscale_method,
        upscale_method,
        resize,
    )
    return replace(model, patches=(*model.patches, shrink))


@node("ModelMergeSimple", title="ModelMergeSimple", category="advanced/model_merging", cached=False)
def merge_models(model1: Model, model2: Model, *, ratio: Annotated[float, Range(0.0, 1.0, step=0.01)] = 1.0) -> Model:
    """A network between two of one family: `ratio` of the first and the rest of the second."""
    from atoll.diffusion.merging import merge_networks  # loads torch, which the server must not

    return replace(model1, unet=merge_networks(model1.unet, model2.unet, ratio), name="")


@node("CLIPMergeSimple", title="CLIPMergeSimple", category="advanced/model_merging", cached=False)
def merge_clips(clip1: Clip, clip2: Clip, *, ratio: Annotated[float, Range(0.0, 1.0, step=0.01)] = 1.0) -> Clip:
    """A text encoder between two of one family: `ratio` of the first and the rest of the second."""
    from atoll.diffusion.merging import merge_text_encoders  # loads torch, which the server must not

    return merge_text_encoders(clip1, clip2, ratio)
