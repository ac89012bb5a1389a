"""Laws of the stylesheet: every text can be read, nothing comes from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import atoll.web
from atoll.api.image_request import ImageDefaults
from atoll.web.prompt_form import native_sizes

WEB = Path(atoll.web.__file__).parent
CSS = (WEB / "studio.css").read_text(encoding="utf-8")
READABLE = 4.5  # WCAG 2.2, 1.4.3, level AA
VISIBLE = 3.0  # WCAG 2.2, 1.4.11: outlines of controls


def colours(selector: str) -> dict[str, str]:
    block = re.search(re.escape(selector) + r" \{(.*?)\n\}", CSS, re.DOTALL)
    assert block is not None
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block[1]))


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [":root", ".body--dark"])
def test_text_stands_out_from_every_ground_it_is_on(theme: str) -> None:
    named = colours(theme)
    for text in ("text", "muted"):
        for ground in ("bg", "panel", "raise"):
            assert contrast(named[text], named[ground]) >= READABLE, (text, ground)
    assert contrast(named["on-accent"], named["accent"]) >= READABLE
    assert contrast(named["accent"], named["soft"]) >= READABLE
    assert contrast(named["danger"], named["danger-soft"]) >= READABLE
    assert contrast(named["danger"], named["panel"]) >= READABLE
    assert contrast(named["line-strong"], named["panel"]) >= VISIBLE


def test_nothing_comes_from_another_site() -> None:
    for path in WEB.iterdir():
        if path.suffix in (".css", ".js", ".py"):
            assert not re.search(r"https?://|@import|url\(", path.read_text(encoding="utf-8")), path.name


@pytest.mark.parametrize("side", [128, 512, 768, 1024])
def test_native_sizes_keep_the_model_s_number_of_pixels(side: int) -> None:
    sizes = native_sizes(ImageDefaults(width=side, height=side))
    assert sizes["square"] == (side, side)
    assert sizes["portrait"] == sizes["landscape"][::-1]
    for width, height in sizes.values():
        assert width % 8 == height % 8 == 0
        assert 0.8 <= width * height / side**2 <= 1.2
