"""Drawings become captioned pictures, the same for the same seed."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from atoll.errors import InvalidRequest
from atoll.training.emoji_data import Sprite, build_emoji_data, load_sprites, read_concepts
from atoll.training.pictures import CAPTIONS, build_caption


def test_a_picture_shows_the_drawing_on_the_background(pictures):
    picture = pictures.draw(0, "blue", np.random.default_rng(0)).astype(int)
    assert picture.shape == (32, 32, 3)
    assert abs(picture[0, 0] - (70, 130, 220)).max() <= 10
    assert abs(picture[16, 16] - (220, 30, 30)).max() <= 2


def test_batches_repeat_by_seed_and_lie_between_minus_one_and_one(pictures):
    first, again, other = (pictures.draw_batch(6, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (6, 3, 32, 32)
    assert -1 <= first.min() < 0 < first.max() <= 1


def test_captions_name_thing_style_and_background():
    apple = Sprite("red-apple", "red apple", "3d style", "p", "f")
    assert build_caption(CAPTIONS[0], apple, "blue") == "a red apple, 3d style, blue background"
    words = ("owl", "scissors", "glass", "unicorn")
    owl, scissors, glass, unicorn = (Sprite(word, word, "flat style", "p", "f") for word in words)
    assert build_caption("{a} {thing}", owl, "blue") == "an owl"
    assert build_caption("{a} {thing}", scissors, "blue") == "scissors"
    assert build_caption("{a} {thing}", glass, "blue") == "a glass"
    assert build_caption("{a} {thing}", unicorn, "blue") == "a unicorn"


def test_the_concepts_file_gives_names_and_words(tmp_path):
    path = tmp_path / "concepts.txt"
    path.write_text("# animals\nt-rex = dinosaur\npine-tree  # evergreen\n\n", encoding="utf-8")
    assert read_concepts(path) == {"t-rex": "dinosaur", "pine-tree": "pine tree"}


@pytest.fixture
def packages(tmp_path):
    """Two small packages, unpacked where the builder keeps them: an SVG set and WebP files by code point."""
    svg, webp = (tmp_path / "data" / "packages" / name for name in ("svgs@1", "webps@1"))
    (webp / "assets").mkdir(parents=True)
    svg.mkdir()
    for folder in (svg, webp):
        (folder / "package.json").write_text("{}")
    icons = {"apple": {"body": '<circle cx="16" cy="16" r="12" fill="#f00"/>'}}
    (svg / "icons.json").write_text(json.dumps({"icons": icons, "width": 32, "height": 32}))
    (svg / "chars.json").write_text(json.dumps({"1f34e": "apple", "1f9ca": "ice"}))
    buffer = io.BytesIO()
    Image.new("RGBA", (64, 64), (0, 255, 0, 255)).save(buffer, "WEBP", lossless=True)
    (webp / "assets" / "1f34e.webp").write_bytes(buffer.getvalue())
    return tmp_path / "data"


STYLES = {"flat style": {"package": "svgs@1", "kind": "svg"}, "3d style": {"package": "webps@1", "kind": "webp"}}


def test_the_builder_draws_every_concept_in_every_style(packages):
    pytest.importorskip("resvg_py")
    build_emoji_data({"apple": "apple"}, STYLES, packages, say=lambda line: None)
    sprites, pixels = load_sprites(packages)
    assert [(sprite.words, sprite.style) for sprite in sprites] == [("apple", "flat style"), ("apple", "3d style")]
    assert pixels.shape == (2, 256, 256, 4)
    assert pixels[0, 128, 128].tolist() == [255, 0, 0, 255]
    assert pixels[0, 0, 0, 3] == 0
    assert pixels[1, 128, 128].tolist() == [0, 255, 0, 255]


def test_the_builder_names_every_missing_drawing(packages):
    pytest.importorskip("resvg_py")
    with pytest.raises(InvalidRequest, match=r"ice \(flat style\), ice \(3d style\)"):
        build_emoji_data({"apple": "apple", "ice": "ice"}, STYLES, packages, say=lambda line: None)
    with pytest.raises(InvalidRequest, match="atoll train data"):
        load_sprites(packages / "nowhere")
