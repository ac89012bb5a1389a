"""The text in which A1111 writes down how a picture was made, kept in the PNG chunk `parameters`.

a red apple
Negative prompt: blurry
Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x512, Model: lagoon, ...
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_NEGATIVE = "Negative prompt:"
# Name: value, where a value that holds a comma, a colon or a line break is quoted as JSON.
_PARAMETER = re.compile(r'\s*([\w][\w \-/]*):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_FEWEST_PARAMETERS = 3  # on the last line; with fewer it is taken as part of the prompt

# ComfyUI's names -> A1111's. DDIM, PLMS, LCM and DDPM have the same letters in both.
SAMPLER_LABELS = {
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "lms": "LMS",
    "dpmpp_2s_ancestral": "DPM++ 2S a",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_heun": "DPM++ 2M SDE Heun",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "ddpm": "DDPM",
    "lcm": "LCM",
    "ddim": "DDIM",
    "uni_pc": "UniPC",
    "ipndm": "IPNDM",
    "deis": "DEIS",
    "pndm": "PLMS",
    "plms": "PLMS",
}
SCHEDULE_LABELS = {
    "simple": "Simple",
    "sgm_uniform": "SGM Uniform",
    "karras": "Karras",
    "exponential": "Exponential",
    "ddim_uniform": "DDIM",
    "beta": "Beta",
    "normal": "Normal",
    "linear_quadratic": "Linear Quadratic",
    "kl_optimal": "KL Optimal",
}


@dataclass(frozen=True)
class Infotext:
    """What the text says. `parameters` keeps the order and A1111's names: Steps, Sampler, Seed, Size, ..."""

    prompt: str
    negative_prompt: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


def format_infotext(infotext: Infotext) -> str:
    """The text, exactly as A1111 would write it."""
    lines = [infotext.prompt]
    if infotext.negative_prompt:
        lines.append(f"{_NEGATIVE} {infotext.negative_prompt}")
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in infotext.parameters.items()))
    return "\n".join(lines).strip()


def parse_infotext(text: str) -> Infotext:
    """Read such a text, whoever wrote it. A text in no known form is all prompt."""
    *lines, last = text.strip().split("\n")
    parameters = {name: _unquoted(value) for name, value in _PARAMETER.findall(last)}
    if len(parameters) < _FEWEST_PARAMETERS:
        lines, parameters = [*lines, last], {}
    start = next((number for number, line in enumerate(lines) if line.startswith(_NEGATIVE)), len(lines))
    negative = "\n".join(lines[start:]).removeprefix(_NEGATIVE).strip()
    return Infotext("\n".join(lines[:start]).strip(), negative, parameters)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ',:\n"') else value


def _unquoted(value: str) -> str:
    if value.startswith('"') and value.endswith('"'):
        try:
            return str(json.loads(value))
        except ValueError:
            pass
    return value.strip()
