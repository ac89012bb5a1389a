"""Uploaded pictures: their names, and what is refused."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atoll.artifacts import pictures
from atoll.artifacts.files import ArtifactFiles
from atoll.artifacts.input_files import InputFiles
from atoll.artifacts.pictures import load_frames, load_picture, rgb_and_alpha
from atoll.artifacts.thumbnail import thumbnail_of
from atoll.errors import InvalidRequest, NotFound


def picture(colour: str = "red", size: tuple[int, int] = (4, 3), format: str = "PNG", mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, format)
    return file.getvalue()


@pytest.fixture
def inputs(tmp_path: Path) -> InputFiles:
    return InputFiles(tmp_path / "inputs", ArtifactFiles(tmp_path / "artifacts"))


def test_equal_content_keeps_its_name_and_other_content_gets_a_number(inputs: InputFiles) -> None:
    names = [inputs.save_upload("cat.png", picture(colour)) for colour in ("red", "blue", "red", "green", "blue")]
    assert names == ["cat.png", "cat (1).png", "cat.png", "cat (2).png", "cat (1).png"]
    assert inputs.names() == ["cat (1).png", "cat (2).png", "cat.png"]
    assert inputs.path("cat.png").read_bytes() == inputs.path("cat.png [input]").read_bytes() == picture("red")


def test_overwriting_is_only_done_when_asked_for(inputs: InputFiles) -> None:
    inputs.save_upload("cat.png", picture("red"))
    before = inputs.digest("cat.png")
    assert inputs.save_upload("cat.png", picture("blue", (8, 8)), overwrite=True) == "cat.png"
    assert inputs.path("cat.png").read_bytes() == picture("blue", (8, 8))
    assert inputs.digest("cat.png") != before


def test_uploads_at_the_same_time_lose_nothing(inputs: InputFiles) -> None:
    contents = [picture(size=(width, 2)) for width in range(1, 17)]
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda content: inputs.save_upload("cat.png", content), contents))
    assert len(set(names)) == 16
    assert [inputs.path(name).read_bytes() for name in names] == contents


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("猫 咪.png", "猫 咪.png"),
        ("C:\\Users\\me\\cat.png", "C_/Users/me/cat.png"),
        ("../../etc/cron.d/cat.png", "etc/cron.d/cat.png"),
        ("/etc/passwd", "etc/passwd.png"),
        ("masks/cat.PNG", "masks/cat.png"),
        ('a<b>:"|?*\0\n.png', "a_b________.png"),
        ("con.png", "_con.png"),
        ("", "picture.png"),
        ("...", "picture.png"),
        ("cat.png [output]", "cat.png"),
        ("x" * 300 + ".png", "x" * 120 + ".png"),
        ("page.html", "page.html.png"),
    ],
)
def test_names_are_made_safe_and_stay_inside(inputs: InputFiles, sent: str, kept: str) -> None:
    assert inputs.save_upload(sent, picture()) == kept
    assert inputs.path(kept).resolve().is_relative_to(inputs.root.resolve())


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../b", "", "a\0b"])
def test_names_that_lead_elsewhere_are_refused(inputs: InputFiles, name: str) -> None:
    inputs.save_upload("cat.png", picture())
    with pytest.raises((InvalidRequest, NotFound)):
        inputs.path(name)


def test_a_finished_picture_can_be_named_as_input(inputs: InputFiles, tmp_path: Path) -> None:
    sha256 = ArtifactFiles(tmp_path / "artifacts").write(picture())
    assert inputs.path(f"{sha256}.png [output]").read_bytes() == picture()
    assert inputs.digest(f"{sha256} [temp]") == sha256
    with pytest.raises(NotFound):
        inputs.path("cat.png [output]")


def test_a_digest_is_read_again_only_when_the_file_changed(inputs: InputFiles) -> None:
    inputs.save_upload("cat.png", picture("red"))
    path, before = inputs.path("cat.png"), inputs.digest("cat.png")
    status = path.stat()
    path.write_bytes(b"x" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert inputs.digest("cat.png") == before  # same time, same size: not read
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert inputs.digest("cat.png") != before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a picture"),
        (b"I am a text.", "is not a picture in a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a picture in a known format"),
        (picture(size=(300, 300))[:200], "is damaged or incomplete"),
        (picture(size=(300, 300), format="JPEG")[:400], "is damaged or incomplete"),
        (picture(size=(9, 9), format="WEBP")[:30], "cannot be read|not a picture"),
    ],
)
def test_what_is_no_picture_is_refused_in_words_and_not_kept(inputs: InputFiles, content: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        inputs.save_upload("cat.png", content)
    assert inputs.names() == []


def test_giants_are_refused_before_they_are_decoded(inputs: InputFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = picture(0, (30_000, 30_000), mode="1")  # type: ignore[arg-type]
    assert len(bomb) < 1_000_000
    with pytest.raises(InvalidRequest, match=r"too many pixels|30000 x 30000"):
        inputs.save_upload("bomb.png", bomb)
    with pytest.raises(InvalidRequest, match=r"10000 x 10000; at most 81,000,000 pixels are taken. Scale it down"):
        inputs.save_upload("big.png", picture(0, (10_000, 10_000), mode="1"))  # type: ignore[arg-type]
    monkeypatch.setattr(pictures, "MAX_PIXELS", 30)
    with pytest.raises(InvalidRequest, match="4 x 3 x 3 frames"):
        load_picture(animation(), name="film.gif")


def animation() -> bytes:
    file = io.BytesIO()
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def test_an_animation_gives_its_frames() -> None:
    colours = [rgb_and_alpha(frame)[0][0, 0].tolist() for frame in load_frames(animation(), name="film.gif")]
    assert colours == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


def test_a_picture_that_lies_on_its_side_is_turned_upright() -> None:
    image = Image.new("RGB", (4, 2), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    assert load_picture(file.getvalue(), name="photo").size == (2, 4)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_every_kind_of_pixel_becomes_rgb(mode: str) -> None:
    image = Image.new("RGB", (4, 2), "white").convert(mode) if mode != "I;16" else None
    if image is None:
        image = Image.fromarray(np.full((2, 4), 65_535, dtype=np.uint16))
    file = io.BytesIO()
    image.save(file, "TIFF" if mode in ("CMYK", "F") else "PNG")
    colours, alpha = rgb_and_alpha(load_picture(file.getvalue(), name="any"))
    assert colours.tolist() == [[[255, 255, 255]] * 4] * 2
    assert (alpha is not None) == (mode in ("LA", "RGBA"))


def test_a_transparent_palette_counts_as_alpha() -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    file = io.BytesIO()
    image.save(file, "PNG", transparency=0)
    _, alpha = rgb_and_alpha(load_picture(file.getvalue(), name="palette"))
    assert alpha is not None and alpha.tolist() == [[0, 255]]


def test_a_thumbnail_is_small_made_once_and_white_where_transparent(tmp_path: Path) -> None:
    files = ArtifactFiles(tmp_path)
    file = io.BytesIO()
    Image.new("RGBA", (1000, 500), (0, 0, 0, 0)).save(file, "PNG")
    sha256 = files.write(file.getvalue())
    path = thumbnail_of(files, sha256)
    with Image.open(path) as small:
        assert (small.format, small.size, small.getpixel((5, 5))) == ("JPEG", (256, 128), (255, 255, 255))
    before = path.stat().st_mtime_ns
    assert thumbnail_of(files, sha256) == path
    assert path.stat().st_mtime_ns == before
    with pytest.raises(NotFound):
        thumbnail_of(files, "0" * 64)
