"""GET and POST /sdapi/v1/options: each caller's own settings, never another's."""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from atoll.api.a1111.callers import Caller, session_key
from atoll.artifacts.files import write_durably

log = logging.getLogger(__name__)

MOST_CALLERS = 1000  # whose options are remembered; the longest unchanged are forgotten first
MOST_LENT = 20

# What a client finds before it has set anything. Those that change a picture: sd_model_checkpoint, sd_vae,
# CLIP_stop_at_last_layers, samples_format, jpeg_quality, img2img_fix_steps, return_grid. The others are kept, so that
# clients read back what they set.
DEFAULTS: dict[str, Any] = {
    "sd_model_checkpoint": None,  # the built-in model's title
    "sd_vae": "Automatic",
    "CLIP_stop_at_last_layers": 1,
    "samples_format": "png",
    "jpeg_quality": 80,
    "img2img_fix_steps": False,
    "return_grid": True,
    "grid_format": "png",
    "grid_save": True,
    "samples_save": True,
    "save_images_add_number": True,
    "outdir_samples": "",
    "outdir_txt2img_samples": "outputs/txt2img-images",
    "outdir_img2img_samples": "outputs/img2img-images",
    "outdir_extras_samples": "outputs/extras-images",
    "outdir_grids": "",
    "outdir_save": "log/images",
    "upscaler_for_img2img": None,
    "face_restoration": False,
    "face_restoration_model": "CodeFormer",
    "code_former_weight": 0.5,
    "randn_source": "CPU",
    "emphasis": "Original",
    "enable_emphasis": True,
    "comma_padding_backtrack": 20,
    "eta_ddim": 0.0,
    "eta_ancestral": 1.0,
    "s_churn": 0.0,
    "s_tmin": 0.0,
    "s_tmax": 0.0,
    "s_noise": 1.0,
    "eta_noise_seed_delta": 0,
    "initial_noise_multiplier": 1.0,
    "inpainting_mask_weight": 1.0,
    "img2img_color_correction": False,
    "img2img_background_color": "#ffffff",
    "sd_checkpoints_limit": 1,
    "sd_checkpoints_keep_in_cpu": True,
    "sd_vae_overrides_per_model_preferences": True,
    "sd_unet": "Automatic",
    "upcast_attn": False,
    "tiling": False,
    "add_model_hash_to_info": True,
    "add_model_name_to_info": True,
    "add_version_to_infotext": True,
    "enable_pnginfo": True,
    "save_txt": False,
    "interrogate_return_ranks": False,
    "interrogate_clip_num_beams": 1,
    "live_previews_enable": True,
    "live_previews_image_format": "jpeg",
    "show_progress_every_n_steps": 1,
    "show_progress_type": "Approx cheap",
    "sd_lora": "None",
    "sd_hypernetwork": "None",
    "extra_networks_default_multiplier": 1.0,
    "control_net_unit_count": 3,
    "do_not_show_images": False,
    "send_seed": True,
    "send_size": True,
}


class CallerOptions:
    """What each caller has set, kept in one file. Any thread may call.

    A first POST comes without a cookie, whether or not its sender keeps cookies. So what it sets counts for the
    program at that address, until the cookie that was given comes back; then it is that session's alone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._set: OrderedDict[str, dict[str, Any]] = OrderedDict(_read(path))
        self._lent: dict[str, dict[str, dict[str, Any]]] = {}  # program -> session -> what it has set

    def of(self, caller: Caller) -> dict[str, Any]:
        """All options, by name."""
        with self._lock:
            return {**DEFAULTS, **self._own(caller.key)}

    def change(self, caller: Caller, values: dict[str, Any]) -> None:
        """Set those that Atoll knows; others are named in the log. Raises: StorageFull."""
        unknown = sorted(str(name)[:60] for name in values if name not in DEFAULTS)
        if unknown:
            log.info("Options that Atoll does not have are left out: %s.", ", ".join(unknown))
        known = {name: value for name, value in values.items() if name in DEFAULTS}
        with self._lock:
            if caller.new_session is None:
                self._keep(caller.key, {**self._set.get(caller.key, {}), **known})
            else:
                own, lent = session_key(caller.new_session), self._lent.setdefault(caller.key, {})
                self._keep(own, known)
                lent[own] = known
                if len(lent) > MOST_LENT:  # nobody has come back with that cookie, so the program keeps none
                    oldest = lent.pop(next(iter(lent)))
                    self._keep(caller.key, {**self._set.get(caller.key, {}), **oldest})
            self._write()

    def claim(self, key: str) -> None:
        """A session has come back with its cookie: what it set is not its program's any more."""
        with self._lock:
            for lent in self._lent.values():
                if lent.pop(key, None) is not None:
                    self._write()

    def _own(self, key: str) -> dict[str, Any]:
        options = dict(self._set.get(key, {}))
        for values in self._lent.get(key, {}).values():
            options |= values
        return options

    def _keep(self, key: str, values: dict[str, Any]) -> None:
        self._set.pop(key, None)  # so that it is the newest
        self._set[key] = values

    def _write(self) -> None:
        while len(self._set) > MOST_CALLERS:
            self._set.popitem(last=False)
        self._lent = {program: lent for program, lent in self._lent.items() if lent}
        stored = {key: self._own(key) for key in [*self._set, *self._lent]}
        write_durably(self._path, json.dumps(stored, indent=1).encode())


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in values.items() if isinstance(value, dict)} if isinstance(values, dict) else {}
