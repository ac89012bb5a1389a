"""What pictures say about themselves."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from atoll.artifacts.infotext import Infotext, format_infotext, parse_infotext
from atoll.artifacts.png import encode_png, read_png_text
from atoll.errors import InvalidRequest, NotFound

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pixels_and_texts_come_back_as_they_were(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, channels), dtype=np.uint8)
    texts = {"parameters": "苹果, a red apple\nSteps: 1", "prompt": json.dumps({"text": "é"}), "workflow": "{}" * 10}
    file = encode_png(pixels, texts)
    assert read_png_text(file) == texts
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(file))).reshape(pixels.shape), pixels)


def test_latin_text_goes_the_way_that_every_reader_knows() -> None:
    file = encode_png(PIXELS, {"parameters": "a red apple", "comment": "苹果"})
    assert b"tEXtparameters\0a red apple" in file
    assert b"iTXtcomment\0" in file


@pytest.mark.parametrize("keyword", ["", "图", " x", "x ", "x" * 80, "a\nb", "a\0b"])
def test_what_cannot_be_a_keyword_is_left_out_and_the_picture_kept(keyword: str) -> None:
    assert read_png_text(encode_png(PIXELS, {keyword: "lost", "x" * 79: "kept"})) == {"x" * 79: "kept"}


def test_pictures_of_other_programs_are_read(tmp_path: Path) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("parameters", "雪\nSteps: 20, Sampler: Euler a, Seed: 1", zip=True)
    chunks.add_text("prompt", "{}", zip=True)
    path = tmp_path / "有 spaces.png"
    Image.fromarray(PIXELS).save(path, pnginfo=chunks)
    assert read_png_text(path) == {"parameters": "雪\nSteps: 20, Sampler: Euler a, Seed: 1", "prompt": "{}"}


def test_what_is_no_png_is_refused_in_words(tmp_path: Path) -> None:
    text = tmp_path / "notes.png"
    text.write_text("I am a text.")
    with pytest.raises(InvalidRequest, match="is not a PNG file"):
        read_png_text(text)
    with pytest.raises(InvalidRequest, match="damaged"):
        read_png_text(encode_png(PIXELS, {"parameters": "x" * 500})[:150])
    with pytest.raises(NotFound):
        read_png_text(tmp_path / "nothing.png")
    bomb = PngImagePlugin.PngInfo()
    bomb.add_itxt("parameters", "x" * 2_000_000, zip=True)
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG", pnginfo=bomb)
    with pytest.raises(InvalidRequest, match="damaged"):
        read_png_text(file.getvalue())


WRITTEN_BY_A1111 = (
    "a cat, (fur:1.2)\nin the snow\nNegative prompt: dog,\nugly\n"
    "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 965400086, Size: 512x512, "
    'Model hash: 6ce0161689, Model: v1-5, Lora hashes: "ink: 1a2b, wash: 3c4d", Version: v1.9.4'
)


def test_a1111s_text_is_understood_and_written_again_letter_for_letter() -> None:
    infotext = parse_infotext(WRITTEN_BY_A1111)
    assert infotext.prompt == "a cat, (fur:1.2)\nin the snow"
    assert infotext.negative_prompt == "dog,\nugly"
    assert infotext.parameters["Seed"] == "965400086"
    assert infotext.parameters["Lora hashes"] == "ink: 1a2b, wash: 3c4d"
    assert format_infotext(infotext) == WRITTEN_BY_A1111


@pytest.mark.parametrize(
    "infotext",
    [
        Infotext("a red apple", "", {"Steps": "1", "Seed": "2", "Size": "8x8"}),
        Infotext("", "", {"Steps": "1", "Seed": "2", "Size": "8x8"}),
        Infotext("", "blurry", {"Steps": "1", "Seed": "2", "Model": 'a, "b": c\nd'}),
        Infotext("苹果\n\n雪", "x: 1, y: 2, z: 3", {"Steps": "1", "Seed": "2", "Model": "水墨 画"}),
    ],
)
def test_texts_survive_a_round_trip(infotext: Infotext) -> None:
    assert parse_infotext(format_infotext(infotext)) == infotext


def test_a_text_in_no_known_form_is_all_prompt() -> None:
    assert parse_infotext("just words: a, b") == Infotext("just words: a, b")
    assert parse_infotext("") == Infotext("")
