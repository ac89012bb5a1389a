"""Training the text encoder: what a caption asks for shall be plain to see in what the U-Net is told.

A U-Net that has to teach its text encoder from nothing learns backgrounds soon and things very late: a caption is ten
tokens among 77, the rest is padding, and its subject is one of them. So the text encoder first learns by itself to name
the thing, the style and the background of a caption, at its end and at every padding token after it. Then it is frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from atoll.training.loop import LoopOptions, Progress, run_training, training_device
from atoll.training.pictures import PictureFactory

TOKENS = 77


@dataclass(frozen=True)
class TextEncoderOptions:
    """Shape of the CLIP text encoder; the vocabulary is CLIP's."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int


def build_text_encoder(options: TextEncoderOptions) -> CLIPTextModel:
    """A fresh CLIP text encoder over CLIP's vocabulary."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            max_position_embeddings=TOKENS,
            hidden_size=options.hidden_size,
            intermediate_size=options.intermediate_size,
            num_hidden_layers=options.num_hidden_layers,
            num_attention_heads=options.num_attention_heads,
            projection_dim=options.hidden_size,
            bos_token_id=49406,
            eos_token_id=49407,
            pad_token_id=49407,
        )
    )


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """(captions, 77) token ids, as Stable Diffusion takes them."""
    return tokenizer(captions, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt").input_ids


def encode_captions(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, captions: list[str]) -> Tensor:
    """(captions, 77, width) embeddings, as Stable Diffusion takes them."""
    return text_encoder(tokenize(tokenizer, captions).to(text_encoder.device)).last_hidden_state


def train_text_encoder(
    pictures: PictureFactory,
    tokenizer: CLIPTokenizer,
    options: TextEncoderOptions,
    loop: LoopOptions,
    folder: Path,
    *,
    seed: int,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> CLIPTextModel:
    """Train a text encoder to tell what captions ask for; state and log go to `folder`.

    Returns: the averaged text encoder.
    """
    torch.manual_seed(seed)
    device = training_device()
    words = sorted({sprite.words for sprite in pictures.sprites})
    styles = sorted({sprite.style for sprite in pictures.sprites})
    backgrounds = list(pictures.backgrounds)
    unsaid = len(styles), len(backgrounds)  # one more answer each: the caption does not say
    naming = nn.Linear(options.hidden_size, len(words) + len(styles) + 1 + len(backgrounds) + 1)
    networks = nn.ModuleDict({"text_encoder": build_text_encoder(options), "naming": naming}).to(device)
    sizes = [len(words), len(styles) + 1, len(backgrounds) + 1]

    def compute_loss(step: int, generator: torch.Generator) -> Tensor:
        random = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        captions, answers = [], []
        for _ in range(loop.batch_size):
            sprite, background = (
                int(random.integers(len(pictures.sprites))),
                backgrounds[int(random.integers(unsaid[1]))],
            )
            caption, drawn = pictures.caption(sprite, background, random), pictures.sprites[sprite]
            captions.append(caption)
            answers.append(
                (
                    words.index(drawn.words),
                    styles.index(drawn.style) if drawn.style in caption else unsaid[0],
                    backgrounds.index(background) if f"{background} background" in caption else unsaid[1],
                )
            )
        tokens = tokenize(tokenizer, captions).to(device)
        hidden = networks["text_encoder"](tokens).last_hidden_state
        ended = tokens == tokenizer.eos_token_id  # the end of the caption and the padding after it
        wanted = torch.tensor(answers, device=device)[:, None].expand(-1, TOKENS, -1)[ended]
        named = networks["naming"](hidden[ended]).float().split(sizes, dim=-1)
        losses = [F.cross_entropy(answer, wanted[:, part]) for part, answer in enumerate(named)]
        return torch.stack(losses).sum()

    averaged = run_training(networks, compute_loss, loop, folder, seed=seed, on_progress=on_progress)
    assert isinstance(averaged, nn.ModuleDict)
    text_encoder = averaged["text_encoder"]
    assert isinstance(text_encoder, CLIPTextModel)
    return text_encoder.cpu()
