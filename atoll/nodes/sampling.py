"""The denoising loop as nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from PIL import Image

from atoll.artifacts.thumbnail import make_thumbnail
from atoll.graph.node import NodeContext, OneOf, Range, Tooltip, node
from atoll.nodes.latents import MAX_SEED
from atoll.nodes.types import Conditionings, LatentBatch, Latents, Model

if TYPE_CHECKING:
    from torch import Tensor

# ComfyUI's, in its order; then what only Atoll has. Written out, since the engine needs torch.
SAMPLER_NAMES = (
    "euler", "euler_cfg_pp", "euler_ancestral", "euler_ancestral_cfg_pp", "heun", "heunpp2", "dpm_2", "dpm_2_ancestral",
    "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2s_ancestral", "dpmpp_2s_ancestral_cfg_pp", "dpmpp_sde", "dpmpp_sde_gpu",
    "dpmpp_2m", "dpmpp_2m_cfg_pp", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu",
    "dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "ddpm", "lcm", "ipndm", "ipndm_v", "deis", "res_multistep",
    "res_multistep_cfg_pp", "res_multistep_ancestral", "res_multistep_ancestral_cfg_pp", "gradient_estimation",
    "gradient_estimation_cfg_pp", "er_sde", "seeds_2", "seeds_3", "sa_solver", "sa_solver_pece", "ddim", "uni_pc",
    "uni_pc_bh2", "pndm", "plms",
)  # fmt: skip
SCHEDULE_NAMES = (
    "simple", "sgm_uniform", "karras", "exponential", "ddim_uniform", "beta", "normal", "linear_quadratic",
    "kl_optimal", "diffusers_leading", "diffusers_linspace", "diffusers_trailing",
)  # fmt: skip

Seed = Annotated[int, Range(0, MAX_SEED, control_after_generate=True)]
Steps = Annotated[int, Range(1, 10_000)]
GuidanceScale = Annotated[float, Range(0.0, 100.0, step=0.1, round=0.01)]
Sampler = Annotated[str, OneOf(SAMPLER_NAMES)]
Schedule = Annotated[str, OneOf(SCHEDULE_NAMES)]


@node(
    "KSampler",
    title="KSampler",
    category="sampling",
    order=(
        "model", "seed", "steps", "cfg", "sampler_name", "scheduler", "positive", "negative", "latent_image", "denoise",
    ),
)  # fmt: skip
def sample(
    model: Annotated[Model, Tooltip("The network that denoises.")],
    positive: Annotated[Conditionings, Tooltip("What to draw.")],
    negative: Annotated[Conditionings, Tooltip("What to keep out.")],
    latent_image: Annotated[Latents, Tooltip("What to start from.")],
    context: NodeContext,
    *,
    seed: Annotated[Seed, Tooltip("The same seed draws the same noise, on every machine.")] = 0,
    steps: Annotated[Steps, Tooltip("How many times the network is asked.")] = 20,
    cfg: Annotated[GuidanceScale, Tooltip("How strongly the prompt pulls; 1 is no guidance.")] = 8.0,
    sampler_name: Annotated[Sampler, Tooltip("How the noise is taken away.")],
    scheduler: Annotated[Schedule, Tooltip("How the noise levels are spread over the steps.")],
    denoise: Annotated[float, Range(0.0, 1.0, step=0.01), Tooltip("1 draws anew; less keeps more of the start.")] = 1.0,
) -> Latents:
    """Denoise latents step by step."""
    from atoll.diffusion.sample import sample_latents  # loads torch, which the server must not

    samples = sample_latents(
        model,
        positive,
        negative,
        latent_image["samples"],
        seed=seed,
        num_inference_steps=steps,
        guidance_scale=cfg,
        sampler=sampler_name,
        schedule=scheduler,
        denoising_strength=denoise,
        noise_mask=latent_image.get("noise_mask"),
        batch_index=latent_image.get("batch_index"),
        noise_rule="per_image" if "variation" in latent_image else "batch",
        variation=latent_image.get("variation"),
        on_step=report_steps(context, model),
    )
    return with_samples(latent_image, samples)


@node(
    "KSamplerAdvanced",
    title="KSampler (Advanced)",
    category="sampling",
    order=(
        "model", "add_noise", "noise_seed", "steps", "cfg", "sampler_name", "scheduler", "positive", "negative",
        "latent_image", "start_at_step", "end_at_step", "return_with_leftover_noise",
    ),
)  # fmt: skip
def sample_some_steps(
    model: Model,
    positive: Conditionings,
    negative: Conditionings,
    latent_image: Latents,
    context: NodeContext,
    *,
    add_noise: Annotated[str, OneOf(("enable", "disable"))],
    noise_seed: Seed = 0,
    steps: Steps = 20,
    cfg: GuidanceScale = 8.0,
    sampler_name: Sampler,
    scheduler: Schedule,
    start_at_step: Annotated[int, Range(0, 10_000)] = 0,
    end_at_step: Annotated[int, Range(0, 10_000)] = 10_000,
    return_with_leftover_noise: Annotated[str, OneOf(("disable", "enable"))],
) -> Latents:
    """Denoise latents through a part of the steps, so that several samplers can follow each other."""
    from atoll.diffusion.sample import sample_latents  # loads torch, which the server must not

    samples = sample_latents(
        model,
        positive,
        negative,
        latent_image["samples"],
        seed=noise_seed,
        num_inference_steps=steps,
        guidance_scale=cfg,
        sampler=sampler_name,
        schedule=scheduler,
        noise_mask=latent_image.get("noise_mask"),
        batch_index=latent_image.get("batch_index"),
        noise_rule="per_image" if "variation" in latent_image else "batch",
        variation=latent_image.get("variation"),
        add_noise=add_noise == "enable",
        start_at_step=start_at_step,
        end_at_step=end_at_step,
        return_with_leftover_noise=return_with_leftover_noise == "enable",
        on_step=report_steps(context, model),
    )
    return with_samples(latent_image, samples)


def with_samples(latents: LatentBatch, samples: Tensor) -> LatentBatch:
    changed = latents.copy()
    changed["samples"] = samples
    return changed


def report_steps(context: NodeContext, model: Model) -> Callable[[int, int, Tensor], None]:
    from atoll.diffusion.preview import latents_to_preview  # loads torch, which the server must not

    def on_step(step: int, total: int, denoised: Tensor) -> None:
        context.on_step(
            step, total, lambda: make_thumbnail(Image.fromarray(latents_to_preview(denoised, model.preview_map)))
        )

    return on_step
