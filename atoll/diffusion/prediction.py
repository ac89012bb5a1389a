"""How a network's answer is read as clean latents, by what it was trained to predict."""

from __future__ import annotations

from torch import Tensor

from atoll.diffusion.sigmas import NoiseSchedule

CONSISTENCY_DATA_SIGMA = 0.5  # of the data, as the consistency networks' skip connection assumes
CONSISTENCY_TIMESTEP_SCALE = 10.0


def scale_input(schedule: NoiseSchedule, latents: Tensor, sigma: Tensor) -> Tensor:
    """Noised latents as the network sees them: with variance 1, unless it was trained on latents as they are."""
    if schedule.prediction_type == "img_to_img":
        return latents
    return latents / (1.0 + sigma**2).sqrt()


def read_prediction(schedule: NoiseSchedule, latents: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
    """Clean latents from the network's answer to `latents` at sigma.

    Source: for v Salimans & Ho 2022, arXiv:2202.00512; for lcm Luo et al. 2023, arXiv:2310.04378, equation 9, and
        its boundary condition after Song et al. 2023, arXiv:2303.01469, equation 5.
    """
    kind = schedule.prediction_type
    if kind in ("x0", "img_to_img"):
        return output
    if kind == "v_prediction":
        scale = (1.0 + sigma**2).sqrt()
        return latents * (1 / scale**2) - output * (sigma / scale)
    denoised = latents - output * sigma
    if kind == "lcm":
        time = schedule.nearest_timestep(sigma).to(latents.device) * CONSISTENCY_TIMESTEP_SCALE
        spread = time**2 + CONSISTENCY_DATA_SIGMA**2
        denoised = denoised * (time / spread.sqrt()) + latents * (CONSISTENCY_DATA_SIGMA**2 / spread)
    return denoised
