"""What nodes do to how a network is asked: it does something, the right thing, and leaves no trace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from asked_unet import SD1, SIGMA, build_parts, some_latents, tell

from atoll.diffusion.guidance import build_denoiser
from atoll.diffusion.guides import perpendicular_guidance, rescaled_guidance
from atoll.diffusion.merging import merge_networks
from atoll.diffusion.model import Model
from atoll.diffusion.sigmas import NoiseSchedule
from atoll.diffusion.unet_patches import (
    AttentionMap,
    DeepShrink,
    FreeU,
    HyperTile,
    SelfAttentionGuidance,
    TokenMerging,
    blur_where_looked,
    scale_low_frequencies,
)
from atoll.errors import InvalidRequest
from atoll.nodes.resize import resize

POSITIVE, NEGATIVE = tell(1), tell(2)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(build_parts()["unet"], NoiseSchedule.from_config(SD1), name="tiny")


def ask(model: Model, guidance_scale: float = 3.0) -> torch.Tensor:
    with torch.no_grad():
        return build_denoiser(model, [POSITIVE], [NEGATIVE], guidance_scale)(some_latents(), SIGMA)


def shrink(**changes: Any) -> DeepShrink:
    values: dict[str, Any] = {
        "block": 1, "factor": 2.0, "start_sigma": 100.0, "end_sigma": 0.0, "after_skip": True,
        "down_method": "bicubic", "up_method": "bilinear", "resize": resize,
    }  # fmt: skip
    return DeepShrink(**(values | changes))


PATCHES = {
    "FreeU": FreeU((1.1, 1.2), (0.9, 0.2)),
    "FreeU_V2": FreeU((1.3, 1.4), (0.9, 0.2), by_structure=True),
    "HyperTile": HyperTile(4, 1, 0, scale_depth=False),
    "ToMe": TokenMerging(0.5),
    "shrink after the skip": shrink(),
    "shrink before the skip": shrink(after_skip=False),
    "shrink at the halving": shrink(block=2),
}


@pytest.mark.parametrize("name", PATCHES)
def test_a_patch_changes_the_answer_always_alike_and_leaves_no_trace(model: Model, name: str) -> None:
    before = ask(model)
    patched = replace(model, patches=(PATCHES[name],))
    first, again = ask(patched), ask(patched)
    assert first.isfinite().all() and torch.equal(first, again)
    assert not torch.allclose(first, before, atol=1e-3)
    assert torch.equal(ask(model), before)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.unet.modules())


NEUTRAL = {
    "FreeU": FreeU((1.0, 1.0), (1.0, 1.0)),
    "FreeU_V2": FreeU((1.0, 1.0), (1.0, 1.0), by_structure=True),
    "one tile": HyperTile(8, 1, 0, scale_depth=False),
    "nothing merged": TokenMerging(0.0),
    "shrunk by 1": shrink(factor=1.0),
    "shrunk later": shrink(start_sigma=1.0),
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_patch_of_no_effect_changes_nothing(model: Model, name: str) -> None:
    torch.testing.assert_close(ask(replace(model, patches=(NEUTRAL[name],))), ask(model), atol=1e-3, rtol=1e-3)


def test_only_the_lowest_frequencies_are_scaled() -> None:
    flat = torch.full((1, 2, 8, 8), 3.0)
    torch.testing.assert_close(scale_low_frequencies(flat, 0.2), flat * 0.2)
    stripes = torch.tensor([1.0, -1.0]).repeat(4).expand(1, 2, 8, 8)  # the highest there is
    torch.testing.assert_close(scale_low_frequencies(stripes, 0.2), stripes)


def test_rescaled_guidance_has_the_spread_of_the_positive_answer(model: Model) -> None:
    plain = ask(model, 9.0)
    torch.testing.assert_close(ask(replace(model, guide=rescaled_guidance(0.0)), 9.0), plain, atol=1e-3, rtol=1e-3)
    scale = (SIGMA**2 + 1).sqrt()

    def spread(denoised: torch.Tensor) -> torch.Tensor:
        return ((some_latents() / scale**2 - denoised) * scale / SIGMA).std(dim=(1, 2, 3))

    rescaled = ask(replace(model, guide=rescaled_guidance(1.0)), 9.0)
    torch.testing.assert_close(spread(rescaled), spread(ask(model, 1.0)), atol=1e-3, rtol=1e-3)
    assert (spread(plain) > spread(rescaled)).all()


def test_perpendicular_guidance_takes_away_only_what_is_not_wanted(model: Model) -> None:
    with torch.no_grad():
        positive, negative, empty = (
            build_denoiser(model, [tell(seed)], [], 1.0)(some_latents(), SIGMA) for seed in (1, 2, 3)
        )
    guided = ask(replace(model, guide=perpendicular_guidance([tell(3)], 1.0)), 3.0)
    wanted, removed = positive - empty, (positive - empty) - (guided - empty) / 3.0
    assert float((removed * wanted).sum()) == pytest.approx(0, abs=float(wanted.norm() ** 2) * 1e-3)
    rest = (negative - empty) - removed
    torch.testing.assert_close(rest, wanted * ((rest * wanted).sum() / wanted.norm() ** 2), atol=1e-2, rtol=1e-2)


def test_self_attention_guidance_of_no_strength_is_plain_guidance(model: Model) -> None:
    plain = ask(model)
    assert torch.equal(ask(replace(model, corrections=(SelfAttentionGuidance(0.0, 2.0),))), plain)
    corrected = ask(replace(model, corrections=(SelfAttentionGuidance(1.0, 2.0),)))
    assert corrected.isfinite().all() and not torch.allclose(corrected, plain, atol=1e-3)


def test_the_attention_that_is_recorded_adds_up(model: Model) -> None:
    seen = AttentionMap()
    with torch.no_grad(), seen.recorded(model.unet):
        build_denoiser(model, [POSITIVE], [], 1.0)(some_latents(), SIGMA)
    assert seen.weights is not None and seen.weights.shape[0] == 2 and seen.weights.shape[-1] == 16
    torch.testing.assert_close(seen.weights.sum(dim=-1), torch.ones(seen.weights.shape[:-1]))


def test_only_what_is_looked_at_is_blurred() -> None:
    clean = torch.randn(1, 4, 8, 8)
    weights = torch.zeros(1, 1, 16, 16)
    weights[..., 0] = 1.0  # all look at the left upper corner, a 2 x 2 of the latents
    blurred = blur_where_looked(clean, weights, 2.0)
    changed = (blurred != clean).any(dim=1)[0]
    assert changed[:2, :2].all() and changed.sum() == 4


def test_a_merge_goes_from_one_network_to_the_other(model: Model) -> None:
    torch.manual_seed(5)
    other = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2))
    first = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2))
    quarter = merge_networks(first, other, 0.25)
    torch.testing.assert_close(quarter[0].weight, first[0].weight * 0.25 + other[0].weight * 0.75)
    assert torch.equal(merge_networks(first, other, 1.0)[1].bias, first[1].bias)
    with pytest.raises(InvalidRequest, match="different families"):
        merge_networks(first, torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)), 0.5)
