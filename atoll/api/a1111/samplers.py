"""GET samplers and schedulers, and what A1111's names for them mean here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter

from atoll.api.a1111.scope import A1111Route, From, Refused
from atoll.nodes.sampling import SAMPLER_NAMES, SCHEDULE_NAMES

router = APIRouter(route_class=A1111Route)

AUTOMATIC = "automatic"


@dataclass(frozen=True)
class SamplerName:
    """A sampler in A1111's words. comfy: the name that nodes have. automatic: the schedule it has unless told."""

    name: str
    comfy: str
    aliases: tuple[str, ...]
    automatic: str = "normal"


@dataclass(frozen=True)
class ScheduleName:
    """A schedule in A1111's words. comfy: "" for the sampler's own."""

    name: str
    label: str
    comfy: str
    default_rho: float = -1.0
    need_inner_model: bool = False


_ALL_SAMPLERS = (
    SamplerName("DPM++ 2M", "dpmpp_2m", ("k_dpmpp_2m",), "karras"),
    SamplerName("DPM++ SDE", "dpmpp_sde", ("k_dpmpp_sde",), "karras"),
    SamplerName("DPM++ 2M SDE", "dpmpp_2m_sde", ("k_dpmpp_2m_sde",), "exponential"),
    SamplerName("DPM++ 2M SDE Heun", "dpmpp_2m_sde_heun", ("k_dpmpp_2m_sde_heun",), "exponential"),
    SamplerName("DPM++ 2S a", "dpmpp_2s_ancestral", ("k_dpmpp_2s_a",), "karras"),
    SamplerName("DPM++ 3M SDE", "dpmpp_3m_sde", ("k_dpmpp_3m_sde",), "exponential"),
    SamplerName("Euler a", "euler_ancestral", ("k_euler_a", "k_euler_ancestral")),
    SamplerName("Euler", "euler", ("k_euler",)),
    SamplerName("LMS", "lms", ("k_lms",)),
    SamplerName("Heun", "heun", ("k_heun",)),
    SamplerName("DPM2", "dpm_2", ("k_dpm_2",), "karras"),
    SamplerName("DPM2 a", "dpm_2_ancestral", ("k_dpm_2_a",), "karras"),
    SamplerName("DPM fast", "dpm_fast", ("k_dpm_fast",)),
    SamplerName("DPM adaptive", "dpm_adaptive", ("k_dpm_ad",)),
    SamplerName("Restart", "restart", ("restart",), "karras"),
    SamplerName("HeunPP2", "heunpp2", ("heunpp2",)),
    SamplerName("IPNDM", "ipndm", ("ipndm",)),
    SamplerName("IPNDM_V", "ipndm_v", ("ipndm_v",)),
    SamplerName("DEIS", "deis", ("deis",)),
    SamplerName("DDIM", "ddim", ("ddim",), "ddim_uniform"),
    SamplerName("PLMS", "plms", ("plms",), "ddim_uniform"),
    SamplerName("UniPC", "uni_pc", ("unipc",)),
    SamplerName("LCM", "lcm", ("k_lcm",), "sgm_uniform"),
    SamplerName("DDPM", "ddpm", ("ddpm",)),
)
SAMPLERS = tuple(sampler for sampler in _ALL_SAMPLERS if sampler.comfy in SAMPLER_NAMES)

_ALL_SCHEDULES = (
    ScheduleName("automatic", "Automatic", ""),
    ScheduleName("uniform", "Uniform", "normal", need_inner_model=True),
    ScheduleName("karras", "Karras", "karras", default_rho=7.0),
    ScheduleName("exponential", "Exponential", "exponential"),
    ScheduleName("polyexponential", "Polyexponential", "exponential", default_rho=1.0),  # with rho 1 it is that one
    ScheduleName("sgm_uniform", "SGM Uniform", "sgm_uniform", need_inner_model=True),
    ScheduleName("kl_optimal", "KL Optimal", "kl_optimal"),
    ScheduleName("simple", "Simple", "simple", need_inner_model=True),
    ScheduleName("normal", "Normal", "normal", need_inner_model=True),
    ScheduleName("ddim", "DDIM", "ddim_uniform", need_inner_model=True),
    ScheduleName("beta", "Beta", "beta", need_inner_model=True),
)
SCHEDULES = tuple(schedule for schedule in _ALL_SCHEDULES if not schedule.comfy or schedule.comfy in SCHEDULE_NAMES)


@dataclass(frozen=True)
class Sampling:
    """What a request's names mean: ComfyUI's names for the graph, and A1111's for the answer."""

    sampler: str
    schedule: str
    name: str


def resolve_sampling(name: str, scheduler: str | None) -> Sampling:
    """Both from a sampler's name, in any spelling ("DPM++ 2M Karras" names two things), and a schedule's, if given.

    Raises: Refused 400.
    """
    sampler, rest = _sampler_of(name), ""
    if sampler is None:  # an old name, with the schedule behind it
        for schedule in SCHEDULES:
            stem = name[: -len(schedule.label)].strip()
            if schedule.comfy and _plain(name).endswith(_plain(schedule.label)) and (found := _sampler_of(stem)):
                sampler, rest = found, schedule.name
    if sampler is None:
        known = ", ".join(known.name for known in SAMPLERS)
        raise Refused(f'There is no sampler "{name[:60]}" here. There are: {known}.', 400)
    asked = scheduler if scheduler and _plain(scheduler) != AUTOMATIC else rest
    if not asked:
        return Sampling(sampler.comfy, sampler.automatic, sampler.name)
    return Sampling(sampler.comfy, _schedule_of(asked), sampler.name)


def _sampler_of(name: str) -> SamplerName | None:
    return _SAMPLER_OF.get(_plain(name))


def _schedule_of(name: str) -> str:
    found = _SCHEDULE_OF.get(_plain(name))
    if found is None:
        known = ", ".join(known.label for known in SCHEDULES)
        raise Refused(f'There is no schedule "{name[:60]}" here. There are: {known}.', 400)
    return found


def _plain(name: str) -> str:
    """Spelling apart: "DPM++ 2M" and "dpmpp_2m" are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp"))


_SAMPLER_OF = {
    _plain(spelling): sampler for sampler in SAMPLERS for spelling in (*sampler.aliases, sampler.comfy, sampler.name)
}
_SCHEDULE_OF = {_plain(comfy): comfy for comfy in SCHEDULE_NAMES} | {
    _plain(spelling): schedule.comfy for schedule in SCHEDULES for spelling in (schedule.name, schedule.label)
}


@router.get("/sdapi/v1/samplers")
async def list_samplers(caller: From) -> list[dict[str, Any]]:
    return [
        {
            "name": sampler.name,
            "aliases": list(sampler.aliases),
            "options": {"scheduler": sampler.automatic} if sampler.automatic in ("karras", "exponential") else {},
        }
        for sampler in SAMPLERS
    ]


@router.get("/sdapi/v1/schedulers")
async def list_schedulers(caller: From) -> list[dict[str, Any]]:
    return [
        {
            "name": schedule.name,
            "label": schedule.label,
            "aliases": None,
            "default_rho": schedule.default_rho,
            "need_inner_model": schedule.need_inner_model,
        }
        for schedule in SCHEDULES
    ]
