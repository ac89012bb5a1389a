"""Prompts to conditioning: equal to diffusers for plain ones, and to the stated rules for the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from narrow_checkpoints import build_narrow_parts

from atoll.diffusion.checkpoint import load_checkpoint, load_text_encoder
from atoll.diffusion.prompt import parse_prompt
from atoll.diffusion.text import Chunk, TextEncoder, build_chunks, encode_prompt, load_built_in_tokenizer
from atoll.errors import InvalidRequest

START, END, COMMA = 49406, 49407, 267
RED, APPLE, BLUE = 736, 3055, 1746


@pytest.fixture(scope="module")
def text_encoder(tiny_checkpoint: Path) -> TextEncoder:
    return load_text_encoder(tiny_checkpoint, device="cpu", precision="fp32")


def chunks_of(prompt: str, syntax: str = "a1111", pad: str = "<|endoftext|>") -> list[Chunk]:
    tokenizer = load_built_in_tokenizer(pad)
    return build_chunks(parse_prompt(prompt, syntax), tokenizer, syntax)  # type: ignore[arg-type]


def words_of(chunk: Chunk) -> list[int]:
    return list(chunk.ids[1 : chunk.ids.index(END)])


@pytest.mark.parametrize("prompt", ["a red apple, 3d style", "", "Ünïcode 汉字 😀", "a " * 75])
def test_a_plain_prompt_equals_diffusers(prompt: str, tiny_checkpoint: Path, text_encoder: TextEncoder):
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_checkpoint, safety_checker=None)
    expected, _ = pipeline.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)
    conditioning = encode_prompt(text_encoder, prompt)
    torch.testing.assert_close(conditioning.embeds, expected, rtol=0, atol=0)
    assert conditioning.pooled is None


def test_sdxl_equals_diffusers(tmp_path: Path):
    parts = build_narrow_parts("sdxl")
    pipeline = StableDiffusionXLPipeline(
        **parts,
        tokenizer=load_built_in_tokenizer(),
        tokenizer_2=load_built_in_tokenizer("!"),
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear"),
    )
    pipeline.save_pretrained(tmp_path / "sdxl")
    checkpoint = load_checkpoint(tmp_path / "sdxl", device="cpu", precision="fp32")
    conditioning = encode_prompt(checkpoint.text_encoder, "a red apple")
    embeds, _, pooled, _ = pipeline.encode_prompt("a red apple", device="cpu", do_classifier_free_guidance=False)
    assert checkpoint.model.base == "sdxl"
    torch.testing.assert_close(conditioning.embeds, embeds, rtol=0, atol=0)
    torch.testing.assert_close(conditioning.pooled, pooled, rtol=0, atol=0)
    skipped, _, pooled, _ = pipeline.encode_prompt(
        "a red apple", device="cpu", do_classifier_free_guidance=False, clip_skip=1
    )
    conditioning = encode_prompt(checkpoint.text_encoder.with_clip_skip(3), "a red apple")
    torch.testing.assert_close(conditioning.embeds, skipped, rtol=0, atol=0)
    torch.testing.assert_close(conditioning.pooled, pooled, rtol=0, atol=0)


def test_clip_skip_takes_an_earlier_layer_normalised(text_encoder: TextEncoder):
    network = text_encoder.encoders[0].network
    ids = torch.tensor([[START, 320, RED, APPLE, *[END] * 73]])
    with torch.no_grad():
        hidden = network(ids, output_hidden_states=True).hidden_states
        for clip_skip in (1, 2, 4):
            expected = network.final_layer_norm(hidden[-clip_skip])
            embeds = encode_prompt(text_encoder.with_clip_skip(clip_skip), "a red apple").embeds
            torch.testing.assert_close(embeds, expected)
    assert text_encoder.clip_skip is None  # nobody else's encoder changed
    unskipped, last = (
        encode_prompt(one, "a red apple").embeds for one in (text_encoder, text_encoder.with_clip_skip(1))
    )
    torch.testing.assert_close(unskipped, last, rtol=0, atol=0)


@pytest.mark.parametrize("clip_skip", [0, -1, 5])
def test_an_impossible_clip_skip_is_refused_in_words(clip_skip: int, text_encoder: TextEncoder):
    with pytest.raises(InvalidRequest, match="this text encoder has layers 1 to 4"):
        text_encoder.with_clip_skip(clip_skip)


# --- chunks -----------------------------------------------------------------------------------------------------


def test_a_prompt_fills_as_many_chunks_as_it_needs(text_encoder: TextEncoder):
    for count, chunks in ((0, 1), (1, 1), (75, 1), (76, 2), (150, 2), (151, 3)):
        laid = chunks_of("red " * count)
        assert [len(words_of(chunk)) for chunk in laid][:-1] == [75] * (chunks - 1)
        assert sum(len(words_of(chunk)) for chunk in laid) == count
        assert all(len(chunk.ids) == 77 and chunk.ids[0] == START for chunk in laid)
    assert encode_prompt(text_encoder, "red " * 151).embeds.shape == (1, 3 * 77, 32)


def test_each_chunk_is_encoded_by_itself(text_encoder: TextEncoder):
    both = encode_prompt(text_encoder, "a red apple BREAK a blue car").embeds
    first, second = (encode_prompt(text_encoder, prompt).embeds for prompt in ("a red apple", "a blue car"))
    torch.testing.assert_close(both, torch.cat([first, second], dim=1))


def test_short_chunks_are_filled_with_what_the_encoder_was_trained_with():
    assert chunks_of("red")[0].ids == (START, RED, END, *[END] * 74)
    assert chunks_of("red", pad="!")[0].ids == (START, RED, END, *[0] * 74)


def test_a_full_chunk_gives_back_what_follows_a_near_comma():
    kept, moved = chunks_of("red " * 70 + ", " + "blue " * 10)
    assert (words_of(kept), words_of(moved)) == ([RED] * 70 + [COMMA], [BLUE] * 10)
    kept, moved = chunks_of("red " * 50 + ", " + "blue " * 30)  # the comma is too far back
    assert (len(words_of(kept)), words_of(moved)) == (75, [BLUE] * 6)
    kept, moved = chunks_of("red " * 75 + ", blue")
    assert (words_of(kept), words_of(moved)) == ([RED] * 75, [COMMA, BLUE])


def test_in_comfy_syntax_short_runs_are_not_cut_in_two():
    kept, moved = chunks_of("red " * 72 + "(blue blue blue blue:1.2)", "comfy")
    assert (words_of(kept), words_of(moved)) == ([RED] * 72, [BLUE] * 4)
    kept, moved = chunks_of("red " * 72 + "(" + "blue " * 10 + ":1.2)", "comfy")
    assert (words_of(kept), words_of(moved)) == ([RED] * 72 + [BLUE] * 3, [BLUE] * 7)


# --- emphasis ---------------------------------------------------------------------------------------------------


def test_weights_stay_with_their_tokens():
    [chunk] = chunks_of("a (red:1.3) [apple]")
    assert chunk.ids[:4] == (START, 320, RED, APPLE)
    assert chunk.weights == (1.0, 1.0, 1.3, pytest.approx(1 / 1.1), *[1.0] * 73)


def test_emphasis_moves_tokens_away_from_the_empty_prompt(text_encoder: TextEncoder):
    """ComfyUI's rule."""
    plain, empty = (encode_prompt(text_encoder, prompt).embeds for prompt in ("a red apple", ""))
    weighted = encode_prompt(text_encoder, "a (red:1.5) (apple:0)").embeds
    expected = plain.clone()
    expected[:, 2] = empty[:, 2] + 1.5 * (plain[:, 2] - empty[:, 2])
    expected[:, 3] = empty[:, 3]
    torch.testing.assert_close(weighted, expected)


def test_emphasis_in_a1111_keeps_the_mean(text_encoder: TextEncoder):
    plain = encode_prompt(text_encoder, "a red apple").embeds
    weighted = encode_prompt(text_encoder, "a (red:1.5) apple", emphasis="a1111").embeds
    multiplied = plain.clone()
    multiplied[:, 2] *= 1.5
    torch.testing.assert_close(weighted, multiplied * plain.mean() / multiplied.mean())
    torch.testing.assert_close(weighted.mean(), plain.mean())


@pytest.mark.parametrize("emphasis", ["comfy", "a1111"])
def test_a_weight_of_one_changes_nothing(emphasis: str, text_encoder: TextEncoder):
    plain = encode_prompt(text_encoder, "a red apple").embeds
    same = encode_prompt(text_encoder, "a (red:1.0) apple", emphasis=emphasis).embeds  # type: ignore[arg-type]
    torch.testing.assert_close(same, plain, rtol=0, atol=0)


def test_an_unknown_emphasis_is_refused_in_words(text_encoder: TextEncoder):
    with pytest.raises(InvalidRequest, match='Emphasis "loud" is unknown'):
        encode_prompt(text_encoder, "a cat", emphasis="loud")  # type: ignore[arg-type]


def test_the_built_in_vocabulary_is_openai_clips():
    """The ids in CLIP's own documentation and in every SD 1.x example."""
    tokenizer = load_built_in_tokenizer()
    assert len(tokenizer) == 49408
    assert tokenizer("a photo of a cat").input_ids == [START, 320, 1125, 539, 320, 2368, END]
    assert tokenizer("Hello,   WORLD!").input_ids == [START, 3306, 267, 1002, 256, END]
