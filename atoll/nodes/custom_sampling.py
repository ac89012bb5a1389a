"""The denoising loop in pieces: sigmas, samplers, guiders and noise, each a node of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

from atoll.graph.node import NodeContext, OneOf, Range, node
from atoll.nodes.latents import MAX_SEED
from atoll.nodes.sampling import SAMPLER_NAMES, SCHEDULE_NAMES, report_steps, with_samples
from atoll.nodes.types import Conditionings, Guider, Latents, Model, Noise, Sampler, Sigmas

if TYPE_CHECKING:
    from torch import Tensor

    from atoll.diffusion.custom_sampling import StartNoise

Steps = Annotated[int, Range(1, 10_000)]
NoiseSeed = Annotated[int, Range(0, MAX_SEED, control_after_generate=True)]
Scale = Annotated[float, Range(0.0, 100.0, step=0.1, round=0.01)]
Sigma = Annotated[float, Range(0.0, 5000.0, step=0.01, round=False)]
Rho = Annotated[float, Range(0.0, 100.0, step=0.01, round=False)]
Amount = Annotated[float, Range(0.0, 100.0, step=0.01, round=False)]
Shape = Annotated[float, Range(0.0, 50.0, step=0.01, round=False)]
Schedule = Annotated[str, OneOf(SCHEDULE_NAMES)]
# Elsewhere the noise is drawn on the GPU with the first; here hosts must agree, so it is always the CPU's.
NoiseDevice = Annotated[str, OneOf(("gpu", "cpu"))]

SCHEDULERS = "sampling/custom_sampling/schedulers"
SAMPLERS = "sampling/custom_sampling/samplers"
GUIDERS = "sampling/custom_sampling/guiders"
SIGMA_TOOLS = "sampling/custom_sampling/sigmas"


# --- sigmas


@node("BasicScheduler", title="BasicScheduler", category=SCHEDULERS)
def basic_sigmas(
    model: Model,
    *,
    scheduler: Schedule,
    steps: Steps = 20,
    denoise: Annotated[float, Range(0.0, 1.0, step=0.01)] = 1.0,
) -> Sigmas:
    """The sigmas that KSampler would walk; below `denoise` 1 the end of a longer list, with 0 none."""
    from atoll.diffusion.sigma_tools import sigmas_for_strength  # loads torch, which the server must not

    return sigmas_for_strength(scheduler, model.noise_schedule, steps, denoise)


@node("KarrasScheduler", title="KarrasScheduler", category=SCHEDULERS)
def karras_sigmas(
    *, steps: Steps = 20, sigma_max: Sigma = 14.614642, sigma_min: Sigma = 0.0291675, rho: Rho = 7.0
) -> Sigmas:
    """Sigmas even in sigma^(1/rho)."""
    from atoll.diffusion.sigma_tools import karras_between  # loads torch, which the server must not

    return karras_between(steps, sigma_max, sigma_min, rho)


@node("ExponentialScheduler", title="ExponentialScheduler", category=SCHEDULERS)
def exponential_sigmas(*, steps: Steps = 20, sigma_max: Sigma = 14.614642, sigma_min: Sigma = 0.0291675) -> Sigmas:
    """Sigmas even in log sigma."""
    from atoll.diffusion.sigma_tools import polyexponential_between  # loads torch, which the server must not

    return polyexponential_between(steps, sigma_max, sigma_min)


@node("PolyexponentialScheduler", title="PolyexponentialScheduler", category=SCHEDULERS)
def polyexponential_sigmas(
    *, steps: Steps = 20, sigma_max: Sigma = 14.614642, sigma_min: Sigma = 0.0291675, rho: Rho = 1.0
) -> Sigmas:
    """Sigmas in log sigma, denser at the low end the greater `rho` is."""
    from atoll.diffusion.sigma_tools import polyexponential_between  # loads torch, which the server must not

    return polyexponential_between(steps, sigma_max, sigma_min, rho)


@node("SDTurboScheduler", title="SDTurboScheduler", category=SCHEDULERS)
def turbo_sigmas(
    model: Model,
    *,
    steps: Annotated[int, Range(1, 10)] = 1,
    denoise: Annotated[float, Range(0, 1.0, step=0.01)] = 1.0,
) -> Sigmas:
    """The sigmas of SD Turbo's ten timesteps."""
    from atoll.diffusion.sigma_tools import turbo_sigmas  # loads torch, which the server must not

    return turbo_sigmas(model.noise_schedule, steps, denoise)


@node("VPScheduler", title="VPScheduler", category=SCHEDULERS)
def vp_sigmas(
    *,
    steps: Steps = 20,
    beta_d: Sigma = 19.9,
    beta_min: Sigma = 0.1,
    eps_s: Annotated[float, Range(0.0, 1.0, step=0.0001, round=False)] = 0.001,
) -> Sigmas:
    """The sigmas of the variance-preserving SDE."""
    from atoll.diffusion.sigma_tools import vp_sigmas  # loads torch, which the server must not

    return vp_sigmas(steps, beta_d, beta_min, eps_s)


@node("BetaSamplingScheduler", title="BetaSamplingScheduler", category=SCHEDULERS)
def beta_sigmas(model: Model, *, steps: Steps = 20, alpha: Shape = 0.6, beta: Shape = 0.6) -> Sigmas:
    """Trained sigmas at quantiles of a beta distribution."""
    from atoll.diffusion.sigmas import beta_sigmas  # loads torch, which the server must not

    return beta_sigmas(model.noise_schedule, steps, alpha, beta)


@node("SplitSigmas", title="SplitSigmas", category=SIGMA_TOOLS, output_names=("high_sigmas", "low_sigmas"))
def split_sigmas(sigmas: Sigmas, *, step: Annotated[int, Range(0, 10_000)] = 0) -> tuple[Sigmas, Sigmas]:
    """Sigmas before and after a step; both hold the one between."""
    return sigmas[: step + 1], sigmas[step:]


@node(
    "SplitSigmasDenoise", title="SplitSigmasDenoise", category=SIGMA_TOOLS, output_names=("high_sigmas", "low_sigmas")
)
def split_sigmas_by_strength(
    sigmas: Sigmas, *, denoise: Annotated[float, Range(0.0, 1.0, step=0.01)] = 1.0
) -> tuple[Sigmas, Sigmas]:
    """The last part of the steps, `denoise` of them, and those before."""
    from atoll.diffusion.sigma_tools import split_at_strength  # loads torch, which the server must not

    return split_at_strength(sigmas, denoise)


@node("FlipSigmas", title="FlipSigmas", category=SIGMA_TOOLS)
def flip_sigmas(sigmas: Sigmas) -> Sigmas:
    """Sigmas from the picture to the noise."""
    from atoll.diffusion.sigma_tools import flip_sigmas  # loads torch, which the server must not

    return flip_sigmas(sigmas)


# --- samplers


@node("KSamplerSelect", title="KSamplerSelect", category=SAMPLERS)
def select_sampler(*, sampler_name: Annotated[str, OneOf(SAMPLER_NAMES)]) -> Sampler:
    """A sampler by its name."""
    from atoll.diffusion.samplers import find_sampler  # loads torch, which the server must not

    return find_sampler(sampler_name)


@node("SamplerEulerAncestral", title="SamplerEulerAncestral", category=SAMPLERS)
def euler_ancestral_sampler(*, eta: Amount = 1.0, s_noise: Amount = 1.0) -> Sampler:
    """euler_ancestral with another share of fresh noise (`eta`), or a stronger one (`s_noise`)."""
    from atoll.diffusion.samplers import Sampler  # loads torch, which the server must not
    from atoll.diffusion.samplers_singlestep import sample_euler_ancestral

    return Sampler(partial(sample_euler_ancestral, eta=eta, s_noise=s_noise), "independent")


@node("SamplerDPMPP_2M_SDE", title="SamplerDPMPP_2M_SDE", category=SAMPLERS)
def dpmpp_2m_sde_sampler(
    *,
    solver_type: Annotated[str, OneOf(("midpoint", "heun"))],
    eta: Amount = 1.0,
    s_noise: Amount = 1.0,
    noise_device: NoiseDevice,
) -> Sampler:
    """dpmpp_2m_sde with another share of fresh noise (`eta`), or a stronger one (`s_noise`), drawn on the CPU."""
    from atoll.diffusion.samplers import Sampler  # loads torch, which the server must not
    from atoll.diffusion.samplers_sde import sample_dpmpp_2m_sde

    heun = solver_type == "heun"
    return Sampler(partial(sample_dpmpp_2m_sde, heun=heun, eta=eta, s_noise=s_noise), "brownian")


@node("SamplerDPMPP_SDE", title="SamplerDPMPP_SDE", category=SAMPLERS)
def dpmpp_sde_sampler(
    *, eta: Amount = 1.0, s_noise: Amount = 1.0, r: Amount = 0.5, noise_device: NoiseDevice
) -> Sampler:
    """dpmpp_sde with another share of fresh noise (`eta`), a stronger one (`s_noise`), or another middle (`r`)."""
    from atoll.diffusion.samplers import Sampler  # loads torch, which the server must not
    from atoll.diffusion.samplers_sde import sample_dpmpp_sde
    from atoll.errors import InvalidRequest

    if r == 0:
        raise InvalidRequest("r is 0: the second call of the network would see what the first saw. Usual is 0.5.")
    return Sampler(partial(sample_dpmpp_sde, eta=eta, s_noise=s_noise, r=r), "brownian")


@node("SamplerLMS", title="SamplerLMS", category=SAMPLERS)
def lms_sampler(*, order: Annotated[int, Range(1, 100)] = 4) -> Sampler:
    """lms of another order: how many slopes it looks back on."""
    from atoll.diffusion.samplers import Sampler  # loads torch, which the server must not
    from atoll.diffusion.samplers_multistep import sample_lms

    return Sampler(partial(sample_lms, order=order))


# --- guiders and noise. Guiders are not cached: they hold the model's weights, which the shelf of models counts.


@node("BasicGuider", title="BasicGuider", category=GUIDERS, cached=False)
def basic_guider(model: Model, conditioning: Conditionings) -> Guider:
    """One prompt, without guidance."""
    from atoll.diffusion.custom_sampling import CfgGuider  # loads torch, which the server must not

    return CfgGuider(model, conditioning)


@node("CFGGuider", title="CFGGuider", category=GUIDERS, cached=False)
def cfg_guider(model: Model, positive: Conditionings, negative: Conditionings, *, cfg: Scale = 8.0) -> Guider:
    """The usual guidance, from the negative prompt through the positive one."""
    from atoll.diffusion.custom_sampling import CfgGuider  # loads torch, which the server must not

    return CfgGuider(model, positive, negative, cfg)


@node("DualCFGGuider", title="DualCFGGuider", category=GUIDERS, cached=False)
def dual_cfg_guider(
    model: Model,
    cond1: Conditionings,
    cond2: Conditionings,
    negative: Conditionings,
    *,
    cfg_conds: Scale = 8.0,
    cfg_cond2_negative: Scale = 8.0,
    style: Annotated[str, OneOf(("regular", "nested"))],
) -> Guider:
    """Guidance from the negative prompt towards a second one, and from there towards the first."""
    from atoll.diffusion.custom_sampling import DualCfgGuider  # loads torch, which the server must not

    return DualCfgGuider(model, cond1, cond2, negative, cfg_conds, cfg_cond2_negative, style == "nested")


@node("RandomNoise", title="RandomNoise", category="sampling/custom_sampling/noise")
def random_noise(*, noise_seed: NoiseSeed = 0) -> Noise:
    """A seed for the start noise and for what the sampler draws on its way."""
    from atoll.diffusion.custom_sampling import StartNoise  # loads torch, which the server must not

    return StartNoise(noise_seed)


@node("DisableNoise", title="DisableNoise", category="sampling/custom_sampling/noise")
def no_noise() -> Noise:
    """The latents start as they are."""
    from atoll.diffusion.custom_sampling import StartNoise  # loads torch, which the server must not

    return StartNoise(disabled=True)


# --- the loop


@node(
    "SamplerCustom",
    title="SamplerCustom",
    category="sampling/custom_sampling",
    output_names=("output", "denoised_output"),
    order=(
        "model", "add_noise", "noise_seed", "cfg", "positive", "negative", "sampler", "sigmas", "latent_image",
    ),
)  # fmt: skip
def sample_custom(
    model: Model,
    positive: Conditionings,
    negative: Conditionings,
    sampler: Sampler,
    sigmas: Sigmas,
    latent_image: Latents,
    context: NodeContext,
    *,
    add_noise: bool = True,
    noise_seed: NoiseSeed = 0,
    cfg: Scale = 8.0,
) -> tuple[Latents, Latents]:
    """Denoise latents down any sigmas. The second output is the last estimate of the picture."""
    from atoll.diffusion.custom_sampling import CfgGuider, StartNoise  # loads torch, which the server must not

    noise = StartNoise(noise_seed, disabled=not add_noise)
    return _sampled(CfgGuider(model, positive, negative, cfg), sampler, sigmas, latent_image, noise, context)


@node(
    "SamplerCustomAdvanced",
    title="SamplerCustomAdvanced",
    category="sampling/custom_sampling",
    output_names=("output", "denoised_output"),
)
def sample_custom_advanced(
    noise: Noise, guider: Guider, sampler: Sampler, sigmas: Sigmas, latent_image: Latents, context: NodeContext
) -> tuple[Latents, Latents]:
    """Denoise latents, every part of it chosen by another node. The second output is the last estimate."""
    return _sampled(guider, sampler, sigmas, latent_image, noise, context)


def _sampled(
    guider: Guider, sampler: Sampler, sigmas: Tensor, latents: Latents, noise: StartNoise, context: NodeContext
) -> tuple[Latents, Latents]:
    from atoll.diffusion.custom_sampling import sample_custom  # loads torch, which the server must not

    reached, denoised = sample_custom(
        guider,
        sampler,
        sigmas,
        latents["samples"],
        noise=noise,
        noise_mask=latents.get("noise_mask"),
        batch_index=latents.get("batch_index"),
        variation=latents.get("variation"),
        on_step=report_steps(context, guider.model),
    )
    return with_samples(latents, reached), with_samples(latents, denoised)
