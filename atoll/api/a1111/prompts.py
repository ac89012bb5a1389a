"""What stands in a prompt beside words: saved styles and LoRAs."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter

from atoll.api.a1111.scope import A1111Route, Doorway, From
from atoll.errors import InvalidRequest

router = APIRouter(route_class=A1111Route)

STYLES_FILE = "styles.csv"  # in the home: name, prompt, negative_prompt, as A1111 keeps it
_NETWORK = re.compile(r"<(lora|lyco|hypernet):([^:>]+)((?::[^:>]*)*)>")


@dataclass(frozen=True)
class Style:
    name: str
    prompt: str
    negative_prompt: str


@dataclass(frozen=True)
class PromptLora:
    """`<lora:name:weight>`."""

    name: str
    weight: float


def read_styles(home: Path) -> list[Style]:
    """Those in the home's styles.csv; none where there is no such file."""
    try:
        with (home / STYLES_FILE).open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    # Older files call the column "text".
    return [
        Style(row["name"], row.get("prompt") or row.get("text") or "", row.get("negative_prompt") or "")
        for row in rows
        if row.get("name")
    ]


def apply_styles(prompt: str, styles: Sequence[str]) -> str:
    """Each style's text behind the prompt, or around it where it holds `{prompt}`."""
    for style in styles:
        if "{prompt}" in style:
            prompt = style.replace("{prompt}", prompt)
        else:
            prompt = ", ".join(part for part in (prompt.strip(), style.strip()) if part)
    return prompt


def take_out_loras(prompt: str) -> tuple[str, list[PromptLora]]:
    """(the prompt without them, the LoRAs that it names in `<lora:name:weight>`).

    Raises: InvalidRequest for a weight that is no number, or a hypernetwork.
    """
    loras = []
    for kind, name, rest in _NETWORK.findall(prompt):
        if kind == "hypernet":
            raise InvalidRequest(f'The prompt names the hypernetwork "{name}"; Atoll does not use these. Take it out.')
        weight = rest.removeprefix(":").split(":")[0] or "1"
        try:
            value = float(weight)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InvalidRequest(
                f'The weight "{weight[:40]}" of the LoRA "{name}" is no number. Write <lora:{name}:0.8>.'
            )
        loras.append(PromptLora(name, value))
    return _NETWORK.sub("", prompt).strip() if loras else prompt, loras


@router.get("/sdapi/v1/prompt-styles")
def list_styles(door: Doorway, caller: From) -> list[dict[str, Any]]:
    return [vars(style) for style in read_styles(door.services.settings.home)]
