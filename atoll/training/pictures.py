"""Training pictures: drawings on coloured backgrounds, with captions; drawn from a seed, so that a run repeats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from atoll.training.emoji_data import Sprite

# How people ask for the same picture; {a} is the article, {thing} the concept.
CAPTIONS = (
    *["{a} {thing}, {style}, {background} background"] * 6,
    "{thing}, {style}, {background} background",
    "{a} {thing} on a {background} background, {style}",
    "{style}, {a} {thing}, {background} background",
    "a picture of {a} {thing}, {background} background, {style}",
    "{a} {thing} in {style}",
    "{a} {thing}, {background} background",
    "{a} {thing}",
    "{thing}",
)
SHADE = 10  # levels of 255 that a background colour may stray from its name


@dataclass(frozen=True)
class PictureFactory:
    """Sets drawings on backgrounds.

    Args:
        sprites, pixels: what `load_sprites` gives.
        backgrounds: name -> (red, green, blue), 0..255.
        picture_size: pixels. sprite_size: smallest and largest drawing, pixels. max_shift: pixels off the middle.
    """

    sprites: list[Sprite]
    pixels: np.ndarray
    backgrounds: dict[str, tuple[int, int, int]]
    picture_size: int
    sprite_size: tuple[int, int]
    max_shift: int

    def draw(self, sprite: int, background: str, random: np.random.Generator) -> np.ndarray:
        """One picture, (picture_size, picture_size, 3) uint8."""
        colour = np.array(self.backgrounds[background]) + random.integers(-SHADE, SHADE + 1, 3)
        size = int(random.integers(self.sprite_size[0], self.sprite_size[1] + 1))
        picture = Image.new("RGB", (self.picture_size, self.picture_size), tuple(int(c) for c in colour.clip(0, 255)))
        drawing = Image.fromarray(np.asarray(self.pixels[sprite])).resize((size, size), Image.Resampling.LANCZOS)
        left, top = (self.picture_size - size) // 2 + random.integers(-self.max_shift, self.max_shift + 1, 2)
        picture.paste(drawing, (int(left), int(top)), drawing)
        return np.asarray(picture)

    def draw_batch(self, count: int, random: np.random.Generator) -> Tensor:
        """`count` pictures of any drawing on any background: (count, 3, size, size) in [-1, 1]."""
        names = list(self.backgrounds)
        drawn = [
            self.draw(int(random.integers(len(self.sprites))), names[int(random.integers(len(names)))], random)
            for _ in range(count)
        ]
        return pictures_to_tensor(np.stack(drawn))

    def caption(self, sprite: int, background: str, random: np.random.Generator) -> str:
        """One of the ways to ask for that picture."""
        form = CAPTIONS[int(random.integers(len(CAPTIONS)))]
        return build_caption(form, self.sprites[sprite], background)


def build_caption(form: str, sprite: Sprite, background: str) -> str:
    """Fill one of `CAPTIONS`."""
    article = "" if sprite.words.endswith("s") and not sprite.words.endswith("ss") else "a"
    if article and sprite.words[0] in "aeiou" and not sprite.words.startswith("uni"):
        article = "an"
    caption = form.format(a=article, thing=sprite.words, style=sprite.style, background=background)
    return " ".join(caption.split())


def pictures_to_tensor(pictures: np.ndarray) -> Tensor:
    """(batch, height, width, 3) uint8 -> (batch, 3, height, width) in [-1, 1]."""
    return torch.tensor(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
