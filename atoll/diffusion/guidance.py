"""From a network and what it is told to a denoiser: (latents, sigma) -> clean latents."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from atoll.diffusion.conditioning import Conditioning
from atoll.diffusion.denoiser import Denoiser
from atoll.diffusion.model import Model
from atoll.errors import InvalidRequest, NotANumber

# Prompts of unlike length share one call of the network if that repeats none of them more often than this.
MAX_REPEATS = 4
PIXELS_PER_LATENT = 8
# Latents (scaled) of an evenly grey picture in the first Stable Diffusion's VAE: what an inpainting network is shown
# where there is no picture.
GREY_LATENTS = (0.8223, -0.6876, 0.6364, 0.1380)


@dataclass(frozen=True)
class InpaintStart:
    """What an inpainting network is shown when the conditioning itself does not say.

    mask: (1 or batch, 1, height, width) at any size, 1 = change. latents: unscaled.
    """

    mask: Tensor
    latents: Tensor


def build_denoiser(
    model: Model,
    positive: Sequence[Conditioning],
    negative: Sequence[Conditioning],
    guidance_scale: float,
    *,
    timestep_of: Callable[[Tensor], Tensor] | None = None,
    inpaint_start: InpaintStart | None = None,
) -> Denoiser:
    """Bind network, prompts and guidance.

    The network runs in the model's precision, everything around it in float32. With guidance_scale 1 the negative
    says nothing and is not run. Positive and negative share a call of the network where their lengths allow it.

    Args:
        positive, negative: each a mix of one or more; weighed by their strengths.
        timestep_of: sigma -> what the network is told; the nearest trained timestep unless given.

    Raises: InvalidRequest, if the conditioning does not fit the network. The denoiser raises NotANumber, if the
        network answers nonsense, as some do in fp16.

    Source: Ho & Salimans 2022, arXiv:2207.12598, equation 6.
    """
    check_guidance_scale(guidance_scale)
    if not positive:
        raise InvalidRequest("There is no positive prompt to sample from; encode one, an empty text will do.")
    guided = not math.isclose(guidance_scale, 1.0) and len(negative) > 0
    told = [*positive, *(negative if guided else ())]
    for conditioning in told:
        check_conditioning(model, conditioning)
    weights = [*shares(positive, guidance_scale if guided else 1.0)]
    if guided:
        weights += shares(negative, 1.0 - guidance_scale)
    timestep_of = timestep_of or model.noise_schedule.nearest_timestep
    calls = [build_call(model, told, members, inpaint_start) for members in plan_calls(told)]
    predicts_v = model.noise_schedule.prediction_type == "v_prediction"

    def denoise(latents: Tensor, sigma: Tensor) -> Tensor:
        scale = (1.0 + sigma**2).sqrt()
        seen = (latents / scale).to(model.dtype)
        timestep = timestep_of(sigma).to(model.device)
        prediction = torch.zeros_like(latents)
        for call in calls:
            for member, output in call(seen, timestep).items():
                prediction = prediction + weights[member] * output.float()
        kept, taken = (1 / scale**2, sigma / scale) if predicts_v else (1.0, sigma)
        denoised = latents * kept - prediction * taken
        # Waits for the device in every step; that also keeps progress honest and lets a job be stopped within a step.
        if not torch.isfinite(denoised).all():
            raise NotANumber(
                f"The network answered with numbers that are none (NaN) at sigma {float(sigma):.4g}, in "
                f"{str(model.dtype).removeprefix('torch.')}. Run it in a wider precision (bf16 or fp32), "
                "or check that the checkpoint is undamaged and the guidance_scale not huge."
            )
        return denoised

    return denoise


def check_guidance_scale(guidance_scale: float) -> None:
    """Raises: InvalidRequest for what is no number."""
    if not math.isfinite(guidance_scale):
        raise InvalidRequest(f"guidance_scale is {guidance_scale}; it must be a number, usually 1 to 12.")


def shares(conditionings: Sequence[Conditioning], total: float) -> list[float]:
    """Parts of `total` in proportion to the strengths; the same for all where no strength is left."""
    strengths = [conditioning.strength for conditioning in conditionings]
    if sum(strengths) == 0:
        strengths = [1.0] * len(strengths)
    return [total * strength / sum(strengths) for strength in strengths]


def check_conditioning(model: Model, conditioning: Conditioning) -> None:
    wanted = model.unet.config.cross_attention_dim
    width = conditioning.embeds.shape[-1]
    if isinstance(wanted, int) and width != wanted:
        raise InvalidRequest(
            f"The prompt was encoded to vectors of {width} numbers, but {model.name or 'the model'} wants {wanted}. "
            "Encode it with the text encoder of the same family of models."
        )
    if wants_picture_size(model) and conditioning.pooled is None:
        raise InvalidRequest(
            f"{model.name or 'The model'} is of the SDXL family and wants a pooled prompt vector, which this text "
            "encoder does not give. Encode the prompt with SDXL's two text encoders."
        )


def wants_picture_size(model: Model) -> bool:
    return getattr(model.unet.config, "addition_embed_type", None) == "text_time"


def plan_calls(told: Sequence[Conditioning]) -> list[list[int]]:
    """Which prompts run together in one call of the network: those that one length can be repeated to."""
    plan: list[list[int]] = []
    for index, conditioning in enumerate(told):
        for members in plan:
            lengths = [told[member].embeds.shape[1] for member in members] + [conditioning.embeds.shape[1]]
            if math.lcm(*lengths) <= MAX_REPEATS * min(lengths):
                members.append(index)
                break
        else:
            plan.append([index])
    return plan


def build_call(
    model: Model, told: Sequence[Conditioning], members: list[int], inpaint_start: InpaintStart | None
) -> Callable[[Tensor, Tensor], dict[int, Tensor]]:
    """One call of the network for several prompts at once: (scaled latents, timestep) -> its answer to each."""
    length = math.lcm(*(told[member].embeds.shape[1] for member in members))
    # Attention over keys repeated n times is attention over the keys: softmax divides the n out.
    embeds = [
        told[member].embeds.repeat(1, length // told[member].embeds.shape[1], 1).to(model.device, model.dtype)
        for member in members
    ]

    def call(seen: Tensor, timestep: Tensor) -> dict[int, Tensor]:
        batch = len(seen)
        inputs = seen
        if model.is_inpainting:
            shown = [what_inpainting_sees(model, told[member], inpaint_start, seen) for member in members]
            inputs = torch.cat([torch.cat([seen, extra], dim=1) for extra in shown])
        else:
            inputs = seen.repeat(len(members), 1, 1, 1)
        added = None
        if wants_picture_size(model):
            height, width = (side * PIXELS_PER_LATENT for side in seen.shape[-2:])
            sizes = torch.tensor([[height, width, 0, 0, height, width]], device=model.device, dtype=model.dtype)
            pooled = [told[member].pooled for member in members]
            added = {
                "text_embeds": torch.cat(
                    [to_batch(each.to(model.device, model.dtype), batch) for each in pooled if each is not None]
                ),
                "time_ids": sizes.repeat(batch * len(members), 1),
            }
        output = model.unet(
            inputs,
            timestep.expand(batch * len(members)),
            encoder_hidden_states=torch.cat([to_batch(each, batch) for each in embeds]),
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return dict(zip(members, output.chunk(len(members)), strict=True))

    return call


def what_inpainting_sees(model: Model, conditioning: Conditioning, start: InpaintStart | None, seen: Tensor) -> Tensor:
    """(batch, 1 + channels, height, width): the mask, and the scaled latents of the picture without its masked part."""
    mask, latents = conditioning.inpaint_mask, conditioning.masked_latents
    if mask is None and start is not None:
        mask = start.mask
    if latents is None and start is not None:
        latents = start.latents
    if mask is None:
        mask = torch.ones_like(seen[:, :1])
    if latents is None:
        shown = seen.new_tensor(GREY_LATENTS[: model.latent_channels]).view(1, -1, 1, 1).expand_as(seen)
    else:
        shown = fit_size(latents.to(seen.device) * model.scaling_factor, seen)
    mask = fit_size(mask.to(seen.device).float(), seen).round()
    return torch.cat([to_batch(mask, len(seen)), to_batch(shown, len(seen))], dim=1).to(seen.dtype)


def fit_size(tensor: Tensor, like: Tensor) -> Tensor:
    if tensor.shape[-2:] == like.shape[-2:]:
        return tensor
    return functional.interpolate(tensor, size=like.shape[-2:], mode="bilinear")


def to_batch(tensor: Tensor, batch: int) -> Tensor:
    """As many as the batch has: one for all of them, or repeated from the first again."""
    if len(tensor) == batch:
        return tensor
    return tensor.repeat(-(-batch // len(tensor)), *([1] * (tensor.ndim - 1)))[:batch]
