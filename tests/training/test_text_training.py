"""The text encoder learns to tell captions apart by what they ask for, however they put it."""

import torch

from atoll.training.loop import LoopOptions
from atoll.training.pictures import CAPTIONS, build_caption
from atoll.training.stages import load_tokenizer
from atoll.training.text_training import TextEncoderOptions, build_text_encoder, encode_captions, train_text_encoder

OPTIONS = TextEncoderOptions(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
WHOLE = [form for form in dict.fromkeys(CAPTIONS) if "{style}" in form and "{background}" in form]


def share_told_apart(pictures, text_encoder):
    """How often the nearest other caption, in another form of words, asks for the same thing on the same background."""
    asked = [(sprite.words, background) for sprite in pictures.sprites for background in pictures.backgrounds]
    told = [
        encode_captions(
            load_tokenizer(),
            text_encoder,
            [
                build_caption(form, sprite, background)
                for sprite in pictures.sprites
                for background in pictures.backgrounds
            ],
        )[:, -1]
        for form in WHOLE[:2]
    ]
    nearest = torch.cdist(told[0], told[1]).argmin(dim=1).tolist()
    return sum(asked[row] == asked[column] for row, column in enumerate(nearest)) / len(asked)


@torch.no_grad()
def test_captions_are_told_apart_after_training_and_not_before(pictures, tmp_path):
    torch.manual_seed(0)
    before = share_told_apart(pictures, build_text_encoder(OPTIONS).eval())
    loop = LoopOptions(80, 16, 5e-3, warmup_steps=5, ema_decay=0.5, precision="fp32", log_every=20)
    reports = []
    with torch.enable_grad():
        trained = train_text_encoder(
            pictures, load_tokenizer(), OPTIONS, loop, tmp_path, seed=1, on_progress=reports.append
        )
    assert reports[-1].loss < reports[0].loss / 3
    assert share_told_apart(pictures, trained.eval()) == 1.0 > before
