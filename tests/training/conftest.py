"""A training set of four drawings, and a recipe small enough for a few seconds."""

import numpy as np
import pytest

from atoll.training.emoji_data import Sprite
from atoll.training.pictures import PictureFactory


@pytest.fixture
def sprites():
    """Four 256 px drawings with transparency: a disc and a bar, each in two colours."""
    rows, columns = np.mgrid[:256, :256]
    shapes = {
        "red disc": ((rows - 128) ** 2 + (columns - 128) ** 2 < 90**2, (220, 30, 30)),
        "green disc": ((rows - 128) ** 2 + (columns - 128) ** 2 < 90**2, (30, 160, 30)),
        "red bar": (abs(rows - 128) < 30, (220, 30, 30)),
        "green bar": (abs(columns - 128) < 30, (30, 160, 30)),
    }
    pixels = np.zeros((4, 256, 256, 4), np.uint8)
    for index, (inside, colour) in enumerate(shapes.values()):
        pixels[index][inside] = (*colour, 255)
    return [Sprite(name.replace(" ", "-"), name, "flat style", "none", f"{name}.svg") for name in shapes], pixels


@pytest.fixture
def pictures(sprites):
    backgrounds = {"white": (245, 245, 245), "blue": (70, 130, 220)}
    return PictureFactory(*sprites, backgrounds, picture_size=32, sprite_size=(24, 30), max_shift=1)
