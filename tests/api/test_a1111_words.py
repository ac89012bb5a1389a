"""What A1111's clients write in prompts and names, read without any server."""

from __future__ import annotations

import pytest

from atoll.api.a1111.graphs import HiresPass, Plan, Words, graph_of
from atoll.api.a1111.plan import hires_size
from atoll.api.a1111.prompt_steps import texts_of_steps
from atoll.api.a1111.prompts import PromptLora, apply_styles, take_out_loras
from atoll.api.a1111.samplers import SAMPLERS, SCHEDULES, Sampling, resolve_sampling
from atoll.api.a1111.scope import Refused
from atoll.api.a1111.scripts import is_switched_on
from atoll.errors import InvalidRequest
from atoll.nodes.sampling import SAMPLER_NAMES, SCHEDULE_NAMES


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a [cat:dog:0.5]", ["a cat", "a cat", "a dog", "a dog"]),
        ("a [cat:dog:1]", ["a cat", "a dog", "a dog", "a dog"]),
        ("[late:3]", ["", "", "", "late"]),
        ("[early::1]", ["early", "", "", ""]),
        ("[a|b|c]", ["a", "b", "c", "a"]),
        ("[[a|b]:c:2]", ["a", "b", "c", "c"]),
        ("[(a:1.2):b:0.25]", ["(a:1.2)", "b", "b", "b"]),
        ("[a:b:.9]", ["a", "a", "a", "b"]),
        ("[a:b:9]", ["a"] * 4),
        ("(a:1.3), [b], [c:d], [e:f:g:0.5]", ["(a:1.3), [b], [c:d], [e:f:g:0.5]"] * 4),
        (r"\[a:b:2\]", [r"\[a:b:2\]"] * 4),
        ("[a:b:2", ["[a:b:2"] * 4),
        ("[" * 5000, ["[" * 5000] * 4),
        ("[" * 500 + "a:b:2" + "]" * 500, ["[" * 499 + said + "]" * 499 for said in "aabb"]),
    ],
)
def test_a_prompt_says_something_else_at_other_steps(prompt: str, said: list[str]) -> None:
    at_step = {
        step: wording.text for wording in texts_of_steps(prompt, 4) for span in wording.ranges for step in range(*span)
    }
    assert [at_step[step] for step in range(4)] == said


def test_a_prompt_that_changes_beyond_all_measure_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="more than 200 places"):
        texts_of_steps("[a|b]" * 20_000, 1000)
    turns = ["[" + "|".join(f"{count}.{number}" for number in range(count)) + "]" for count in (7, 11, 13)]
    with pytest.raises(InvalidRequest, match="1,000,000 characters"):
        texts_of_steps("".join(turns) + "word " * 1000, 1000)
    deep = "[a:" * 20_000 + "b" + ":1]" * 20_000  # ends, without asking too much of Python
    assert texts_of_steps(deep, 4)


@pytest.mark.parametrize(("when", "change"), [("1.5", 2), ("0.5", 0), ("6", 2), ("3", 0), ("2.0", 4)])
def test_in_a_second_pass_steps_are_counted_on(when: str, change: int) -> None:
    said = texts_of_steps(f"[a:b:{when}]", 4, steps_before=4)
    before = [span for wording in said if wording.text == "a" for span in wording.ranges]
    assert before == ([(0, change)] if change else [])


def test_loras_leave_the_prompt() -> None:
    assert take_out_loras("a cat <lora:ink wash:0.8>, <lyco:b>") == (
        "a cat ,",
        [PromptLora("ink wash", 0.8), PromptLora("b", 1.0)],
    )
    assert take_out_loras("a < b > c") == ("a < b > c", [])
    with pytest.raises(InvalidRequest, match="no number"):
        take_out_loras("<lora:ink:much>")
    with pytest.raises(InvalidRequest, match="hypernetwork"):
        take_out_loras("<hypernet:x:1>")


def test_styles_stand_behind_the_prompt_or_around_it() -> None:
    assert apply_styles("a cat", ["ink", "a drawing of {prompt}", ""]) == "a drawing of a cat, ink"
    assert apply_styles("", ["ink"]) == "ink"


@pytest.mark.parametrize(
    ("name", "scheduler", "meant"),
    [
        ("Euler", None, ("euler", "normal")),
        ("Euler a", "Automatic", ("euler_ancestral", "normal")),
        ("k_euler_a", "karras", ("euler_ancestral", "karras")),
        ("DPM++ 2M", None, ("dpmpp_2m", "karras")),
        ("DPM++ 2M Karras", None, ("dpmpp_2m", "karras")),
        ("DPM++ 2M Karras", "exponential", ("dpmpp_2m", "exponential")),
        ("DPM++ 2M SDE Exponential", "", ("dpmpp_2m_sde", "exponential")),
        ("DPM++ SDE", "automatic", ("dpmpp_sde", "karras")),
        ("dpmpp_3m_sde", "SGM Uniform", ("dpmpp_3m_sde", "sgm_uniform")),
        ("DDIM", None, ("ddim", "ddim_uniform")),
        ("UniPC", "Beta", ("uni_pc", "beta")),
    ],
)
def test_samplers_and_schedules_in_every_spelling(name: str, scheduler: str | None, meant: tuple[str, str]) -> None:
    sampling = resolve_sampling(name, scheduler)
    assert (sampling.sampler, sampling.schedule) == meant


@pytest.mark.parametrize(("name", "scheduler"), [("Eulr", None), ("Euler", "carras"), ("", None), ("Karras", None)])
def test_unknown_samplers_and_schedules_are_refused_with_the_known_ones(name: str, scheduler: str | None) -> None:
    with pytest.raises(Refused, match="There are: ") as caught:
        resolve_sampling(name, scheduler)
    assert caught.value.status == 400


def test_every_name_that_is_listed_can_be_sampled_with() -> None:
    for sampler in SAMPLERS:
        for schedule in SCHEDULES:
            sampling = resolve_sampling(sampler.name, schedule.label)
            assert sampling.sampler in SAMPLER_NAMES and sampling.schedule in SCHEDULE_NAMES


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((512, 512, 2.0, 0, 0), (1024, 1024)),
        ((512, 768, 1.5, 0, 0), (768, 1152)),
        ((512, 512, 2.0, 1024, 768), (1024, 768)),
        ((512, 768, 2.0, 1024, 0), (1024, 1536)),
        ((512, 768, 2.0, 0, 1536), (1024, 1536)),
        ((512, 512, 1.3, 0, 0), (664, 664)),
    ],
)
def test_a_hires_fix_has_the_size_that_a1111_gives_it(
    size: tuple[int, int, float, int, int], expected: tuple[int, int]
) -> None:
    assert hires_size(*size) == expected


@pytest.mark.parametrize(
    ("settings", "on"),
    [
        ({"args": []}, False),
        ({"args": [False]}, False),
        ({"args": [False, True, {}]}, False),
        ({"args": [True, {"ad_model": "x"}]}, True),
        ({"args": [{"enabled": False, "model": "canny"}]}, False),
        ({"args": [{"model": "None", "module": "none", "image": ""}]}, False),
        ({"args": [{"model": "canny"}]}, True),
        ({"args": {"enable": False}}, False),
        ({}, False),
        ([], False),
        ({"args": ["a picture"]}, True),
    ],
)
def test_an_extension_that_is_switched_off_asks_for_nothing(settings: object, on: bool) -> None:
    assert is_switched_on(settings) is on


def test_loras_and_upscaling_networks_have_their_place_in_the_graph() -> None:
    """No node runs them yet; the door asks for them as soon as there is one."""
    sampling = Sampling("euler", "normal", "Euler")
    words = Words("a cat", "", ("a cat <lora:ink:0.8>", ""), (PromptLora("ink.safetensors", 0.8),))
    hires = HiresPass(128, 128, False, 4, 0.5, words, sampling, upscale_model="x4.pth")
    plan = Plan("lagoon", words, sampling, 4, 7.0, 64, 64, 1, seed=1, hires=hires)
    graph = graph_of(plan)
    by_class = {node.class_type: (node_id, node) for node_id, node in graph.nodes.items()}
    lora_id, lora = by_class["LoraLoader"]
    assert (lora.inputs["lora_name"], lora.inputs["strength_model"]) == ("ink.safetensors", 0.8)
    assert by_class["KSampler"][1].inputs["model"] == (lora_id, 0)
    encoded = [node for node in graph.nodes.values() if node.class_type == "AtollTextEncode"]
    assert encoded[0].inputs["clip"] == (lora_id, 1) and encoded[0].meta["prompt"] == "a cat <lora:ink:0.8>"
    scaled = by_class["ImageScale"][1].inputs["image"]
    assert graph.nodes[scaled.node_id].class_type == "ImageUpscaleWithModel"
