"""What can be done to a U-Net without touching its weights: hooks that are there for one call and then gone.

The U-Net is diffusers'. Its down blocks are counted as the original code counts them: 0 is the first convolution, then
each layer and each halving has a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from atoll.diffusion.model import Estimates

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

Size = tuple[int, int]


@contextmanager
def hooked(hooks: Sequence[Any]) -> Iterator[None]:
    """Take hooks away again, whatever happens."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class FreeU:
    """Louder inner features and quieter skip connections in the two widest stages on the way up.

    inner, skip: factors of the widest and the second widest stage. by_structure: the second version, which makes a
        feature louder where the picture has structure.
    Source: Si et al. 2023, arXiv:2309.11497.
    """

    inner: tuple[float, float]
    skip: tuple[float, float]
    by_structure: bool = False

    @contextmanager
    def applied(self, unet: UNet2DConditionModel, sigma: float, size: Size) -> Iterator[None]:
        width = int(unet.config.block_out_channels[0])
        factors = {width * 4: (self.inner[0], self.skip[0]), width * 2: (self.inner[1], self.skip[1])}
        hooks = []
        for resnet, channels in _up_layers(unet):
            if channels in factors:
                hooks.append(resnet.register_forward_pre_hook(self._rescale(channels, *factors[channels])))
        with hooked(hooks):
            yield

    def _rescale(self, channels: int, inner: float, skip: float) -> Callable[[nn.Module, tuple[Any, ...]], Any]:
        def rescale(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            joined, *rest = inputs
            hidden, passed = joined[:, :channels].clone(), joined[:, channels:]
            factor: Tensor | float = inner
            if self.by_structure:
                mean = hidden.mean(dim=1, keepdim=True)
                low, high = mean.amin(dim=(2, 3), keepdim=True), mean.amax(dim=(2, 3), keepdim=True)
                factor = (inner - 1) * (mean - low) / (high - low) + 1
            hidden[:, : channels // 2] *= factor
            return torch.cat([hidden, scale_low_frequencies(passed, skip)], dim=1), *rest

        return rescale


def scale_low_frequencies(values: Tensor, factor: float) -> Tensor:
    """The lowest frequencies of (batch, channels, height, width), those up to 1 in each direction, times a factor."""
    frequencies = torch.fft.fftshift(torch.fft.fftn(values.float(), dim=(-2, -1)), dim=(-2, -1))
    row, column = values.shape[-2] // 2, values.shape[-1] // 2
    frequencies[..., max(row - 1, 0) : row + 1, max(column - 1, 0) : column + 1] *= factor
    back = torch.fft.ifftn(torch.fft.ifftshift(frequencies, dim=(-2, -1)), dim=(-2, -1))
    return back.real.to(values.dtype)


def _up_layers(unet: UNet2DConditionModel) -> Iterator[tuple[nn.Module, int]]:
    """(resnet, how many of its input channels are not from a skip connection) on the way up."""
    channels = int(unet.config.block_out_channels[-1])
    for block in unet.up_blocks:
        for resnet in block.resnets:
            yield resnet, channels
            channels = int(resnet.out_channels)


@dataclass(frozen=True)
class DeepShrink:
    """A picture drawn smaller inside the network at first, so that big ones get one composition.

    block: after which block of the way down it is made smaller. start_sigma, end_sigma: between these noise levels.
    after_skip: the skip connection of that block keeps its size.
    resize: (values, width, height, method) -> values of that size.
    """

    block: int
    factor: float
    start_sigma: float
    end_sigma: float
    after_skip: bool
    down_method: str
    up_method: str
    resize: Callable[[Tensor, int, int, str], Tensor]

    @contextmanager
    def applied(self, unet: UNet2DConditionModel, sigma: float, size: Size) -> Iterator[None]:
        blocks = _down_layers(unet)
        hooks: list[Any] = []
        if self.end_sigma <= sigma <= self.start_sigma and self.block < len(blocks):
            if self.after_skip:
                following = blocks[self.block + 1][0] if self.block + 1 < len(blocks) else unet.mid_block.resnets[0]
                hooks.append(following.register_forward_pre_hook(self._shrink_input))
            else:
                hooks.append(blocks[self.block][1].register_forward_hook(self._shrink_output))
        for block in unet.up_blocks:
            hooks += self._grow_back(block)
        with hooked(hooks):
            yield

    def _shrunk(self, hidden: Tensor) -> Tensor:
        height, width = (max(1, round(side / self.factor)) for side in hidden.shape[-2:])
        return self.resize(hidden, width, height, self.down_method)

    def _shrink_input(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return self._shrunk(inputs[0]), *inputs[1:]

    def _shrink_output(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        return (self._shrunk(output[0]), *output[1:]) if isinstance(output, tuple) else self._shrunk(output)

    def _grow_back(self, block: nn.Module) -> list[Any]:
        """Before each layer on the way up, what comes from below gets the size of the skip connection that joins it."""
        sizes: list[Size] = []

        def enter(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            skips = reversed(named["res_hidden_states_tuple"])
            sizes[:] = [(skip.shape[-2], skip.shape[-1]) for skip in skips]
            return inputs, named | {"hidden_states": self._grown(named["hidden_states"], sizes[0])}

        def leave(layer: int) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
            def grow(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
                if isinstance(output, tuple):
                    return (self._grown(output[0], sizes[layer]), *output[1:])
                return self._grown(output, sizes[layer])

            return grow

        layers = _layers(block)
        hooks = [block.register_forward_pre_hook(enter, with_kwargs=True)]
        hooks += [last.register_forward_hook(leave(number + 1)) for number, (_, last) in enumerate(layers[:-1])]
        return hooks

    def _grown(self, hidden: Tensor, size: Size) -> Tensor:
        if hidden.shape[-2] == size[0]:
            return hidden
        return self.resize(hidden, size[1], size[0], self.up_method)


def _layers(block: Any) -> list[tuple[nn.Module, nn.Module]]:
    """(first, last module) of each layer of a block."""
    attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
    return [(resnet, attention or resnet) for resnet, attention in zip(block.resnets, attentions, strict=True)]


def _down_layers(unet: UNet2DConditionModel) -> list[tuple[nn.Module, nn.Module]]:
    """(first, last module) of each numbered block on the way down."""
    blocks: list[tuple[nn.Module, nn.Module]] = [(unet.conv_in, unet.conv_in)]
    for block in unet.down_blocks:
        blocks += _layers(block)
        blocks += [(halving, halving) for halving in block.downsamplers or []]
    return blocks


# --- self-attention over fewer tokens


class _SelfAttentionPatch:
    """Hooks around every self-attention; which tokens lie in a row is known from the picture's size."""

    def _around(
        self,
        unet: UNet2DConditionModel,
        enter: Callable[[Tensor, Size, int], tuple[Tensor, Tensor | None, Any]],
        leave: Callable[[Tensor, Any], Tensor],
    ) -> list[Any]:
        """Hooks. enter: (tokens, (height, width) of their level, level) -> (queries; keys, None for the queries; what
        `leave` is told).
        """
        whole: list[Size] = []
        kept: list[Any] = []

        def see(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            height, width = inputs[0].shape[-2:]
            whole[:] = [(height, width)]

        def before(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            tokens = inputs[0]
            found = level_of(whole[0], tokens.shape[1]) if whole else None
            if found is None:
                kept.append(None)
                return inputs, named
            queries, keys, told = enter(tokens, found[1], found[0])
            kept.append(told)
            return (queries, *inputs[1:]), named if keys is None else named | {"encoder_hidden_states": keys}

        def after(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            told = kept.pop()
            return output if told is None else leave(output, told)

        hooks = [unet.register_forward_pre_hook(see)]
        for name, module in unet.named_modules():
            if name.endswith(".attn1"):
                hooks.append(module.register_forward_pre_hook(before, with_kwargs=True))
                hooks.append(module.register_forward_hook(after))
        return hooks


def level_of(size: Size, tokens: int) -> tuple[int, Size] | None:
    """(how often the picture was halved, its size there) where it has so many tokens; None where it never does."""
    height, width = size
    for level in range(8):
        if height * width == tokens:
            return level, (height, width)
        height, width = (height + 1) // 2, (width + 1) // 2
    return None


@dataclass(frozen=True)
class HyperTile(_SelfAttentionPatch):
    """Self-attention within tiles of the picture, which costs far less in big ones.

    tile: side of a tile in latents, at least. swap_size: how many sizes of tiles take turns. max_depth: levels of the
        U-Net that are tiled. scale_depth: tiles cover more of the picture further down.
    Source: HyperTile by T. Fernandes (MIT).
    """

    tile: int
    swap_size: int
    max_depth: int
    scale_depth: bool

    @contextmanager
    def applied(self, unet: UNet2DConditionModel, sigma: float, size: Size) -> Iterator[None]:
        # The turns are drawn, but the same at the same noise level: hosts must agree.
        generator = torch.Generator("cpu").manual_seed(int(sigma * 1e6))

        def enter(tokens: Tensor, level_size: Size, level: int) -> tuple[Tensor, Tensor | None, Any]:
            if level > self.max_depth:
                return tokens, None, None
            least = self.tile * (2**level if self.scale_depth else 1)
            rows, columns = (self._pieces(side, least, generator) for side in level_size)
            if rows * columns == 1:
                return tokens, None, None
            height, width = level_size[0] // rows, level_size[1] // columns
            tiles = tokens.reshape(len(tokens), rows, height, columns, width, -1).movedim(3, 2)
            return tiles.reshape(-1, height * width, tokens.shape[-1]), None, (rows, columns, height, width)

        def leave(output: Tensor, told: tuple[int, int, int, int]) -> Tensor:
            rows, columns, height, width = told
            tiles = output.reshape(-1, rows, columns, height, width, output.shape[-1]).movedim(2, 3)
            return tiles.reshape(len(tiles), rows * height * columns * width, output.shape[-1])

        with hooked(self._around(unet, enter, leave)):
            yield

    def _pieces(self, side: int, least: int, generator: torch.Generator) -> int:
        """Into how many equal pieces of at least `least` a side is cut."""
        least = min(least, side)
        possible = [side // length for length in range(least, side + 1) if side % length == 0][: self.swap_size]
        chosen = int(torch.randint(len(possible), (1,), generator=generator)) if len(possible) > 1 else 0
        return possible[chosen]


@dataclass(frozen=True)
class TokenMerging(_SelfAttentionPatch):
    """Self-attention that asks for like tokens only once. ratio: of all tokens, how many are merged into others.

    Source: Bolya & Hoffman 2023, arXiv:2303.17604.
    """

    ratio: float

    @contextmanager
    def applied(self, unet: UNet2DConditionModel, sigma: float, size: Size) -> Iterator[None]:
        generator = torch.Generator("cpu").manual_seed(int(sigma * 1e6))

        def enter(tokens: Tensor, level_size: Size, level: int) -> tuple[Tensor, Tensor | None, Any]:
            count = int(tokens.shape[1] * self.ratio)
            if level > 0 or count <= 0 or min(level_size) < 2:
                return tokens, None, None
            kept, targets, merged_into = self._match(tokens, level_size, count, generator)
            return torch.cat([take(tokens, kept), take(tokens, targets)], dim=1), tokens, (kept, targets, merged_into)

        def leave(output: Tensor, told: tuple[Tensor, Tensor, tuple[Tensor, Tensor]]) -> Tensor:
            kept, targets, (merged, into) = told
            answers, shared = output[:, : kept.shape[1]], output[:, kept.shape[1] :]
            whole = output.new_zeros(len(output), kept.shape[1] + targets.shape[1] + merged.shape[1], output.shape[-1])
            width = output.shape[-1]
            whole.scatter_(1, kept[..., None].expand(-1, -1, width), answers)
            whole.scatter_(1, targets[..., None].expand(-1, -1, width), shared)
            whole.scatter_(1, merged[..., None].expand(-1, -1, width), take(shared, into))
            return whole

        with hooked(self._around(unet, enter, leave)):
            yield

    def _match(
        self, tokens: Tensor, size: Size, count: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """One token of each 2 x 2 is a target; the `count` others most like a target are merged into it.

        Returns: places, each (batch, some): of tokens left alone, of targets, and of merged ones with their targets'
            numbers among the targets.
        """
        height, width = size
        rows, columns = height // 2, width // 2
        corner = torch.randint(4, (rows, columns), generator=generator)
        is_target = torch.zeros(height, width, dtype=torch.bool)
        down, right = corner // 2 + torch.arange(rows)[:, None] * 2, corner % 2 + torch.arange(columns)[None] * 2
        is_target[down, right] = True
        places = is_target.flatten().to(tokens.device)
        target_places, other_places = places.nonzero().flatten(), (~places).nonzero().flatten()
        unit = tokens / tokens.norm(dim=-1, keepdim=True)
        likeness, best = (unit[:, other_places] @ unit[:, target_places].transpose(1, 2)).max(dim=-1)
        order = likeness.argsort(dim=-1, descending=True)
        count = min(count, len(other_places))
        merged, kept = order[:, :count], order[:, count:]
        targets = target_places.expand(len(tokens), -1)
        return other_places[kept], targets, (other_places[merged], best.gather(1, merged))


def take(tokens: Tensor, places: Tensor) -> Tensor:
    """(batch, tokens, width) and (batch, some) places -> (batch, some, width)."""
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1]))


# --- self-attention as a picture of what the network looks at


@dataclass
class AttentionMap:
    """How the self-attention in the middle of a network looked, in the last call made inside `recorded`.

    weights: (batch, heads, tokens, tokens), each row of sum 1.
    """

    weights: Tensor | None = None

    @contextmanager
    def recorded(self, unet: UNet2DConditionModel) -> Iterator[None]:
        attention = unet.mid_block.attentions[0].transformer_blocks[0].attn1

        def record(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
            tokens = inputs[0]
            heads = int(module.heads)
            queries, keys = (
                layer(tokens).reshape(len(tokens), tokens.shape[1], heads, -1).transpose(1, 2).float()
                for layer in (module.to_q, module.to_k)
            )
            self.weights = (queries @ keys.transpose(-1, -2) * module.scale).softmax(dim=-1)

        with hooked([attention.register_forward_hook(record)]):
            yield


BLUR_TAPS = 9
LOOKED_AT = 1.0  # a place that the others together give more than this of their attention
LEAST_SIDE = 4  # latents; what is smaller cannot be blurred


@dataclass(frozen=True)
class SelfAttentionGuidance:
    """A correction: away from what the network would make of a picture blurred where it looks most.

    Source: Hong et al. 2023, arXiv:2210.00939, algorithm 1.
    """

    scale: float
    blur_sigma: float

    def corrected(
        self, unet: UNet2DConditionModel, known: Estimates, ask: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """ask: (latents, sigma) -> clean latents by the negative prompt."""
        guided, negative = known.denoised[2], known.denoised[1]
        if min(guided.shape[-2:]) <= LEAST_SIDE:
            return guided
        seen = AttentionMap()
        with seen.recorded(unet):
            ask(known.latents, known.sigma)
        if seen.weights is None:
            return guided
        degraded = blur_where_looked(negative, seen.weights, self.blur_sigma)
        answer = ask(degraded + known.latents - negative, known.sigma)
        return guided + (degraded - answer) * self.scale


def blur_where_looked(clean: Tensor, weights: Tensor, sigma: float) -> Tensor:
    """Clean latents with what is attended to blurred. weights: as `AttentionMap` has them."""
    batch, _, height, width = clean.shape
    looked_at = weights.mean(dim=1).sum(dim=1)[:batch] > LOOKED_AT
    total = looked_at.shape[-1]
    rows = _rows_of(total, height / width)
    mask = looked_at.reshape(batch, 1, rows, total // rows).to(clean)
    mask = nn.functional.interpolate(mask, size=(height, width))
    return _gaussian_blur(clean, sigma) * mask + clean * (1 - mask)


def _rows_of(total: int, aspect: float) -> int:
    """The number of rows that divides so many tokens and is nearest to the aspect."""
    wished = round(math.sqrt(aspect * total))
    return min((rows for rows in range(1, total + 1) if total % rows == 0), key=lambda rows: abs(rows - wished))


def _gaussian_blur(values: Tensor, sigma: float) -> Tensor:
    if sigma == 0:
        return values
    at = torch.arange(BLUR_TAPS, dtype=values.dtype, device=values.device) - BLUR_TAPS // 2
    taps = torch.exp(-0.5 * (at / sigma) ** 2)
    taps = taps / taps.sum()
    channels = values.shape[1]
    kernel = (taps[:, None] * taps[None, :]).expand(channels, 1, BLUR_TAPS, BLUR_TAPS)
    padded = nn.functional.pad(values, (BLUR_TAPS // 2,) * 4, mode="reflect")
    return nn.functional.conv2d(padded, kernel, groups=channels)
