"""Time of a denoising step and of a whole picture: Atoll's loop against diffusers' pipeline, same weights, same run.

    python benchmarks/sampling.py [--model FOLDER] [--device cpu] [--size 128] [--steps 20] [--rounds 5]

Both sides alternate round by round; each figure is the median, each ratio the median of the rounds' ratios (above 1:
Atoll is faster). Guidance is on: each step runs the network on the prompt and on the empty prompt.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

from atoll.diffusion.checkpoint import load_checkpoint
from atoll.diffusion.precision import DTYPES, pick_device, pick_dtype
from atoll.diffusion.sample import sample_latents
from atoll.diffusion.text import encode_prompt

LAGOON = Path(__file__).parent.parent / "atoll/models/lagoon"
PROMPT = "a red apple, 3d style, blue background"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", type=Path, default=LAGOON)
    arguments.add_argument("--device", default="auto")
    arguments.add_argument("--size", type=int, default=128)
    arguments.add_argument("--steps", type=int, default=20)
    arguments.add_argument("--rounds", type=int, default=5)
    asked = arguments.parse_args()
    device = pick_device(asked.device)
    print(f"{platform.processor() or platform.machine()}, {device}, torch {torch.__version__}, {asked.model.name}")
    print(f"{asked.size}x{asked.size}, {asked.steps} steps, median of {asked.rounds} rounds")
    print(f"{'precision':>9} {'atoll':>9} {'diffusers':>10} {'ratio':>6}")
    best = pick_dtype("auto", device)
    for precision in (name for name, dtype in DTYPES.items() if dtype in (torch.float32, best)):
        ours = build_ours(asked, device, precision)
        theirs = build_theirs(asked, device, precision)
        ours(), theirs()
        rounds = [(seconds(ours, device), seconds(theirs, device)) for _ in range(asked.rounds)]
        one, other = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratio = statistics.median(b / a for a, b in rounds)
        print(f"{precision:>9} {one:8.3f}s {other:9.3f}s {ratio:6.2f}")


def build_ours(asked: argparse.Namespace, device: torch.device, precision: str) -> Callable[[], object]:
    """A whole picture by Atoll, as a call."""
    checkpoint = load_checkpoint(asked.model, device=str(device), precision=precision)

    @torch.inference_mode()
    def draw() -> object:
        latents = sample_latents(
            checkpoint.model,
            [encode_prompt(checkpoint.text_encoder, PROMPT)],
            [encode_prompt(checkpoint.text_encoder, "")],
            torch.zeros(1, checkpoint.model.latent_channels, asked.size // 8, asked.size // 8),
            seed=7,
            num_inference_steps=asked.steps,
            guidance_scale=5.0,
            sampler="euler",
            schedule="normal",
        )
        return checkpoint.vae.decode_latents(latents).cpu()

    return draw


def build_theirs(asked: argparse.Namespace, device: torch.device, precision: str) -> Callable[[], object]:
    """A whole picture by diffusers, as a call."""
    pipeline = StableDiffusionPipeline.from_pretrained(asked.model, dtype=DTYPES[precision]).to(device)
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    options = {"width": asked.size, "height": asked.size, "num_inference_steps": asked.steps, "guidance_scale": 5.0}

    def draw() -> object:
        return pipeline(PROMPT, generator=torch.Generator().manual_seed(7), output_type="pt", **options).images.cpu()

    return draw


def seconds(draw: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, the device's work included."""
    start = time.perf_counter()
    draw()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
