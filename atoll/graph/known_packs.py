"""Which package of custom nodes for ComfyUI a node of some class most likely comes from.

So that a workflow with unknown nodes says what it was made with. The classes are told by name alone, which is a guess:
packages choose these freely.
"""

from __future__ import annotations

import re

# Pattern of the class type -> the package. The first that fits counts, so the narrow ones come first.
KNOWN_PACKS: tuple[tuple[str, str], ...] = (
    (r".*\(rgthree\)", "rgthree-comfy"),
    (r".*\|pysssss", "ComfyUI-Custom-Scripts"),
    (r".*\(mtb\)", "comfy-mtb"),
    (r".*\(Inspire\)|.*//Inspire", "ComfyUI-Inspire-Pack"),
    (r"ETN_.*", "comfyui-tooling-nodes"),
    (r"INPAINT_.*", "comfyui-inpaint-nodes"),
    (r"VHS_.*", "ComfyUI-VideoHelperSuite"),
    (r"ADE_.*", "ComfyUI-AnimateDiff-Evolved"),
    (r"ACN_.*|ScaledSoftControlNetWeights", "ComfyUI-Advanced-ControlNet"),
    (r"IPAdapter.*|PrepImageForClipVision", "ComfyUI_IPAdapter_plus"),
    (r"InstantID.*|ApplyInstantID.*", "ComfyUI_InstantID"),
    (r"FaceDetailer.*|DetailerFor.*|SAMLoader|UltralyticsDetectorProvider|Impact.*|SEGS.*", "ComfyUI-Impact-Pack"),
    (r"UltimateSDUpscale.*", "ComfyUI_UltimateSDUpscale"),
    (r"Efficient Loader|Eff\. Loader.*|KSampler \(Efficient\)|XY Plot.*|LoRA Stacker", "efficiency-nodes-comfyui"),
    (r"easy .*", "ComfyUI-Easy-Use"),
    (r"CR .*", "ComfyUI_Comfyroll_CustomNodes"),
    (r"WAS_.*|.*\(WAS\)|Image Resize|Text Concatenate|Number to Int", "was-node-suite-comfyui"),
    (r"LayerUtility:.*|LayerMask:.*|LayerStyle:.*", "ComfyUI_LayerStyle"),
    (r"ReActor.*", "ComfyUI-ReActor"),
    (r"AIO_Preprocessor|.*Preprocessor|DWPreprocessor", "comfyui_controlnet_aux"),
    (r"UnetLoaderGGUF.*|.*GGUF", "ComfyUI-GGUF"),
    (r"TiledDiffusion|VAEDecodeTiled_TiledDiffusion", "ComfyUI-TiledDiffusion"),
    (r"SUPIR_.*", "ComfyUI-SUPIR"),
    (r"Florence2.*|DownloadAndLoadFlorence2Model", "ComfyUI-Florence2"),
    (r"SeargeSDXL.*|Searge.*", "SeargeSDXL"),
    (r".*Essentials|.*\+", "ComfyUI_essentials"),
    (r".*KJ|ColorMatch|GrowMaskWithBlur|SetNode|GetNode", "ComfyUI-KJNodes"),
)
_COMPILED = tuple((re.compile(pattern), pack) for pattern, pack in KNOWN_PACKS)


def likely_pack(class_type: str) -> str | None:
    """The package that brings nodes of such a class; None where the name says nothing."""
    if len(class_type) > 200:
        return None
    return next((pack for pattern, pack in _COMPILED if pattern.fullmatch(class_type)), None)
