"""The loop: it learns, it resumes to the same curve, and it stops without losing what it had."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from atoll.errors import InvalidRequest, StorageFull, TrainingFailed
from atoll.training.loop import LoopOptions, generator_of_step, learning_rate_at, run_training

SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
from torch import nn
from atoll.training.loop import LoopOptions, run_training

torch.manual_seed(0)
network = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 4))

def compute_loss(step, generator):
    if step == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    batch = torch.randn(8, 4, generator=generator)
    return (network(batch) - batch.roll(1, 1)).pow(2).mean()

options = LoopOptions(steps=40, batch_size=8, learning_rate=1e-2, warmup_steps=5, save_every=10, log_every=1)
averaged = run_training(network, compute_loss, options, Path(sys.argv[1]), seed=5)
torch.save(averaged.state_dict(), Path(sys.argv[1]) / "averaged.pt")
"""


def run_script(folder, die_at):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder), str(die_at)], check=False, timeout=120
    ).returncode


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL is a POSIX signal")
def test_kill_and_resume_gives_the_same_curve_and_weights(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "训练 run"
    assert run_script(whole, die_at=-1) == 0
    assert run_script(broken, die_at=27) == -signal.SIGKILL
    assert run_script(broken, die_at=-1) == 0
    assert losses(broken) == losses(whole)
    assert losses(whole)[-1] < losses(whole)[0] / 2
    one, other = (torch.load(folder / "averaged.pt", weights_only=True) for folder in (whole, broken))
    assert all(torch.equal(one[name], other[name]) for name in one)


def options(**changes):
    return LoopOptions(
        **{"steps": 6, "batch_size": 1, "learning_rate": 1e-2, "save_every": 2, "log_every": 1, **changes}
    )


def linear_loss(network, generator):
    return network(torch.randn(8, 2, generator=generator)).pow(2).mean()


def test_a_loss_that_is_not_a_number_keeps_the_last_good_state(tmp_path):
    network = nn.Linear(2, 2)

    def compute_loss(step, generator):
        return linear_loss(network, generator) * (float("nan") if step == 5 else 1)

    with pytest.raises(TrainingFailed, match=r"nan at step 5. The state of step 4 is kept"):
        run_training(network, compute_loss, options(), tmp_path, seed=0)
    resumed = run_training(network, lambda step, g: linear_loss(network, g), options(), tmp_path, seed=0)
    assert all(parameter.isfinite().all() for parameter in resumed.parameters())


def test_a_full_disk_keeps_the_state_before(tmp_path, monkeypatch):
    network, save = nn.Linear(2, 2), torch.save

    def save_until_full(state, file):
        save(state, file)
        if state["step"] == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", save_until_full)
    with pytest.raises(StorageFull, match=r"step 4\. The one before is kept"):
        run_training(network, lambda step, g: linear_loss(network, g), options(), tmp_path, seed=0)
    assert [path.name for path in (tmp_path / "training_state").iterdir()] == ["step-00000002.pt"]


def test_a_state_of_another_network_is_refused_with_words(tmp_path):
    small, large = nn.Linear(2, 2), nn.Linear(3, 3)
    run_training(small, lambda step, g: linear_loss(small, g), options(), tmp_path, seed=0)
    with pytest.raises(InvalidRequest, match="another shape than the recipe"):
        run_training(large, lambda step, g: large(torch.ones(1, 3)).sum(), options(), tmp_path, seed=0)


def test_learning_rate_rises_holds_and_falls_to_nothing():
    plan = options(steps=100, learning_rate=1.0, warmup_steps=10, cooldown=0.2)
    assert learning_rate_at(0, plan) == pytest.approx(0.1)
    assert learning_rate_at(50, plan) == 1.0
    assert learning_rate_at(90, plan) == pytest.approx(0.5)
    assert 0 < learning_rate_at(99, plan) < 0.06


def test_the_random_numbers_of_a_step_depend_on_nothing_else():
    draw = [torch.rand(3, generator=generator_of_step(1, 2)) for _ in range(2)]
    assert torch.equal(*draw)
    assert not torch.equal(draw[0], torch.rand(3, generator=generator_of_step(1, 3)))
