"""Loaders that put together, or say more about, what lies in files. Nothing is loaded here."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from atoll.diffusion.model import Model
from atoll.diffusion.sigmas import NoiseSchedule
from atoll.diffusion.text import ClipText, TextEncoder
from atoll.errors import InvalidRequest
from atoll.nodes import loaders

SCHEDULE = NoiseSchedule.from_config({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012})


def clip(hidden_size: int, *, projects: bool) -> TextEncoder:
    layers = SimpleNamespace(layers=[None] * 12)
    network = SimpleNamespace(config=SimpleNamespace(hidden_size=hidden_size), encoder=layers)
    if projects:
        network.text_projection = object()
    return TextEncoder((ClipText(tokenizer=None, network=network),))  # type: ignore[arg-type]


@dataclass
class Checkpoint:
    model: Model
    text_encoder: TextEncoder
    vae: str = "the vae"


FILES = {"l": clip(768, projects=False), "g": clip(1280, projects=True)}


class Models:
    """Stands for the shelf."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []

    def text_encoder(self, name: str, *, device: str | None = None) -> TextEncoder:
        self.asked.append((name, device))
        return FILES[name]

    def checkpoint(self, name: str) -> Checkpoint:
        return Checkpoint(Model(object(), SCHEDULE, name=name), FILES["l"])  # type: ignore[arg-type]


@pytest.fixture
def context() -> Any:
    return SimpleNamespace(models=Models())


@pytest.mark.parametrize("names", [("l", "g"), ("g", "l")])
def test_sdxls_two_encoders_come_in_either_order(context: Any, names: tuple[str, str]) -> None:
    pair = loaders.load_two_clips(context, clip_name1=names[0], clip_name2=names[1], type="sdxl", device="cpu")
    assert [encoder.network.config.hidden_size for encoder in pair.encoders] == [768, 1280]
    assert all(encoder.default_clip_skip == 2 and not encoder.normalized for encoder in pair.encoders)
    assert context.models.asked == [(name, "cpu") for name in names]
    assert FILES["l"].encoders[0].normalized  # what was loaded stays as it was


def test_two_of_one_kind_are_no_pair(context: Any) -> None:
    with pytest.raises(InvalidRequest, match="CLIP-L and CLIP-G"):
        loaders.load_two_clips(context, clip_name1="l", clip_name2="l", type="sdxl")


@pytest.mark.parametrize(
    ("config", "prediction", "clip_skip"),
    [
        ("v1-inference.yaml", "epsilon", None),
        ("anything_v3.yaml", "epsilon", 2),
        ("v2-inference-v_fp32.yaml", "v_prediction", None),
    ],
)
def test_a_configurations_name_says_what_a_file_does_not(
    context: Any, config: str, prediction: str, clip_skip: int | None
) -> None:
    model, text_encoder, vae = loaders.load_checkpoint_with_config(context, config_name=config, ckpt_name="old.ckpt")
    assert (model.name, model.noise_schedule.prediction_type, vae) == ("old.ckpt", prediction, "the vae")
    assert text_encoder.clip_skip == clip_skip
    assert SCHEDULE.prediction_type == "epsilon"


def test_other_pairs_are_refused_before_the_job_runs() -> None:
    spec = loaders.load_two_clips.__node_spec__  # type: ignore[attr-defined]
    assert list(spec.check({"type": "sdxl"})) == []
    assert "not supported" in next(iter(spec.check({"type": "flux"})))[1]
