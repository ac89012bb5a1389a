"""Noise levels: which ones a network was trained on, and which ones a sampler walks down.

Sigma is the noise's standard deviation over the data's (variance exploding): noised = clean + sigma * noise.
A network of the Stable Diffusion family is told a timestep 0..999 instead, and sees noised / sqrt(1 + sigma^2).

Two families of schedules:

- ComfyUI's nine names. Each gives num_inference_steps sigmas and a 0 (ddim_uniform and beta may give another number,
  as they do there), and denoising_strength < 1 takes the end of a longer list.
- `diffusers_leading`, `diffusers_linspace`, `diffusers_trailing`: what diffusers' schedulers walk with that
  `timestep_spacing`, including where they end, and denoising_strength skips the first steps of the list. With them
  ddim, pndm, lms and euler equal diffusers' own pipelines; see `sample.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import beta as beta_distribution
from torch import Tensor

from atoll.errors import InvalidRequest, NotACheckpoint

PredictionType = Literal["epsilon", "v_prediction", "lcm", "x0", "img_to_img"]

MAX_STEPS = 10_000
MAX_WHOLE_STEPS = 1_000_000  # of the list whose end is taken: the most steps at the least strength of a node, 0.01
# alphas_cumprod at the last timestep of a rescaled schedule. Zero there would be an endless sigma; this one is 4518.8.
ZERO_SNR_ALPHAS_CUMPROD = 4.8973451890853435e-08


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The noise levels a network was trained on.

    sigmas: (num_train_timesteps,) float32, rising.
    prediction_type: what the network answers: the noise, v, ...; see `prediction.py`.
    timestep_stride: trained timesteps from one of the sigmas to the next; distilled networks know only some.
    steps_offset, set_alpha_to_one: where diffusers' timesteps begin and end; only the diffusers_* schedules ask.
    """

    sigmas: Tensor
    prediction_type: PredictionType = "epsilon"
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    timestep_stride: int = 1

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> NoiseSchedule:
        """Read a diffusers scheduler_config.json, of any scheduler class.

        Raises: NotACheckpoint, if the configuration asks for something unknown.
        """
        prediction_type = config.get("prediction_type", "epsilon")
        if prediction_type not in ("epsilon", "v_prediction"):
            raise NotACheckpoint(
                f'The scheduler configuration says prediction_type "{prediction_type}"; '
                'Atoll knows "epsilon" and "v_prediction".'
            )
        alphas_cumprod = torch.cumprod(1.0 - build_betas(config), dim=0)
        if config.get("rescale_betas_zero_snr"):
            alphas_cumprod = rescale_to_zero_terminal_snr(alphas_cumprod)
        return cls(
            sigmas=((1.0 - alphas_cumprod) / alphas_cumprod).sqrt().float(),
            prediction_type=prediction_type,
            steps_offset=int(config.get("steps_offset", 0)),
            set_alpha_to_one=bool(config.get("set_alpha_to_one", config.get("_class_name") != "PNDMScheduler")),
        )

    @cached_property
    def log_sigmas(self) -> Tensor:
        return self.sigmas.log()

    @property
    def num_train_timesteps(self) -> int:
        return len(self.sigmas)

    @property
    def sigma_min(self) -> float:
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        return float(self.sigmas[-1])

    def sigma_at_percent(self, percent: float) -> float:
        """Sigma after that part of the way from noise (0, where it is endless) to the picture (1, where it is 0)."""
        if percent <= 0:
            return math.inf
        if percent >= 1:
            return 0.0
        last = self.num_train_timesteps * self.timestep_stride - 1
        return float(self.sigma_at(self.position_of(torch.tensor((1.0 - percent) * last))))

    def position_of(self, timestep: Tensor) -> Tensor:
        """Where a trained timestep lies among the sigmas; a fraction between two of them."""
        return (timestep.float() - (self.timestep_stride - 1)) / self.timestep_stride

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """(num_train_timesteps,) float32, falling: the share of the signal's variance."""
        return 1.0 / (1.0 + self.sigmas**2)

    def sigma_at(self, timestep: Tensor) -> Tensor:
        """Sigma at any position among the sigmas; between two of them, by interpolating log sigma."""
        timestep = timestep.float().clamp(0, self.num_train_timesteps - 1)
        low, high = timestep.floor().long(), timestep.ceil().long()
        return torch.lerp(self.log_sigmas[low], self.log_sigmas[high], timestep.frac()).exp()

    def nearest_timestep(self, sigma: Tensor) -> Tensor:
        """The trained timestep whose log sigma is nearest, as a float: what ComfyUI tells the network."""
        log_sigma = sigma.detach().cpu().float().log()
        nearest = (log_sigma.unsqueeze(-1) - self.log_sigmas).abs().argmin(dim=-1)
        return (nearest * self.timestep_stride + self.timestep_stride - 1).float()

    def with_zero_terminal_snr(self) -> NoiseSchedule:
        """The same stretched so that nothing of the picture is left at its last timestep."""
        alphas_cumprod = rescale_to_zero_terminal_snr(self.alphas_cumprod)
        return replace(self, sigmas=((1.0 - alphas_cumprod) / alphas_cumprod).sqrt())

    def every_nth(self, count: int) -> NoiseSchedule:
        """Only `count` of the sigmas, evenly spaced down from the last: what a distilled network knows."""
        stride = self.num_train_timesteps // count
        kept = self.num_train_timesteps - 1 - torch.arange(count - 1, -1, -1) * stride
        return replace(self, sigmas=self.sigmas[kept], timestep_stride=stride)

    def fractional_timestep(self, sigma: Tensor) -> Tensor:
        """The timestep between trained ones, sigma itself interpolated: what diffusers' Euler and LMS tell it."""
        trained = self.sigmas.double().numpy()
        timestep = np.interp(sigma.detach().cpu().double().numpy(), trained, np.arange(len(trained)))
        return torch.as_tensor(timestep, dtype=torch.float32)


def build_betas(config: Mapping[str, Any]) -> Tensor:
    """The noise added at each training timestep, float64. Names and defaults as in diffusers' schedulers."""
    if config.get("trained_betas") is not None:
        return torch.as_tensor(config["trained_betas"], dtype=torch.float64)
    count = int(config.get("num_train_timesteps", 1000))
    start, end = float(config.get("beta_start", 0.0001)), float(config.get("beta_end", 0.02))
    name = config.get("beta_schedule", "linear")
    if name == "linear":
        return torch.linspace(start, end, count, dtype=torch.float64)
    if name == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float64) ** 2
    if name in ("squaredcos_cap_v2", "cosine"):  # Nichol & Dhariwal 2021, arXiv:2102.09672, equation 17
        time = torch.linspace(0, 1, count + 1, dtype=torch.float64)
        alphas_cumprod = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
        return (1.0 - alphas_cumprod[1:] / alphas_cumprod[:-1]).clamp(max=0.999)
    raise NotACheckpoint(
        f'The scheduler configuration says beta_schedule "{name}"; '
        'Atoll knows "linear", "scaled_linear" and "squaredcos_cap_v2".'
    )


def rescale_to_zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """Stretch a schedule so that nothing of the picture is left at its last timestep.

    Source: Lin et al. 2023, arXiv:2305.08891, algorithm 1; the last value is kept above zero.
    """
    root = alphas_cumprod.sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    rescaled = root**2
    rescaled[-1] = ZERO_SNR_ALPHAS_CUMPROD
    return rescaled


# ---- ComfyUI's schedules: (noise_schedule, steps) -> falling sigmas, the last one 0 --------------------------------


def with_final_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas.float(), torch.zeros(1)])


def simple_sigmas(noise_schedule: NoiseSchedule, steps: int) -> Tensor:
    """Trained sigmas at even distances from the top."""
    count = noise_schedule.num_train_timesteps
    from_top = torch.tensor([int(step * (count / steps)) for step in range(steps)])
    return with_final_zero(noise_schedule.sigmas[count - 1 - from_top])


def normal_sigmas(noise_schedule: NoiseSchedule, steps: int) -> Tensor:
    """Timesteps evenly spaced from the last to the first, both included."""
    return with_final_zero(noise_schedule.sigma_at(torch.linspace(noise_schedule.num_train_timesteps - 1, 0, steps)))


def sgm_uniform_sigmas(noise_schedule: NoiseSchedule, steps: int) -> Tensor:
    """Timesteps evenly spaced from the last; the place of the first is taken by the final 0."""
    timesteps = torch.linspace(noise_schedule.num_train_timesteps - 1, 0, steps + 1)[:-1]
    return with_final_zero(noise_schedule.sigma_at(timesteps))


def ddim_uniform_sigmas(noise_schedule: NoiseSchedule, steps: int) -> Tensor:
    """Trained timesteps 1, 1 + r, 1 + 2r ... with r = 1000 // steps: one more than asked where r leaves room."""
    count = noise_schedule.num_train_timesteps
    return with_final_zero(noise_schedule.sigmas[1 :: max(count // steps, 1)].flip(0))


def karras_sigmas(noise_schedule: NoiseSchedule, steps: int, rho: float = 7.0) -> Tensor:
    """Source: Karras et al. 2022, arXiv:2206.00364, equation 5."""
    top, bottom = noise_schedule.sigma_max ** (1 / rho), noise_schedule.sigma_min ** (1 / rho)
    return with_final_zero(torch.lerp(torch.tensor(top), torch.tensor(bottom), torch.linspace(0, 1, steps)) ** rho)


def exponential_sigmas(noise_schedule: NoiseSchedule, steps: int) -> Tensor:
    """Evenly spaced in log sigma."""
    top, bottom = math.log(noise_schedule.sigma_max), math.log(noise_schedule.sigma_min)
    return with_final_zero(torch.linspace(top, bottom, steps).exp())


def beta_sigmas(noise_schedule: NoiseSchedule, steps: int, alpha: float = 0.6, beta: float = 0.6) -> Tensor:
    """Trained timesteps at quantiles of a beta distribution: dense at both ends; one met twice counts once.

    Source: Lee et al. 2024, arXiv:2407.12173.
    """
    quantiles = 1 - np.linspace(0, 1, steps, endpoint=False)
    timesteps = np.rint(beta_distribution.ppf(quantiles, alpha, beta) * (noise_schedule.num_train_timesteps - 1))
    return with_final_zero(noise_schedule.sigmas[torch.unique_consecutive(torch.as_tensor(timesteps).long())])


def linear_quadratic_sigmas(noise_schedule: NoiseSchedule, steps: int, threshold: float = 0.025) -> Tensor:
    """The first half of the steps goes down evenly by `threshold` in all, the rest as a parabola that joins smoothly.

    Source: the schedule of Genmo's Mochi 1 (Apache-2.0).
    """
    if steps == 1:
        return with_final_zero(torch.tensor([noise_schedule.sigma_max]))
    linear_steps = steps // 2
    quadratic_steps = steps - linear_steps
    bend = (linear_steps - threshold * steps) / (linear_steps * quadratic_steps**2)
    done = [step * threshold / linear_steps for step in range(linear_steps)]
    done += [threshold + step * threshold / linear_steps + bend * step**2 for step in range(quadratic_steps)]
    return with_final_zero((1.0 - torch.tensor(done, dtype=torch.float64)) * noise_schedule.sigma_max)


def kl_optimal_sigmas(noise_schedule: NoiseSchedule, steps: int) -> Tensor:
    """Evenly spaced in arctan sigma. One step starts at sigma_max (ComfyUI divides by zero there).

    Source: Sabour et al. 2024, "Align Your Steps", arXiv:2404.14507, equation 10.
    """
    top, bottom = math.atan(noise_schedule.sigma_max), math.atan(noise_schedule.sigma_min)
    return with_final_zero(torch.linspace(top, bottom, steps, dtype=torch.float64).tan())


# ---- diffusers' spacings -------------------------------------------------------------------------------------------


def diffusers_timesteps(spacing: str, noise_schedule: NoiseSchedule, steps: int) -> np.ndarray:
    """(steps,) falling; "linspace" has fractions. Source: table 2 of Lin et al. 2023, arXiv:2305.08891."""
    count = noise_schedule.num_train_timesteps
    if steps > count:
        raise InvalidRequest(
            f"num_inference_steps {steps} with schedule diffusers_{spacing}: the network knows {count} timesteps. "
            f"Ask for at most {count} steps, or take another schedule."
        )
    timesteps: np.ndarray
    if spacing == "leading":
        timesteps = np.arange(steps)[::-1] * (count // steps) + noise_schedule.steps_offset
    elif spacing == "trailing":
        timesteps = np.round(np.arange(count, 0, -count / steps))[:steps] - 1
    else:
        timesteps = np.linspace(0, count - 1, steps)[::-1]
    return np.clip(timesteps, 0, count - 1)


def diffusers_sigmas(spacing: str, noise_schedule: NoiseSchedule, steps: int) -> Tensor:
    timesteps = diffusers_timesteps(spacing, noise_schedule, steps)
    trained = noise_schedule.sigmas.double().numpy()
    return with_final_zero(torch.as_tensor(np.interp(timesteps, np.arange(len(trained)), trained)))


def diffusers_leading_sigmas(noise_schedule: NoiseSchedule, steps: int) -> Tensor:
    """What diffusers' DDIM and PNDM walk unless told otherwise."""
    return diffusers_sigmas("leading", noise_schedule, steps)


def diffusers_linspace_sigmas(noise_schedule: NoiseSchedule, steps: int) -> Tensor:
    """What diffusers' Euler and LMS walk unless told otherwise."""
    return diffusers_sigmas("linspace", noise_schedule, steps)


def diffusers_trailing_sigmas(noise_schedule: NoiseSchedule, steps: int) -> Tensor:
    return diffusers_sigmas("trailing", noise_schedule, steps)


BuildSchedule = Callable[[NoiseSchedule, int], Tensor]

COMFYUI_SCHEDULES: dict[str, BuildSchedule] = {
    "simple": simple_sigmas,
    "sgm_uniform": sgm_uniform_sigmas,
    "karras": karras_sigmas,
    "exponential": exponential_sigmas,
    "ddim_uniform": ddim_uniform_sigmas,
    "beta": beta_sigmas,
    "normal": normal_sigmas,
    "linear_quadratic": linear_quadratic_sigmas,
    "kl_optimal": kl_optimal_sigmas,
}
DIFFUSERS_SCHEDULES: dict[str, BuildSchedule] = {
    "diffusers_leading": diffusers_leading_sigmas,
    "diffusers_linspace": diffusers_linspace_sigmas,
    "diffusers_trailing": diffusers_trailing_sigmas,
}
SCHEDULES: dict[str, BuildSchedule] = COMFYUI_SCHEDULES | DIFFUSERS_SCHEDULES


def build_sigmas(schedule: str, noise_schedule: NoiseSchedule, steps: int) -> Tensor:
    """The falling sigmas of a whole picture, float32 on the CPU, the last one 0.

    Raises: InvalidRequest for an unknown schedule or a number of steps outside 1..10000.
    """
    if schedule not in SCHEDULES:
        raise InvalidRequest(f'There is no schedule "{schedule}". There are: {", ".join(SCHEDULES)}.')
    if not 1 <= steps <= MAX_STEPS:
        raise InvalidRequest(f"num_inference_steps is {steps}; it must lie in 1..{MAX_STEPS}.")
    return SCHEDULES[schedule](noise_schedule, steps)


def build_partial_sigmas(
    schedule: str,
    noise_schedule: NoiseSchedule,
    steps: int,
    denoising_strength: float,
    *,
    drop_penultimate: bool = False,
) -> Tensor:
    """The sigmas for a start that already is a picture: the end of a longer list, so that `steps` steps remain.

    denoising_strength: in (0, 1]; 1 gives all of `build_sigmas`. ComfyUI's rule: the last steps + 1 sigmas of
        int(steps / denoising_strength) steps.
    drop_penultimate: leave out the last sigma before 0, of one step more; some second-order samplers want that.
    """
    build_sigmas(schedule, noise_schedule, steps)  # judges the arguments as the caller gave them
    whole_steps = steps if denoising_strength > 0.9999 else int(steps / denoising_strength)
    if whole_steps > MAX_WHOLE_STEPS:
        raise InvalidRequest(
            f"denoising_strength {denoising_strength:g} with {steps} steps needs the end of a list of {whole_steps} "
            f"steps; at most {MAX_WHOLE_STEPS} can be. Take fewer steps, or a higher denoising_strength."
        )
    sigmas = SCHEDULES[schedule](noise_schedule, whole_steps + drop_penultimate)
    if drop_penultimate:
        sigmas = torch.cat([sigmas[:-2], sigmas[-1:]])
    return sigmas if whole_steps == steps else sigmas[-(steps + 1) :]
