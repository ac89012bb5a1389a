"""Prompts to conditioning: chunks of 77 tokens through one or two CLIP text encoders.

A prompt may have any length: its tokens fill chunks of 75 (with a start and an end mark 77, what CLIP was trained on),
each chunk is encoded by itself, and the results lie one behind the other. How a prompt is written: see `prompt.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from atoll.diffusion.conditioning import Conditioning
from atoll.diffusion.prompt import Break, Syntax, Words, parse_prompt
from atoll.errors import InvalidRequest

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

Emphasis = Literal["comfy", "a1111"]

BUILT_IN_VOCABULARY = Path(__file__).parent.parent / "models" / "assets" / "clip_tokenizer"
CHUNK_TOKENS = 77
CHUNK_WORDS = CHUNK_TOKENS - 2  # between the start and the end mark
# A1111 moves what follows the last comma into the next chunk, if that comma is at most so far back.
COMMA_BACKTRACK = 20
# ComfyUI keeps a run of fewer tokens in one chunk.
KEPT_TOGETHER = 8


@dataclass(frozen=True)
class ClipText:
    """One CLIP text encoder with its tokenizer.

    default_clip_skip: the layer, counted from the last one, that the U-Net was trained with: 1 is the last, 2 the one
        before (SD 2.x, SDXL).
    dropped_layers: layers that the file left out because nobody asks for them (1 in diffusers' folders of SD 2.x).
    normalized: whether the final layer norm is applied to the layer taken (not in SDXL).
    """

    tokenizer: CLIPTokenizer
    network: CLIPTextModel | CLIPTextModelWithProjection
    default_clip_skip: int = 1
    dropped_layers: int = 0
    normalized: bool = True

    @property
    def has_projection(self) -> bool:
        return hasattr(self.network, "text_projection")


@dataclass(frozen=True)
class TextEncoder:
    """What turns prompts into conditioning: one CLIP (SD 1.x, SD 2.x) or CLIP-L and CLIP-G (SDXL).

    clip_skip: 1 takes the last layer, 2 the one before, and so on (ComfyUI's stop_at_clip_layer with its sign turned);
        None is what the model was trained with.
    """

    encoders: tuple[ClipText, ...]
    clip_skip: int | None = None

    def with_clip_skip(self, clip_skip: int | None) -> TextEncoder:
        """The same encoder that stops at another layer; shares all weights.

        Raises: InvalidRequest if there is no such layer.
        """
        layers = min(len(layers_of(encoder.network)) + encoder.dropped_layers for encoder in self.encoders)
        if clip_skip is not None and not 1 <= clip_skip <= layers:
            raise InvalidRequest(f"clip_skip {clip_skip} is not possible: this text encoder has layers 1 to {layers}.")
        return replace(self, clip_skip=clip_skip)

    @property
    def device(self) -> torch.device:
        return self.encoders[0].network.device

    @property
    def dtype(self) -> torch.dtype:
        return self.encoders[0].network.dtype


def encode_prompt(
    text_encoder: TextEncoder, prompt: str, *, syntax: Syntax = "a1111", emphasis: Emphasis = "comfy"
) -> Conditioning:
    """Encode a prompt of any length.

    Args:
        syntax: the grammar of the prompt and how it is cut into chunks: "a1111" (`(word:1.2)`, `[word]`, `BREAK`, cuts
            behind a comma where one is near), or "comfy" (round brackets only).
        emphasis: what a weight does to a token. "comfy" moves it away from, or towards, what the empty prompt has in
            its place; "a1111" multiplies it and restores the chunk's mean.

    Returns: conditioning with embeds (1, 77 * chunks, dim) and, for SDXL, pooled (1, dim) of the first chunk; float32,
        on the CPU.
    Raises: InvalidRequest for a prompt over 100,000 characters, or an unknown syntax or emphasis.
    """
    if emphasis not in get_args(Emphasis):
        raise InvalidRequest(f'Emphasis "{emphasis}" is unknown. Known: {", ".join(get_args(Emphasis))}.')
    parsed = parse_prompt(prompt, syntax)
    embeds, pooled = [], None
    for encoder in text_encoder.encoders:
        chunks = build_chunks(parsed, encoder.tokenizer, syntax)
        encoded, pooled_here = _encode_chunks(encoder, chunks, text_encoder.clip_skip, emphasis)
        embeds.append(encoded)
        pooled = pooled if pooled_here is None else pooled_here
    return Conditioning(torch.cat(embeds, dim=-1), pooled)


def encode_two_prompts(text_encoder: TextEncoder, prompt_l: str, prompt_g: str) -> Conditioning:
    """Encode a prompt for each of SDXL's text encoders, in ComfyUI's grammar. The shorter gets empty chunks.

    Returns: as `encode_prompt`. Raises: InvalidRequest, also for a text encoder that is no pair.
    """
    if len(text_encoder.encoders) != 2:
        raise InvalidRequest(
            "This text encoder is not SDXL's, which are two. Use CLIPTextEncode, or load an SDXL model."
        )
    chunked = []
    for encoder, prompt in zip(text_encoder.encoders, (prompt_l, prompt_g), strict=True):
        chunked.append(build_chunks(parse_prompt(prompt, "comfy"), encoder.tokenizer, "comfy"))
    longest = max(map(len, chunked))
    embeds, pooled = [], None
    for encoder, chunks in zip(text_encoder.encoders, chunked, strict=True):
        empty = [_with_marks([], encoder.tokenizer)] * (longest - len(chunks))
        encoded, pooled_here = _encode_chunks(encoder, [*chunks, *empty], text_encoder.clip_skip, "comfy")
        embeds.append(encoded)
        pooled = pooled if pooled_here is None else pooled_here
    return Conditioning(torch.cat(embeds, dim=-1), pooled)


def pair_text_encoders(first: TextEncoder, second: TextEncoder) -> TextEncoder:
    """SDXL's pair of two text encoders that were loaded alone, in either order; shares all weights.

    Raises: InvalidRequest if they are not one of each kind.
    """
    encoders = sorted((*first.encoders, *second.encoders), key=lambda encoder: int(encoder.network.config.hidden_size))
    if len(encoders) != 2 or encoders[0].has_projection or not encoders[1].has_projection:
        raise InvalidRequest("SDXL wants two different text encoders, CLIP-L and CLIP-G. Name one of each.")
    return TextEncoder(tuple(replace(encoder, default_clip_skip=2, normalized=False) for encoder in encoders))


@cache
def load_built_in_tokenizer(pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """CLIP's vocabulary, which travels with Atoll.

    pad_token: fills short chunks: the end mark for OpenAI's CLIP-L, "!" (id 0) for OpenCLIP's (SD 2.x, CLIP-G).
    """
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(BUILT_IN_VOCABULARY, local_files_only=True, pad_token=pad_token)


# --- tokens -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chunk:
    """77 token ids with their weights."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


Token = tuple[int, float]


def build_chunks(parsed: list[Words | Break], tokenizer: CLIPTokenizer, syntax: Syntax = "a1111") -> list[Chunk]:
    """Tokenize the runs of a prompt and lay them into chunks; at least one, which may be empty."""
    sections: list[list[list[Token]]] = [[]]
    for part in parsed:
        if isinstance(part, Break):
            sections.append([])
        else:
            ids = tokenizer(part.text, add_special_tokens=False, verbose=False).input_ids
            sections[-1].append([(token, part.weight) for token in ids])
    if syntax == "comfy":
        laid = [chunk for section in sections for chunk in _lay_like_comfy(section)]
    else:
        comma = tokenizer.convert_tokens_to_ids(",</w>")
        laid = [chunk for section in sections for chunk in _lay_at_commas(list(chain.from_iterable(section)), comma)]
    return [_with_marks(words, tokenizer) for words in laid]


def _lay_at_commas(tokens: list[Token], comma: int) -> list[list[Token]]:
    """Fill chunks one after the other; a full one gives back what follows its last comma, if that is near."""
    chunks: list[list[Token]] = [[]]
    for token in tokens:
        if len(chunks[-1]) == CHUNK_WORDS:
            full = chunks[-1]
            cut = CHUNK_WORDS
            if token[0] != comma:
                near = range(CHUNK_WORDS - COMMA_BACKTRACK, CHUNK_WORDS)
                cut = max((index + 1 for index in near if full[index][0] == comma), default=CHUNK_WORDS)
            chunks[-1:] = [full[:cut], full[cut:]]
        chunks[-1].append(token)
    return chunks


def _lay_like_comfy(runs: list[list[Token]]) -> list[list[Token]]:
    """Fill chunks one after the other, short runs never cut in two."""
    chunks: list[list[Token]] = [[]]
    for run in runs:
        rest = run
        while len(chunks[-1]) + len(rest) > CHUNK_WORDS:
            room = CHUNK_WORDS - len(chunks[-1]) if len(run) >= KEPT_TOGETHER else 0
            chunks[-1].extend(rest[:room])
            rest = rest[room:]
            chunks.append([])
        chunks[-1].extend(rest)
    return chunks


def _with_marks(words: list[Token], tokenizer: CLIPTokenizer) -> Chunk:
    start, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    filled = [(start, 1.0), *words, (end, 1.0), *[(pad, 1.0)] * (CHUNK_WORDS - len(words))]
    return Chunk(tuple(token for token, _ in filled), tuple(weight for _, weight in filled))


# --- encoding ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def _encode_chunks(
    encoder: ClipText, chunks: list[Chunk], clip_skip: int | None, emphasis: Emphasis
) -> tuple[Tensor, Tensor | None]:
    """(1, 77 * chunks, dim), and (1, projection) of the first chunk if the encoder has a projection."""
    weights = torch.tensor([chunk.weights for chunk in chunks])
    weighted = bool((weights != 1.0).any())
    ids = [chunk.ids for chunk in chunks]
    if weighted and emphasis == "comfy":
        ids.append(_with_marks([], encoder.tokenizer).ids)
    hidden, pooled = _run_clip(encoder, torch.tensor(ids), clip_skip)
    if weighted:
        hidden = _EMPHASES[emphasis](hidden, weights.unsqueeze(-1))
    return hidden.reshape(1, -1, hidden.shape[-1]), None if pooled is None else pooled[:1]


def _run_clip(encoder: ClipText, ids: Tensor, clip_skip: int | None) -> tuple[Tensor, Tensor | None]:
    """ids (chunks, 77) -> hidden states of the layer asked for, (chunks, 77, dim), and the projected end mark."""
    answer = encoder.network(ids.to(encoder.network.device), output_hidden_states=True)
    skip = (clip_skip or encoder.default_clip_skip) - encoder.dropped_layers
    hidden = answer.hidden_states[-max(1, skip)]
    if encoder.normalized:
        text_model = getattr(encoder.network, "text_model", encoder.network)
        hidden = text_model.final_layer_norm(hidden)
    pooled = answer.text_embeds if encoder.has_projection else None
    return hidden.float().cpu(), None if pooled is None else pooled.float().cpu()


def _interpolate_from_empty(hidden: Tensor, weights: Tensor) -> Tensor:
    """Each token on the line from the empty prompt's through its own. The last of `hidden` is the empty prompt's."""
    chunks, empty = hidden[:-1], hidden[-1:]
    return torch.where(weights == 1.0, chunks, empty + (chunks - empty) * weights)


def _multiply_and_restore_mean(hidden: Tensor, weights: Tensor) -> Tensor:
    """Each token times its weight, then each chunk scaled to the mean that it had."""
    mean = hidden.mean(dim=(1, 2), keepdim=True)
    hidden = hidden * weights
    return hidden * (mean / hidden.mean(dim=(1, 2), keepdim=True))


_EMPHASES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "comfy": _interpolate_from_empty,
    "a1111": _multiply_and_restore_mean,
}


def layers_of(network: CLIPTextModel | CLIPTextModelWithProjection) -> torch.nn.ModuleList:
    return getattr(network, "text_model", network).encoder.layers
