"""The training loop: steps, averaged weights, a training_state to resume from, progress with an estimate."""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from atoll.errors import InvalidRequest, StorageFull, TrainingFailed

KEPT_STATES = 2


@dataclass(frozen=True)
class LoopOptions:
    """How long and how fast.

    Args:
        steps: optimiser steps in all. batch_size: only reported.
        learning_rate: reached after warmup_steps, held, and brought to 0 over the last cooldown share of the steps.
        ema_decay: share of the averaged weights that each step keeps.
        precision: "bf16" runs the networks under autocast; weights and optimiser stay fp32. "fp32" does not.
        save_every, sample_every, log_every: steps between states, sample grids and log lines.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 100
    cooldown: float = 0.25
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.998
    precision: str = "bf16"
    save_every: int = 250
    sample_every: int = 500
    log_every: int = 25


@dataclass(frozen=True)
class Progress:
    """What a run tells of itself."""

    step: int
    steps: int
    loss: float
    samples_per_s: float
    eta_s: float


def training_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def generator_of_step(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step. They depend on nothing else, so a resumed run draws what an unbroken one does."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def run_training(
    network: nn.Module,
    compute_loss: Callable[[int, torch.Generator], Tensor],
    options: LoopOptions,
    folder: Path,
    *,
    seed: int,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_sample: Callable[[int, nn.Module], None] = lambda step, averaged: None,
) -> nn.Module:
    """Train `network` in place and give back its averaged weights as a module of the same kind.

    Args:
        compute_loss: (step, generator) -> scalar; draws its batch with that generator alone.
        folder: where `training_state/` and `log.jsonl` lie; a run that finds a state there goes on from it.
        on_sample: told (step, averaged network) every `sample_every` steps and at the end.

    Raises:
        TrainingFailed: the loss is not a number; the last good state is kept.
        StorageFull: the state could not be written; the one before is kept.
    """
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(options.ema_decay))
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=options.learning_rate,
        weight_decay=options.weight_decay,
        betas=(0.9, 0.99),
        fused=True,
    )
    states = TrainingStates(folder / "training_state")
    done = states.load_newest(network, averaged, optimizer)
    log = LossLog(folder / "log.jsonl", keep_until=done)
    network.train()
    device_type = next(network.parameters()).device.type
    started, started_at, loss_sum, loss_count = time.monotonic(), done, 0.0, 0
    for step in range(done, options.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, options)
        with torch.autocast(device_type, torch.bfloat16, enabled=options.precision == "bf16"):
            loss = compute_loss(step, generator_of_step(seed, step))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingFailed(
                f"The loss became {value} at step {step}. The state of step {states.newest or 0} is kept in "
                f"{states.folder}; lower learning_rate and start again to go on from there."
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), options.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        averaged.update_parameters(network)
        loss_sum, loss_count = loss_sum + value, loss_count + 1
        taken, last = step + 1, step + 1 == options.steps
        if taken % options.log_every == 0 or last:
            seconds = time.monotonic() - started
            speed = (taken - started_at) * options.batch_size / seconds
            eta_s = (options.steps - taken) * seconds / (taken - started_at)
            log.write(step=taken, loss=loss_sum / loss_count, learning_rate=learning_rate_at(step, options))
            on_progress(Progress(taken, options.steps, loss_sum / loss_count, speed, eta_s))
            loss_sum, loss_count = 0.0, 0
        if taken % options.save_every == 0 or last:
            states.save(taken, network, averaged, optimizer)
        if taken % options.sample_every == 0 or last:
            averaged.module.eval()
            on_sample(taken, averaged.module)
    averaged.module.eval()
    return averaged.module


def learning_rate_at(step: int, options: LoopOptions) -> float:
    """Up over warmup_steps, level, and down to 0 over the last `cooldown` share."""
    up = (step + 1) / max(1, options.warmup_steps)
    down = (options.steps - step) / max(1.0, options.steps * options.cooldown)
    return options.learning_rate * min(1.0, up, down)


class TrainingStates:
    """What a run resumes from: weights, averages and optimiser, one file a state, the newest two kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def newest(self) -> int | None:
        """The step of the newest state."""
        steps = [int(path.stem.removeprefix("step-")) for path in self.folder.glob("step-*.pt")]
        return max(steps, default=None)

    def save(self, step: int, network: nn.Module, averaged: AveragedModel, optimizer: torch.optim.Optimizer) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(step)
        partial = path.with_suffix(".partial")
        state = {
            "step": step,
            "network": network.state_dict(),
            "averaged": averaged.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        try:
            with partial.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno != errno.ENOSPC:
                raise
            raise StorageFull(
                f"The disk of {self.folder} could not take the training state of step {step}. The one before is kept: "
                "make room and start the same command again."
            ) from error
        for old in sorted(self.folder.glob("step-*.pt"))[:-KEPT_STATES]:
            old.unlink()

    def load_newest(self, network: nn.Module, averaged: AveragedModel, optimizer: torch.optim.Optimizer) -> int:
        """Restore the newest state; its step, or 0 where there is none.

        Raises: InvalidRequest when the state is of a network of another shape.
        """
        step = self.newest
        if step is None:
            return 0
        state: dict[str, Any] = torch.load(self._path(step), map_location="cpu", weights_only=True)
        try:
            network.load_state_dict(state["network"])
            averaged.load_state_dict(state["averaged"])
            optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise InvalidRequest(
                f"{self._path(step)} belongs to a network of another shape than the recipe asks for. "
                "Restore the recipe, or give another folder to start afresh."
            ) from error
        return step

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.pt"


class LossLog:
    """One JSON line per report. Lines after the step that a run resumes from are dropped: that part is run again."""

    def __init__(self, path: Path, *, keep_until: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= keep_until]
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def write(self, **row: float) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
