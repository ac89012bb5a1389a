"""Every sampler by the name that ComfyUI gives it, in its order, and what each needs around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from atoll.diffusion.denoiser import Denoiser, OnStep, ignore_step
from atoll.diffusion.noise import NoiseRule, brownian_noise, independent_noise
from atoll.diffusion.samplers_cfg_pp import (
    sample_dpmpp_2m_cfg_pp,
    sample_dpmpp_2s_ancestral_cfg_pp,
    sample_euler_ancestral_cfg_pp,
    sample_euler_cfg_pp,
    sample_gradient_estimation_cfg_pp,
    sample_res_multistep_ancestral_cfg_pp,
    sample_res_multistep_cfg_pp,
)
from atoll.diffusion.samplers_dpm import sample_dpm_adaptive, sample_dpm_fast
from atoll.diffusion.samplers_exponential_sde import sample_er_sde, sample_seeds_2, sample_seeds_3
from atoll.diffusion.samplers_multistep import (
    sample_deis,
    sample_dpmpp_2m,
    sample_ipndm,
    sample_lms,
    sample_pndm,
    sample_res_multistep,
    sample_res_multistep_ancestral,
)
from atoll.diffusion.samplers_sa import sample_sa_solver, sample_sa_solver_pece
from atoll.diffusion.samplers_sde import (
    sample_dpmpp_2m_sde,
    sample_dpmpp_2m_sde_heun,
    sample_dpmpp_3m_sde,
    sample_dpmpp_sde,
)
from atoll.diffusion.samplers_singlestep import (
    sample_ddpm,
    sample_dpm_2,
    sample_dpm_2_ancestral,
    sample_dpmpp_2s_ancestral,
    sample_euler,
    sample_euler_ancestral,
    sample_gradient_estimation,
    sample_heun,
    sample_heunpp2,
    sample_lcm,
)
from atoll.diffusion.samplers_uni_pc import sample_uni_pc, sample_uni_pc_bh2
from atoll.errors import InvalidRequest


@dataclass(frozen=True)
class Sampler:
    """A sampling function and what it needs.

    noise: what it draws on its way: "none", "independent" at each step, or increments of one "brownian" motion.
    drop_penultimate: whether it wants the last sigma before 0 left out (a middle between that and 0 is no use).
    asks_negative: whether it wants to know what the negative prompt alone would have drawn.
    masks_with_next_seed: whether what a mask keeps is shown with other noise than the start's, that of seed + 1.
    """

    sample: Callable[..., Tensor]
    noise: Literal["none", "independent", "brownian"] = "none"
    drop_penultimate: bool = False
    asks_negative: bool = False
    masks_with_next_seed: bool = False

    def walk(
        self,
        denoise: Denoiser,
        latents: Tensor,
        sigmas: Tensor,
        *,
        seed: int,
        noise_rule: NoiseRule = "batch",
        batch_index: Sequence[int] | None = None,
        on_step: OnStep = ignore_step,
    ) -> Tensor:
        """As `run_sampler`."""
        if len(sigmas) < 2:
            return latents
        if self.noise == "none":
            return self.sample(denoise, latents, sigmas, on_step)
        if self.noise == "brownian":
            draw_noise = brownian_noise(latents, sigmas, seed, rule=noise_rule, batch_index=batch_index)
        else:
            draw_noise = independent_noise(latents, seed, rule=noise_rule, batch_index=batch_index)
        return self.sample(denoise, latents, sigmas, draw_noise, on_step)


# The *_gpu names stand in many workflows. Elsewhere they draw their noise on the GPU; here hosts must agree.
SAMPLERS: dict[str, Sampler] = {
    "euler": Sampler(sample_euler),
    "euler_cfg_pp": Sampler(sample_euler_cfg_pp, asks_negative=True),
    "euler_ancestral": Sampler(sample_euler_ancestral, "independent"),
    "euler_ancestral_cfg_pp": Sampler(sample_euler_ancestral_cfg_pp, "independent", asks_negative=True),
    "heun": Sampler(sample_heun),
    "heunpp2": Sampler(sample_heunpp2),
    "dpm_2": Sampler(sample_dpm_2, drop_penultimate=True),
    "dpm_2_ancestral": Sampler(sample_dpm_2_ancestral, "independent", drop_penultimate=True),
    "lms": Sampler(sample_lms),
    "dpm_fast": Sampler(sample_dpm_fast),
    "dpm_adaptive": Sampler(sample_dpm_adaptive),
    "dpmpp_2s_ancestral": Sampler(sample_dpmpp_2s_ancestral, "independent"),
    "dpmpp_2s_ancestral_cfg_pp": Sampler(sample_dpmpp_2s_ancestral_cfg_pp, "independent", asks_negative=True),
    "dpmpp_sde": Sampler(sample_dpmpp_sde, "brownian"),
    "dpmpp_sde_gpu": Sampler(sample_dpmpp_sde, "brownian"),
    "dpmpp_2m": Sampler(sample_dpmpp_2m),
    "dpmpp_2m_cfg_pp": Sampler(sample_dpmpp_2m_cfg_pp, asks_negative=True),
    "dpmpp_2m_sde": Sampler(sample_dpmpp_2m_sde, "brownian"),
    "dpmpp_2m_sde_gpu": Sampler(sample_dpmpp_2m_sde, "brownian"),
    "dpmpp_2m_sde_heun": Sampler(sample_dpmpp_2m_sde_heun, "brownian"),
    "dpmpp_2m_sde_heun_gpu": Sampler(sample_dpmpp_2m_sde_heun, "brownian"),
    "dpmpp_3m_sde": Sampler(sample_dpmpp_3m_sde, "brownian"),
    "dpmpp_3m_sde_gpu": Sampler(sample_dpmpp_3m_sde, "brownian"),
    "ddpm": Sampler(sample_ddpm, "independent"),
    "lcm": Sampler(sample_lcm, "independent"),
    "ipndm": Sampler(sample_ipndm),
    "ipndm_v": Sampler(sample_lms),  # its weights for uneven steps are the same integrals
    "deis": Sampler(sample_deis),
    "res_multistep": Sampler(sample_res_multistep),
    "res_multistep_cfg_pp": Sampler(sample_res_multistep_cfg_pp, asks_negative=True),
    "res_multistep_ancestral": Sampler(sample_res_multistep_ancestral, "independent"),
    "res_multistep_ancestral_cfg_pp": Sampler(sample_res_multistep_ancestral_cfg_pp, "independent", asks_negative=True),
    "gradient_estimation": Sampler(sample_gradient_estimation),
    "gradient_estimation_cfg_pp": Sampler(sample_gradient_estimation_cfg_pp, asks_negative=True),
    "er_sde": Sampler(sample_er_sde, "independent"),
    "seeds_2": Sampler(sample_seeds_2, "independent"),
    "seeds_3": Sampler(sample_seeds_3, "independent"),
    "sa_solver": Sampler(sample_sa_solver, "independent"),
    "sa_solver_pece": Sampler(sample_sa_solver_pece, "independent"),
    "ddim": Sampler(sample_euler, masks_with_next_seed=True),
    "uni_pc": Sampler(sample_uni_pc, drop_penultimate=True),
    "uni_pc_bh2": Sampler(sample_uni_pc_bh2, drop_penultimate=True),
    "pndm": Sampler(sample_pndm),
    "plms": Sampler(sample_pndm),
}


def find_sampler(name: str) -> Sampler:
    """Raises: InvalidRequest for an unknown name."""
    if name not in SAMPLERS:
        raise InvalidRequest(f'There is no sampler "{name}". There are: {", ".join(SAMPLERS)}.')
    return SAMPLERS[name]


def run_sampler(
    name: str,
    denoise: Denoiser,
    latents: Tensor,
    sigmas: Tensor,
    *,
    seed: int,
    noise_rule: NoiseRule = "batch",
    batch_index: Sequence[int] | None = None,
    on_step: OnStep = ignore_step,
) -> Tensor:
    """Walk latents down the sigmas. seed feeds the noise that the sampler draws on its way, if any.

    Returns: latents at sigmas[-1]; the input if there is no step to make.
    """
    return find_sampler(name).walk(
        denoise, latents, sigmas, seed=seed, noise_rule=noise_rule, batch_index=batch_index, on_step=on_step
    )
