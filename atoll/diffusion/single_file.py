"""Networks out of single files: their configuration, read off the tensors' shapes, and where each tensor belongs.

Such files carry no configuration, and fetching one would need a network. Widths, depths and context size all show in
the shapes; what does not (attention heads, activations) is fixed for each family. Two layouts occur: the original one
of CompVis and Stability ("LDM": https://github.com/CompVis/stable-diffusion, https://github.com/Stability-AI/
generative-models), whose names are translated here, and diffusers' own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from atoll.diffusion.weights import Piece, Plan
from atoll.errors import NotACheckpoint
from atoll.models.identify import LDM_UNET

Shapes = Mapping[str, tuple[int, ...]]
Config = dict[str, Any]

VAE_PREFIXES = ("first_stage_model.", "vae.", "")
SD1_HEADS = 8  # of every attention layer in SD 1.x
HEAD_WIDTH = 64  # channels of an attention head in SD 2.x, SDXL and every CLIP text encoder
SDXL_TIME_EMBED_WIDTH = 256  # for each of the six numbers (size, crop, target size) that SDXL is told
SAMPLE_SIZES = {"sd1": 64, "sd2": 96, "sdxl": 128}  # latents' edge at the size a family was trained for


# --- U-Net ------------------------------------------------------------------------------------------------------


def plan_unet(shapes: Shapes) -> tuple[Config, Plan]:
    """Configuration for UNet2DConditionModel and the place of each of its tensors, for either layout.

    Raises: NotACheckpoint if there is no U-Net in these shapes.
    """
    for prefix in (LDM_UNET, ""):
        if f"{prefix}input_blocks.0.0.weight" in shapes:
            inner = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
            return _plan_ldm_unet(inner, prefix)
    if "conv_in.weight" in shapes and "down_blocks.0.resnets.0.conv1.weight" in shapes:
        return _diffusers_unet_config(shapes), {name: Piece(name) for name in shapes}
    raise NotACheckpoint("it holds no U-Net.")


def _plan_ldm_unet(shapes: Shapes, prefix: str) -> tuple[Config, Plan]:
    # input_blocks.0 is the first convolution; then per level some residual blocks, each with or without attention
    # beside it, and a downsampling convolution ("op") that ends the level.
    levels: list[list[int]] = [[]]
    index = 1
    while f"input_blocks.{index}.0.in_layers.0.weight" in shapes or f"input_blocks.{index}.0.op.weight" in shapes:
        if f"input_blocks.{index}.0.op.weight" in shapes:
            levels.append([])
        else:
            levels[-1].append(index)
        index += 1
    if not all(levels) or len({len(level) for level in levels}) != 1:
        raise NotACheckpoint("its U-Net has levels of different depth, a variant that Atoll does not know.")
    config = _unet_config(
        shapes,
        first_convolution="input_blocks.0.0.weight",
        last_convolution="out.2.weight",
        added_embedding="label_emb.0.0.weight",
        channels=[shapes[f"input_blocks.{level[0]}.0.out_layers.3.weight"][0] for level in levels],
        depths=[_depth(shapes, f"input_blocks.{level[0]}.1.") for level in levels],
        middle_depth=_depth(shapes, "middle_block.1."),
        layers_per_block=len(levels[0]),
    )
    plan: dict[str, Piece] = {}
    for name in shapes:
        target = _unet_name(name, len(levels[0]))
        if target is not None:
            plan[target] = Piece(prefix + name)
    return config, plan


def _unet_name(name: str, layers_per_block: int) -> str | None:
    """diffusers' name for a tensor of the original U-Net."""
    head, _, tail = name.partition(".")
    if head == "time_embed":
        return "time_embedding." + tail.replace("0.", "linear_1.", 1).replace("2.", "linear_2.", 1)
    if head == "label_emb":
        return "add_embedding." + tail.replace("0.0.", "linear_1.", 1).replace("0.2.", "linear_2.", 1)
    if head == "out":
        return tail.replace("0.", "conv_norm_out.", 1).replace("2.", "conv_out.", 1)
    numbers = re.match(r"(\d+)\.(?:(\d+)\.)?(.*)", tail)
    if numbers is None:
        return None
    block, tail = int(numbers[1]), numbers[3]
    if head == "middle_block":
        # 0 and 2 are residual blocks, 1 the attention between them; they have no second number
        return (
            f"mid_block.attentions.0.{tail}" if block == 1 else f"mid_block.resnets.{block // 2}.{_resnet_name(tail)}"
        )
    if head == "input_blocks" and block == 0:
        return f"conv_in.{tail}"
    if head == "input_blocks":
        level, layer = divmod(block - 1, layers_per_block + 1)
        where = f"down_blocks.{level}"
        if tail.startswith("op."):
            return f"{where}.downsamplers.0.conv.{tail.removeprefix('op.')}"
    elif head == "output_blocks":
        level, layer = divmod(block, layers_per_block + 1)
        where = f"up_blocks.{level}"
        if tail.startswith("conv."):
            return f"{where}.upsamplers.0.{tail}"
    else:
        return None
    return (
        f"{where}.resnets.{layer}.{_resnet_name(tail)}" if numbers[2] == "0" else f"{where}.attentions.{layer}.{tail}"
    )


_RESNET_NAMES = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


def _resnet_name(name: str) -> str:
    module, _, parameter = name.rpartition(".")
    return f"{_RESNET_NAMES.get(module, module)}.{parameter}"


def _diffusers_unet_config(shapes: Shapes) -> Config:
    levels = _count(shapes, "down_blocks.{}.resnets.0.conv1.weight")
    return _unet_config(
        shapes,
        first_convolution="conv_in.weight",
        last_convolution="conv_out.weight",
        added_embedding="add_embedding.linear_1.weight",
        channels=[shapes[f"down_blocks.{level}.resnets.0.conv2.weight"][0] for level in range(levels)],
        depths=[_depth(shapes, f"down_blocks.{level}.attentions.0.") for level in range(levels)],
        middle_depth=_depth(shapes, "mid_block.attentions.0."),
        layers_per_block=_count(shapes, "down_blocks.0.resnets.{}.conv1.weight"),
    )


def _unet_config(
    shapes: Shapes,
    *,
    first_convolution: str,
    last_convolution: str,
    added_embedding: str,
    channels: list[int],
    depths: list[int],
    middle_depth: int,
    layers_per_block: int,
) -> Config:
    """
    Args:
        first_convolution, last_convolution, added_embedding: names of these tensors in the layout at hand.
        channels: per level. depths: per level, transformer blocks in each of its attentions, 0 where it has none.
    """
    contexts = {shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")}
    projections = {len(shape) for name, shape in shapes.items() if name.endswith("proj_in.weight")}
    if len(contexts) != 1 or len(projections) != 1:
        raise NotACheckpoint("its U-Net mixes attentions in a way that Atoll does not know.")
    linear = projections == {2}  # SD 2.x and SDXL; a 1x1 convolution in SD 1.x
    base = "sdxl" if added_embedding in shapes else "sd2" if linear else "sd1"
    config: Config = {
        "sample_size": SAMPLE_SIZES[base],
        "in_channels": shapes[first_convolution][1],
        "out_channels": shapes[last_convolution][0],
        "block_out_channels": channels,
        "layers_per_block": layers_per_block,
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
        # the middle block takes the last number
        "transformer_layers_per_block": [depth or 1 for depth in depths[:-1]] + [depths[-1] or middle_depth],
        "cross_attention_dim": contexts.pop(),
        "use_linear_projection": linear,
        # diffusers' name for it, but it is the number of heads
        "attention_head_dim": [max(1, width // HEAD_WIDTH) for width in channels] if linear else SD1_HEADS,
    }
    if base == "sdxl":
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": SDXL_TIME_EMBED_WIDTH,
            "projection_class_embeddings_input_dim": shapes[added_embedding][1],
        }
    return config


def _depth(shapes: Shapes, prefix: str) -> int:
    return _count(shapes, prefix + "transformer_blocks.{}.norm1.weight")


def _count(shapes: Shapes, pattern: str) -> int:
    """How many of the names, numbered from 0, there are."""
    number = 0
    while pattern.format(number) in shapes:
        number += 1
    return number


# --- VAE --------------------------------------------------------------------------------------------------------


def plan_vae(shapes: Shapes) -> tuple[Config, Plan]:
    """Configuration for AutoencoderKL and the place of each of its tensors, for either layout.

    Raises: NotACheckpoint if there is no VAE in these shapes.
    """
    for prefix in VAE_PREFIXES:
        inner = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
        if "encoder.down.0.block.0.norm1.weight" in inner:
            levels = _count(inner, "encoder.down.{}.block.0.conv1.weight")
            config = _vae_config(
                inner, [inner[f"encoder.down.{level}.block.0.conv2.weight"][0] for level in range(levels)],
                layers_per_block=_count(inner, "encoder.down.0.block.{}.conv1.weight"),
            )  # fmt: skip
            names = {name: _vae_name(name, levels) for name in inner}
            break
        if "encoder.down_blocks.0.resnets.0.conv1.weight" in inner:
            levels = _count(inner, "encoder.down_blocks.{}.resnets.0.conv1.weight")
            config = _vae_config(
                inner, [inner[f"encoder.down_blocks.{level}.resnets.0.conv2.weight"][0] for level in range(levels)],
                layers_per_block=_count(inner, "encoder.down_blocks.0.resnets.{}.conv1.weight"),
            )  # fmt: skip
            names = {name: _modern_vae_name(name) for name in inner}
            break
    else:
        raise NotACheckpoint("it holds no VAE; take one from another file.")
    plan = {
        target: Piece(prefix + name, _as_linear if ".attentions." in target and len(inner[name]) > 2 else None)
        for name, target in names.items()
    }
    return config, plan


def _vae_config(shapes: Shapes, channels: list[int], *, layers_per_block: int) -> Config:
    return {
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": channels,
        "layers_per_block": layers_per_block,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
    }


_VAE_ATTENTION_NAMES = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
# what diffusers itself called them until 0.18; files from then are still about
_VAE_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _vae_name(name: str, levels: int) -> str:
    """diffusers' name for a tensor of the original VAE."""
    name = name.replace(".norm_out.", ".conv_norm_out.").replace(".nin_shortcut.", ".conv_shortcut.")
    if found := re.fullmatch(r"(\w+)\.mid\.attn_1\.(\w+)\.(\w+)", name):
        return f"{found[1]}.mid_block.attentions.0.{_VAE_ATTENTION_NAMES[found[2]]}.{found[3]}"
    if found := re.fullmatch(r"(\w+)\.mid\.block_(\d)\.(.*)", name):
        return f"{found[1]}.mid_block.resnets.{int(found[2]) - 1}.{found[3]}"
    if found := re.fullmatch(r"(encoder\.down|decoder\.up)\.(\d+)\.(block\.(\d+)|\w+sample)\.(.*)", name):
        # the original counts the decoder's levels from the picture's side
        level = int(found[2]) if found[1] == "encoder.down" else levels - 1 - int(found[2])
        inner = f"resnets.{found[4]}" if found[4] else f"{found[3]}rs.0"  # downsample -> downsamplers.0
        return f"{found[1]}_blocks.{level}.{inner}.{found[5]}"
    return name


def _modern_vae_name(name: str) -> str:
    """diffusers' present name for a tensor of a VAE in its layout."""
    found = re.fullmatch(r"(.*\.attentions\.\d+)\.(query|key|value|proj_attn)\.(\w+)", name)
    return f"{found[1]}.{_VAE_OLD_NAMES[found[2]]}.{found[3]}" if found else name


def _as_linear(weight: Tensor) -> Tensor:
    """A 1x1 convolution, (out, in, 1, 1), as the matrix that it is."""
    return weight.flatten(1)


# --- text encoders ----------------------------------------------------------------------------------------------


def plan_text_encoders(shapes: Shapes) -> list[tuple[Config, Plan]]:
    """For each CLIP text encoder in the file, CLIP-L before CLIP-G: a configuration for CLIPTextConfig, and a plan.

    The plan has names as in CLIPTextModel, and `text_projection.weight` where the file has a projection.
    Raises: NotACheckpoint if there is none.
    """
    found = []
    for name, shape in shapes.items():
        if name.endswith("token_embedding.weight") and len(shape) == 2:
            prefix = name.removesuffix("token_embedding.weight")
            if f"{prefix}transformer.resblocks.0.attn.in_proj_weight" in shapes:
                found.append(_plan_openclip(shapes, prefix))
            elif prefix.endswith("embeddings."):
                found.append(_plan_clip(shapes, prefix.removesuffix("embeddings.")))
    if not found:
        raise NotACheckpoint("it holds no CLIP text encoder; take one from another file.")
    return sorted(found, key=lambda encoder: int(encoder[0]["hidden_size"]))


def _plan_clip(shapes: Shapes, prefix: str) -> tuple[Config, Plan]:
    """The layout of transformers: SD 1.x, CLIP-L in SDXL, and files of text encoders alone."""
    inner = {name.removeprefix(prefix): name for name in shapes if name.startswith(prefix)}
    plan = {name: Piece(source) for name, source in inner.items()}
    outer = prefix.removesuffix("text_model.")
    if f"{outer}text_projection.weight" in shapes:
        plan["text_projection.weight"] = Piece(f"{outer}text_projection.weight")
    vocabulary, width = shapes[f"{prefix}embeddings.token_embedding.weight"]
    config = _clip_config(
        width=width,
        vocabulary=vocabulary,
        positions=shapes[f"{prefix}embeddings.position_embedding.weight"][0],
        inner_width=shapes[f"{prefix}encoder.layers.0.mlp.fc1.weight"][0],
        layers=_count(shapes, prefix + "encoder.layers.{}.mlp.fc1.weight"),
        projection=shapes[plan["text_projection.weight"].source][0] if "text_projection.weight" in plan else None,
        quick_gelu=width < 1024,  # OpenAI's CLIP-L; the wider ones are OpenCLIP's also where they come in this layout
    )
    return config, plan


_OPENCLIP_NAMES = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_OPENCLIP_LAYER_NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def _plan_openclip(shapes: Shapes, prefix: str) -> tuple[Config, Plan]:
    """OpenCLIP's layout: SD 2.x, CLIP-G in SDXL. Query, key and value lie in one tensor there."""
    inner = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    width = inner["token_embedding.weight"][1]
    plan: dict[str, Piece] = {}
    for name in inner:
        if name in _OPENCLIP_NAMES:
            plan[_OPENCLIP_NAMES[name]] = Piece(prefix + name)
        elif name == "text_projection":
            plan["text_projection.weight"] = Piece(prefix + name, _transposed)
        elif name == "text_projection.weight":
            plan["text_projection.weight"] = Piece(prefix + name)
        elif found := re.fullmatch(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", name):
            for index, projection in enumerate(("q_proj", "k_proj", "v_proj")):
                target = f"encoder.layers.{found[1]}.self_attn.{projection}.{found[2]}"
                plan[target] = Piece(prefix + name, _rows(index * width, (index + 1) * width))
        elif found := re.fullmatch(
            r"transformer\.resblocks\.(\d+)\.(ln_1|ln_2|attn\.out_proj|mlp\.c_fc|mlp\.c_proj)\.(weight|bias)", name
        ):
            target = f"encoder.layers.{found[1]}.{_OPENCLIP_LAYER_NAMES[found[2]]}.{found[3]}"
            plan[target] = Piece(prefix + name)
    projection_shape = inner.get("text_projection") or inner.get("text_projection.weight", ())[::-1]
    config = _clip_config(
        width=width,
        vocabulary=inner["token_embedding.weight"][0],
        positions=inner["positional_embedding"][0],
        inner_width=inner["transformer.resblocks.0.mlp.c_fc.weight"][0],
        layers=_count(inner, "transformer.resblocks.{}.mlp.c_fc.weight"),
        projection=projection_shape[1] if projection_shape else None,
        quick_gelu=False,
    )
    return config, plan


def _clip_config(
    *,
    width: int,
    vocabulary: int,
    positions: int,
    inner_width: int,
    layers: int,
    projection: int | None,
    quick_gelu: bool,
) -> Config:
    return {
        "hidden_size": width,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
        "intermediate_size": inner_width,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "projection_dim": projection or width,
        "hidden_act": "quick_gelu" if quick_gelu else "gelu",
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    }


def _transposed(matrix: Tensor) -> Tensor:
    return matrix.T


def _rows(begin: int, end: int) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor[begin:end]


# --- what else a file says ---------------------------------------------------------------------------------------


def prediction_type_of(metadata: Mapping[str, str], shapes: Shapes) -> str | None:
    """ "epsilon" or "v_prediction" where the file says so, else None.

    Says so: the key `v_pred` that SDXL models carry, or `modelspec.prediction_type` in the metadata
    (https://github.com/Stability-AI/ModelSpec).
    """
    if "v_pred" in shapes:
        return "v_prediction"
    said = metadata.get("modelspec.prediction_type", "").lower()
    return {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon", "eps": "epsilon"}.get(said)


def schedule_from_yaml(text: str) -> Config:
    """The noise schedule in an original configuration (v2-inference-v.yaml and the like), as far as it is given there.

    Only its few plain numbers are read, so no YAML reader is needed.
    """
    config: Config = {}
    for key, name in (("linear_start", "beta_start"), ("linear_end", "beta_end")):
        if found := re.search(rf"^\s*{key}:\s*([\d.eE+-]+)", text, re.MULTILINE):
            config[name] = float(found[1])
    if found := re.search(r"^\s*timesteps:\s*(\d+)", text, re.MULTILINE):
        config["num_train_timesteps"] = int(found[1])
    if re.search(r"^\s*parameterization:\s*[\"']?v\b", text, re.MULTILINE):
        config["prediction_type"] = "v_prediction"
    elif re.search(r"^\s*parameterization:\s*[\"']?eps\b", text, re.MULTILINE):
        config["prediction_type"] = "epsilon"
    return config
