"""Write networks as the single files that people download: diffusers' names back into those of the original code.

Written from the original models' sources (CompVis/latent-diffusion `openaimodel.py` and `model.py`, mlfoundations/
open_clip), and the other way round from what `atoll.diffusion.single_file` does.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

State = dict[str, Tensor]

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_TOP = {
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip


def unet_to_ldm(unet: UNet2DConditionModel, prefix: str = "model.diffusion_model.") -> State:
    per_level = unet.config.layers_per_block + 1
    ldm: State = {}
    for name, tensor in unet.state_dict().items():
        module, _, parameter = name.rpartition(".")
        if module in _TOP:
            new = _TOP[module]
        elif found := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", module):
            place = 1 if found[1] == "attentions" else 2 * int(found[2])
            new = f"middle_block.{place}.{_RESNET.get(found[3], found[3])}"
        elif found := re.fullmatch(r"down_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", module):
            block = int(found[1]) * per_level + int(found[3]) + 1
            new = {
                "resnets": f"input_blocks.{block}.0.{_RESNET.get(found[4])}",
                "attentions": f"input_blocks.{block}.1.{found[4]}",
                "downsamplers": f"input_blocks.{(int(found[1]) + 1) * per_level}.0.op",
            }[found[2]]
        else:
            found = re.fullmatch(r"up_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", module)
            assert found, name
            block = int(found[1]) * per_level + int(found[3])
            last = int(found[1]) * per_level + per_level - 1
            beside_attention = 2 if "CrossAttn" in unet.config.up_block_types[int(found[1])] else 1
            new = {
                "resnets": f"output_blocks.{block}.0.{_RESNET.get(found[4])}",
                "attentions": f"output_blocks.{block}.1.{found[4]}",
                "upsamplers": f"output_blocks.{last}.{beside_attention}.conv",
            }[found[2]]
        ldm[f"{prefix}{new}.{parameter}"] = tensor
    return ldm


def vae_to_ldm(vae: AutoencoderKL, prefix: str = "first_stage_model.") -> State:
    levels = len(vae.config.block_out_channels)
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    ldm: State = {}
    for name, tensor in vae.state_dict().items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        new = re.sub(r"encoder\.down_blocks\.(\d)\.resnets\.(\d)", r"encoder.down.\1.block.\2", new)
        new = re.sub(r"encoder\.down_blocks\.(\d)\.downsamplers\.0", r"encoder.down.\1.downsample", new)
        up = lambda found: f"decoder.up.{levels - 1 - int(found[1])}."  # noqa: E731
        new = re.sub(r"decoder\.up_blocks\.(\d)\.", up, new)
        new = re.sub(r"(decoder\.up\.\d)\.resnets\.(\d)", r"\1.block.\2", new).replace("upsamplers.0", "upsample")
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", new)
        if found := re.fullmatch(r"(\w+)\.mid_block\.attentions\.0\.(.*)\.(\w+)", new):
            new = f"{found[1]}.mid.attn_1.{attention[found[2]]}.{found[3]}"
            if found[3] == "weight" and tensor.ndim == 2:
                tensor = tensor[:, :, None, None]  # a 1x1 convolution there
        ldm[prefix + new] = tensor
    return ldm


def clip_to_ldm(network: Any, prefix: str = "cond_stage_model.transformer.text_model.") -> State:
    """transformers' own names, as CompVis used the class itself."""
    return {prefix + name.removeprefix("text_model."): tensor for name, tensor in network.state_dict().items()}


def clip_to_openclip(network: Any, prefix: str = "cond_stage_model.model.") -> State:
    state = {name.removeprefix("text_model."): tensor for name, tensor in network.state_dict().items()}
    names = {
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias",
    }  # fmt: skip
    inner = {
        "layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    }  # fmt: skip
    ldm: State = {prefix + "logit_scale": torch.tensor(4.6)}
    for name, tensor in state.items():
        if name in names:
            ldm[prefix + names[name]] = tensor
        elif name == "text_projection.weight":
            ldm[prefix + "text_projection"] = tensor.T.contiguous()
        elif found := re.fullmatch(r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(\w+)", name):
            joined = [state[name.replace("q_proj", which)] for which in ("q_proj", "k_proj", "v_proj")]
            ldm[f"{prefix}transformer.resblocks.{found[1]}.attn.in_proj_{found[2]}"] = torch.cat(joined)
        elif (found := re.fullmatch(r"encoder\.layers\.(\d+)\.(.*)\.(\w+)", name)) and found[2] in inner:
            ldm[f"{prefix}transformer.resblocks.{found[1]}.{inner[found[2]]}.{found[3]}"] = tensor
    return ldm
