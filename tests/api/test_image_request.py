"""What can be asked for, what is decided for the caller, and the graph that says it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.api.faults import FaultyRequest
from atoll.api.image_request import (
    BIGGEST_SEED,
    CompleteImageRequest,
    ImageDefaults,
    ImageRequest,
    StartImage,
    complete_request,
    graph_from_image_request,
    parse_image_request,
)
from atoll.api.infotext_request import request_from_infotext
from atoll.graph.graph import Graph
from atoll.graph.validate import validate_graph
from atoll.nodes.infotext import infotext_of
from atoll.nodes.registry import core_registry
from atoll.nodes.sampling import SAMPLER_NAMES, SCHEDULE_NAMES

DEFAULTS = ImageDefaults(width=128, height=128, num_inference_steps=12, guidance_scale=3.5)


class EveryFile:
    """Choices that hold whatever is named."""

    def names(self, kind: str) -> list[str]:
        return []

    def has(self, kind: str, name: str) -> bool:
        return True


def complete(init_size: tuple[int, int] | None = None, **values: Any) -> CompleteImageRequest:
    return complete_request(parse_image_request({"prompt": "a red apple", **values}), DEFAULTS, init_size)


def faults_of(**values: Any) -> list[str]:
    with pytest.raises(FaultyRequest) as caught:
        parse_image_request(values)
    return [fault.message for fault in caught.value.faults]


BAD_VALUES = [
    ("width", 517, "width 517 is not a multiple of 8; the nearest are 512 and 520."),
    ("height", 517, "height 517 is not a multiple of 8; the nearest are 512 and 520."),
    ("width", 8, "width 8 is too small; the smallest is 16."),
    ("width", 100_000, "width 100000 is too big; the biggest is 8192."),
    ("width", -8, "width -8 is too small; the smallest is 16."),
    ("num_inference_steps", 0, "num_inference_steps 0 is too small; the smallest is 1."),
    ("num_inference_steps", 10**30, f"num_inference_steps {10**30} is too big; the biggest is 1000."),
    ("guidance_scale", float("nan"), "guidance_scale is nan, which is not a finite number. Give a number such as 7.5."),
    ("guidance_scale", float("inf"), "guidance_scale is inf, which is not a finite number. Give a number such as 7.5."),
    ("guidance_scale", -1, "guidance_scale -1 is too small; the smallest is 0.0."),
    ("denoising_strength", 1.5, "denoising_strength 1.5 is too big; the biggest is 1.0."),
    ("batch_size", 0, "batch_size 0 is too small; the smallest is 1."),
    ("seed", -2, "seed -2 is too small; the smallest is -1."),
    ("seed", 2**64, f"seed {2**64} is too big; the biggest is {BIGGEST_SEED}."),
    ("sampler", "eulr", "sampler 'eulr' is not known. Did you mean \"euler\""),
    ("scheduler", "karas", "scheduler 'karas' is not known. Did you mean \"karras\"?"),
    ("prompt", "x" * 100_001, "prompt is 100001 characters long; the longest is 100000."),
    ("prompt", 7, "prompt is 7:"),
    ("stepz", 7, "stepz is not a known field."),
    ("mask_image", "mask.png", "mask_image needs init_image: the picture that it is a mask of."),
    ("only_masked", True, "only_masked needs mask_image: which part is to be worked on."),
]


@pytest.mark.parametrize(("field", "value", "sentence"), BAD_VALUES, ids=lambda value: f"{value}"[:30])
def test_a_bad_value_is_answered_in_words(field: str, value: Any, sentence: str) -> None:
    values = {field: value}
    if field == "only_masked":
        values["mask_image"] = None
    (message,) = faults_of(**values)
    assert message.startswith(sentence)


def test_every_fault_is_told_at_once() -> None:
    found = faults_of(width=517, height=9000, num_inference_steps=0, guidance_scale=float("nan"), sampler="x", foo=1)
    assert len(found) == 6


def test_many_big_pictures_are_too_many_pixels() -> None:
    (message,) = faults_of(width=8192, height=8192, batch_size=2)
    assert message.startswith("batch_size 2 of 8192 x 8192 pictures is more than 64 million pixels")


@pytest.mark.parametrize(
    ("written", "sampler", "scheduler"),
    [
        ("DPM++ 2M Karras", "dpmpp_2m", "karras"),
        ("DPM++ 2M SDE Exponential", "dpmpp_2m_sde", "exponential"),
        ("Euler a", "euler_ancestral", None),
        ("DPM2 a Karras", "dpm_2_ancestral", "karras"),
        ("UniPC", "uni_pc", None),
        ("PLMS", "plms", None),
        ("euler", "euler", None),
    ],
)
def test_familiar_sampler_names_are_understood(written: str, sampler: str, scheduler: str | None) -> None:
    request = parse_image_request({"sampler": written})
    assert (request.sampler, request.scheduler) == (sampler, scheduler)


def test_every_name_of_the_engine_is_its_own_alias() -> None:
    for name in SAMPLER_NAMES:
        assert parse_image_request({"sampler": name}).sampler == name
    for name in SCHEDULE_NAMES:
        assert parse_image_request({"scheduler": name.upper().replace("_", " ")}).scheduler == name


def test_a_named_schedule_beats_the_one_in_the_sampler_name() -> None:
    assert parse_image_request({"sampler": "DPM++ 2M Karras", "scheduler": "normal"}).scheduler == "normal"


def test_the_model_decides_what_is_left_open() -> None:
    request = complete()
    assert (request.width, request.height) == (128, 128)
    assert (request.num_inference_steps, request.guidance_scale) == (12, 3.5)
    assert complete(guidance_scale=0).guidance_scale == 0


def test_a_random_seed_becomes_a_real_one_and_a_given_one_stays() -> None:
    seeds = {complete(seed=-1).seed for _ in range(5)}
    assert len(seeds) == 5 and min(seeds) >= 0
    assert complete(seed=7).seed == 7


@given(st.integers(1, 9000), st.integers(1, 9000))
def test_a_start_image_of_any_size_gives_a_size_that_can_be_made(width: int, height: int) -> None:
    request = complete((width, height), init_image="photo.png")
    assert request.width % 8 == request.height % 8 == 0
    assert min(request.width, request.height) >= 16
    if min(width, height) >= 64 and max(width, height) <= 4 * min(width, height):
        assert request.width * request.height <= 1.3 * 128 * 128
        assert request.width / request.height == pytest.approx(width / height, rel=0.2)


def test_a_small_start_image_keeps_its_size() -> None:
    request = complete((64, 96), init_image="photo.png")
    assert (request.width, request.height) == (64, 96)


# --- graphs

REQUESTS: dict[str, tuple[dict[str, Any], StartImage | None]] = {
    "txt2img": ({}, None),
    "txt2img with everything": ({"vae": "v.safetensors", "clip_skip": 2, "batch_size": 3, "sampler": "lms"}, None),
    "img2img": ({"init_image": "a.png"}, StartImage((64, 64))),
    "img2img batch, other aspect": (
        {"init_image": "a.png", "width": 128, "height": 64, "batch_size": 2},
        StartImage((100, 301)),
    ),
    "inpaint": ({"init_image": "a.png", "mask_image": "m.png"}, StartImage((128, 128), (128, 128))),
    "inpaint by alpha": ({"init_image": "a.png", "mask_image": "a.png"}, StartImage((128, 128), (128, 128))),
    "inpaint, other aspect": (
        {"init_image": "a.png", "mask_image": "m.png", "width": 128, "height": 64, "mask_blur": 0},
        StartImage((100, 301), (200, 602)),
    ),
    "only masked": (
        {"init_image": "a.png", "mask_image": "m.png", "only_masked": True, "batch_size": 2},
        StartImage((517, 389), (517, 389)),
    ),
}


@pytest.mark.parametrize("inpainting_model", [False, True])
@pytest.mark.parametrize("name", REQUESTS)
def test_every_kind_of_request_becomes_a_valid_graph(name: str, inpainting_model: bool) -> None:
    values, start = REQUESTS[name]
    request = complete(start.size if start else None, **values)
    graph = graph_from_image_request(request, start=start, inpainting_model=inpainting_model)
    assert validate_graph(graph.to_api(), core_registry(), EveryFile()).strict() == graph
    (sampler,) = (node for node in graph.nodes.values() if node.class_type == "KSampler")
    assert sampler.inputs["seed"] == request.seed
    assert sampler.inputs["denoise"] == (1.0 if start is None else 0.75)


def test_a_plain_prompt_needs_only_nodes_that_comfyui_has_too() -> None:
    graph = graph_from_image_request(complete(clip_skip=2))
    assert not [node for node in graph.nodes.values() if node.class_type.startswith("Atoll")]


def test_strength_zero_touches_no_model() -> None:
    request = complete((128, 128), init_image="a.png", denoising_strength=0)
    graph = graph_from_image_request(request, start=StartImage((128, 128)))
    assert [node.class_type for node in graph.nodes.values()] == ["LoadImage", "SaveImage"]


def test_the_blur_is_measured_in_pixels_of_the_result() -> None:
    start = StartImage((128, 128), (512, 512))
    request = complete(start.size, init_image="a.png", mask_image="m.png", mask_blur=4)
    graph = graph_from_image_request(request, start=start)
    (blur,) = (node for node in graph.nodes.values() if node.class_type == "AtollBlurMask")
    assert blur.inputs["radius"] == 16


def test_an_infotext_gives_its_request_back() -> None:
    values = {
        "sampler": "Euler a",
        "scheduler": "karras",
        "seed": 11,
        "negative_prompt": "blurry, dark",
        "model": "tiny",
    }
    request = complete(**values, clip_skip=2)
    graph: Graph = graph_from_image_request(request)
    text = infotext_of(graph, list(graph.nodes)[-1], size=(request.width, request.height))
    again: ImageRequest = request_from_infotext(text)
    assert complete_request(again, DEFAULTS) == request


def test_an_infotext_of_a1111_is_read() -> None:
    request = request_from_infotext(
        "a cat, (fluffy:1.2)\nNegative prompt: dog\nSteps: 25, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 42, "
        "Size: 512x768, Model hash: 31e35c80fc, Model: v1-5-pruned, Clip skip: 2, Version: v1.6.0"
    )
    assert request == parse_image_request(
        {
            "prompt": "a cat, (fluffy:1.2)", "negative_prompt": "dog", "num_inference_steps": 25, "sampler": "dpmpp_2m",
            "scheduler": "karras", "guidance_scale": 6.5, "seed": 42, "width": 512, "height": 768,
            "model": "v1-5-pruned", "clip_skip": 2,
        }
    )  # fmt: skip
