"""Pictures with names, out of packages of openly licensed drawings.

The drawings are fetched by `npm pack`, which checks each package against its published digest, and turned into one
array of square drawings with transparency. The result lies in a folder of its own and is never part of a release:

    FOLDER/sprites.npy       (drawings, 256, 256, 4) uint8, straight alpha
    FOLDER/sprites.json      a row per drawing: concept, words, style, package, file
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from atoll.errors import InvalidRequest, MissingDependency

SPRITE_SIZE = 256  # pixels, the size of the 3D drawings


@dataclass(frozen=True)
class Sprite:
    """One drawing: which concept, in which words and style, and where it came from."""

    concept: str
    words: str
    style: str
    package: str
    file: str


def read_concepts(path: Path) -> dict[str, str]:
    """Concept names and the words for them: lines `name` or `name = words`; `#` starts a comment."""
    concepts = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, words = (part.strip() for part in line.partition("#")[0].partition("="))
        if name:
            concepts[name] = words or name.replace("-", " ")
    return concepts


def build_emoji_data(
    concepts: dict[str, str], styles: dict[str, dict[str, str]], folder: Path, *, say: Callable[[str], None] = print
) -> list[Sprite]:
    """Fetch the packages and write `sprites.npy` and `sprites.json` into `folder`.

    Args:
        concepts: Fluent Emoji name -> words, see `read_concepts`.
        styles: style -> {"package": "name@version", "kind": "webp" or "svg"}. A "webp" package names its files by code
            point, an "svg" one is an Iconify set that names them by Fluent Emoji name.

    Raises: MissingDependency without npm or resvg; InvalidRequest naming every concept that a package lacks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unpacked = {style: _unpack(source["package"], folder / "packages", say) for style, source in styles.items()}
    icons = {style: _read_json(unpacked[style] / "icons.json") for style, s in styles.items() if s["kind"] == "svg"}
    named = next(iter(style for style, source in styles.items() if source["kind"] == "svg"), None)
    if named is None:
        raise InvalidRequest('One style must be of kind "svg": it tells the code point of each concept.')
    code_points: dict[str, list[str]] = {}
    for code_point, name in _read_json(unpacked[named] / "chars.json").items():
        code_points.setdefault(name, []).append(code_point)

    sprites: list[Sprite] = []
    pixels: list[np.ndarray] = []
    missing: list[str] = []
    for concept, words in concepts.items():
        for style, source in styles.items():
            if source["kind"] == "svg":
                file, picture = f"{concept}.svg", _draw_svg(icons[style], concept)
            else:
                file, picture = _find_webp(unpacked[style] / "assets", code_points.get(concept, []))
            if picture is None:
                missing.append(f"{concept} ({style})")
                continue
            sprites.append(Sprite(concept, words, style, source["package"], file))
            pixels.append(
                np.asarray(picture.convert("RGBA").resize((SPRITE_SIZE, SPRITE_SIZE), Image.Resampling.LANCZOS))
            )
    if missing:
        raise InvalidRequest(f"No drawing in the packages for: {', '.join(missing)}. Remove them from the concepts.")
    np.save(folder / "sprites.npy", np.stack(pixels))
    (folder / "sprites.json").write_text(json.dumps([asdict(s) for s in sprites], indent=1), encoding="utf-8")
    say(f"{len(sprites)} drawings of {len(concepts)} concepts in {folder}")
    return sprites


def load_sprites(folder: Path) -> tuple[list[Sprite], np.ndarray]:
    """The rows and the (drawings, 256, 256, 4) uint8 array that `build_emoji_data` wrote."""
    if not (folder / "sprites.json").is_file():
        raise InvalidRequest(f"There is no training data in {folder}. Build it first: atoll train data RECIPE")
    rows = json.loads((folder / "sprites.json").read_text(encoding="utf-8"))
    return [Sprite(**row) for row in rows], np.load(folder / "sprites.npy", mmap_mode="r")


def _unpack(package: str, folder: Path, say: Callable[[str], None]) -> Path:
    target = folder / package.replace("/", "+")
    if (target / "package.json").is_file():
        return target
    npm = shutil.which("npm")
    if npm is None:
        raise MissingDependency("npm is not installed; it fetches the drawings. Install Node.js and run this again.")
    say(f"fetching {package}")
    folder.mkdir(parents=True, exist_ok=True)
    packed = subprocess.run(
        [npm, "pack", "--silent", "--json", "--pack-destination", str(folder), package],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    archives = sorted(folder.glob("*.tgz"), key=lambda path: path.stat().st_mtime)
    if packed.returncode or not archives:
        raise InvalidRequest(f"npm could not fetch {package}: {packed.stderr.strip() or packed.stdout.strip()}")
    partial = target.with_name(target.name + ".partial")
    with tarfile.open(archives[-1]) as archive:
        archive.extractall(partial, filter="data")
    (partial / "package").rename(target)
    partial.rmdir()
    archives[-1].unlink()
    return target


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _draw_svg(icons: dict[str, Any], name: str) -> Image.Image | None:
    """Draw one icon of an Iconify set."""
    name = icons.get("aliases", {}).get(name, {}).get("parent", name)
    icon = icons["icons"].get(name)
    if icon is None:
        return None
    try:
        import resvg_py  # an extra: only who trains needs it
    except ImportError as error:
        raise MissingDependency(
            "resvg-py is not installed; it draws SVG. Run: pip install 'atoll[training-data]'"
        ) from error
    width, height = icon.get("width", icons["width"]), icon.get("height", icons["height"])
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
    drawn = resvg_py.svg_to_bytes(svg_string=svg, width=SPRITE_SIZE, height=SPRITE_SIZE)
    return Image.open(io.BytesIO(bytes(drawn)))


def _find_webp(assets: Path, code_points: list[str]) -> tuple[str, Image.Image | None]:
    for code_point in code_points:
        for name in (f"{code_point}.webp", f"{code_point}-fe0f.webp"):
            if (assets / name).is_file():
                return name, Image.open(assets / name)
    return "", None
