"""PNDM and LMS as diffusers' pipelines run them on an image: with its step numbers counted from the whole list.

For a picture from nothing they are the plain samplers. For img2img and inpainting diffusers enters the list of a whole
picture at `first_step`, and two of its schedulers then do what their papers do not say: PNDM's list holds the second
timestep twice, so its warm-up repeats the wrong one and a step is skipped; LMS takes the weights of an order that it
has no slopes for yet. Whoever wants diffusers' picture wants that too, so it is repeated here, and only here.
"""

from __future__ import annotations

from torch import Tensor

from atoll.diffusion.denoiser import Denoiser, OnStep, ignore_step
from atoll.diffusion.samplers_multistep import ADAMS_BASHFORTH, linear_multistep_weights, weighted_sum
from atoll.diffusion.samplers_singlestep import slope_of


def pndm_calls(steps: int) -> list[int]:
    """Which step each call of the network belongs to: the second one twice."""
    return [0, *range(1, min(steps, 2)), *range(1, steps)]


def relabel(latents: Tensor, sigma: Tensor, sigma_taken: Tensor) -> Tensor:
    """Take the variance-preserving value that latents have at sigma for one at sigma_taken."""
    return latents * ((1 + sigma_taken**2) / (1 + sigma**2)).sqrt()


def sample_pndm_as_diffusers(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, on_step: OnStep = ignore_step, *, first_step: int = 0
) -> Tensor:
    """`sample_pndm` entered at the call number first_step.

    Args:
        latents: at sigmas[pndm_calls(steps)[first_step]].
        sigmas: of the whole picture; the other arguments as in `samplers_singlestep.py`.

    Returns: latents at sigmas[-1].
    Source: diffusers' PNDMScheduler with skip_prk_steps.
    """
    calls = pndm_calls(len(sigmas) - 1)[first_step:]
    reached = sigmas[calls[0]]
    start, sigma_start = latents, reached
    slopes: list[Tensor] = []  # newest first
    for count, step in enumerate(calls):
        sigma = sigmas[step]
        latents = relabel(latents, reached, sigma)
        denoised = denoise(latents, sigma)
        on_step(count, denoised)
        slope = slope_of(latents, sigma, denoised)
        if count == 1:
            slope = (slope + slopes[0]) / 2
            leaves, reached = sigmas[step - 1], sigma
            latents = relabel(start, sigma_start, leaves)
        else:
            slopes = [slope, *slopes][:4]
            slope = weighted_sum(ADAMS_BASHFORTH[len(slopes) - 1], slopes)
            leaves, reached = sigma, sigmas[step + 1]
        latents = latents + slope * (reached - leaves)
    return relabel(latents, reached, sigmas[-1])


def sample_lms_as_diffusers(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, on_step: OnStep = ignore_step, *, first_step: int = 0
) -> Tensor:
    """`sample_lms` entered at first_step, with the weights of the order that the step's number allows.

    Args:
        latents: at sigmas[first_step].
        sigmas: of the whole picture; the other arguments as in `samplers_singlestep.py`.

    Source: diffusers' LMSDiscreteScheduler.
    """
    levels = [float(sigma) for sigma in sigmas]
    slopes: list[Tensor] = []  # newest first
    for step in range(first_step, len(sigmas) - 1):
        denoised = denoise(latents, sigmas[step])
        on_step(step - first_step, denoised)
        slopes = [slope_of(latents, sigmas[step], denoised), *slopes][:4]
        nodes = [levels[step - back] for back in range(min(step + 1, 4))]
        latents = latents + weighted_sum(linear_multistep_weights(nodes, levels[step], levels[step + 1]), slopes)
    return latents
