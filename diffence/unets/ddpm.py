"""The UNet of DDPM (Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020) for small images.

The torch module is the reference and what training runs; `program` states the same network for the C core. The names
of the parameters are those of the pytorch-ddpm checkpoints, so state dicts are interchangeable with them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional

from diffence.unets.program import Program, ProgramBuilder

__all__ = ["DDPMConfig", "DDPMUNet", "program", "state_shapes"]


@dataclass(frozen=True)
class DDPMConfig:
    """What a DDPM UNet is; the defaults are the CIFAR-10 network of the paper (35,746,307 trainable parameters).

    image: (C, H, W); H and W must divide by 2^(levels - 1).
    channels: base width; level i has width channels * multipliers[i]. Even, and a multiple of `groups`.
    multipliers: one integer per resolution level, the finest first.
    blocks: residual blocks per level on the way down (one more on the way up).
    attention: levels whose residual blocks end in self-attention (the first middle block always does).
    dropout: rate inside the residual blocks, in training mode only.
    groups: groups of every group normalisation.
    steps, beta_first, beta_last: the linear noise schedule.
    max_t: the network was trained for reconstructions from at most this step T (schedule indices 0..max_t, as far as
        the schedule has them); None means all. A fence with a larger T is refused.

    Raises ValueError naming the first field that is wrong.
    """

    image: tuple[int, int, int] = (3, 32, 32)
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (1,)
    dropout: float = 0.1
    groups: int = 32
    steps: int = 1000
    beta_first: float = 1e-4
    beta_last: float = 0.02
    max_t: int | None = None

    def __post_init__(self) -> None:
        for name in ("image", "multipliers", "attention"):
            object.__setattr__(self, name, _integers(name, getattr(self, name)))
        object.__setattr__(self, "attention", tuple(sorted(set(self.attention))))
        for name in ("channels", "blocks", "groups", "steps"):
            _require(_is_integer(getattr(self, name)) and getattr(self, name) >= 1, name, "an integer >= 1", self)
        _require(len(self.image) == 3 and min(self.image) >= 1, "image", "(C, H, W), each >= 1", self)
        _require(len(self.multipliers) >= 1 and min(self.multipliers) >= 1, "multipliers", "integers >= 1", self)
        _require(self.channels % 2 == 0, "channels", "an even number (sine and cosine pairs)", self)
        _require(self.channels % self.groups == 0, "channels", f"a multiple of groups = {self.groups}", self)
        levels, factor = len(self.multipliers), 2 ** (len(self.multipliers) - 1)
        sizes = self.image[1:]
        _require(
            all(size % factor == 0 for size in sizes),
            "image",
            f"H and W that divide by {factor} ({levels} levels)",
            self,
        )
        _require(all(0 <= level < levels for level in self.attention), "attention", f"levels in 0..{levels - 1}", self)
        _require(_is_real(self.dropout) and 0 <= self.dropout < 1, "dropout", "a rate in [0, 1)", self)
        _require(_is_real(self.beta_first) and 0 < self.beta_first < 1, "beta_first", "a number in (0, 1)", self)
        _require(
            _is_real(self.beta_last) and self.beta_first <= self.beta_last < 1,
            "beta_last",
            f"a number in [beta_first = {self.beta_first}, 1)",
            self,
        )
        _require(
            self.max_t is None or (_is_integer(self.max_t) and 1 <= self.max_t <= self.steps),
            "max_t",
            f"None or an integer in 1..steps = {self.steps}",
            self,
        )

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of plain JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, fields: Any) -> DDPMConfig:
        """The inverse of `to_dict`; ValueError where fields are missing, unknown or wrong."""
        expected = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(fields, Mapping) or set(fields) != expected:
            found = sorted(map(str, fields)) if isinstance(fields, Mapping) else type(fields).__name__
            raise ValueError(f"config: expected the fields {sorted(expected)}, got {found}")
        return cls(**fields)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.channels * multiplier for multiplier in self.multipliers)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _integers(name: str, values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or not all(_is_integer(value) for value in values):
        raise ValueError(f"{name}: expected a tuple of integers, got {values!r}")
    return tuple(values)


def _require(holds: bool, name: str, expected: str, config: DDPMConfig) -> None:
    if not holds:
        raise ValueError(f"{name}: expected {expected}, got {getattr(config, name)!r}")


class _TimeEmbedding(nn.Module):
    """t (B,) -> (B, 4 * channels): sinusoids in pairs (sin, cos), then a perceptron."""

    def __init__(self, config: DDPMConfig) -> None:
        super().__init__()
        dim = config.channels
        frequencies = torch.exp(torch.arange(0, dim, 2, dtype=torch.float64) * (-math.log(10000.0) / dim))
        angles = torch.arange(config.steps, dtype=torch.float64)[:, None] * frequencies
        table = torch.stack([angles.sin(), angles.cos()], dim=-1).reshape(config.steps, dim)
        embedding = nn.Embedding(config.steps, dim)
        embedding.weight = nn.Parameter(table.to(embedding.weight.dtype), requires_grad=False)
        self.timembedding = nn.Sequential(
            embedding,
            nn.Linear(dim, 4 * dim),
            nn.SiLU(),
            nn.Linear(4 * dim, 4 * dim),
        )

    def forward(self, t: Tensor) -> Tensor:
        embedded: Tensor = self.timembedding(t)
        return embedded


class _Attention(nn.Module):
    """x + proj(softmax(q k^T / sqrt(C)) v), one head over the H * W positions."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels)
        self.proj_q = nn.Conv2d(channels, channels, 1)
        self.proj_k = nn.Conv2d(channels, channels, 1)
        self.proj_v = nn.Conv2d(channels, channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.group_norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2)[:, None] for layer in (self.proj_q, self.proj_k, self.proj_v))
        h = functional.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape)
        attended: Tensor = x + self.proj(h)
        return attended


class _Residual(nn.Module):
    def __init__(self, config: DDPMConfig, channels_in: int, channels_out: int, attention: bool) -> None:
        super().__init__()
        self.block1 = nn.Sequential(
            nn.GroupNorm(config.groups, channels_in), nn.SiLU(), nn.Conv2d(channels_in, channels_out, 3, padding=1)
        )
        self.temb_proj = nn.Sequential(nn.SiLU(), nn.Linear(4 * config.channels, channels_out))
        self.block2 = nn.Sequential(
            nn.GroupNorm(config.groups, channels_out),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Conv2d(channels_out, channels_out, 3, padding=1),
        )
        widens = channels_in != channels_out
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1) if widens else nn.Identity()
        self.attn = _Attention(channels_out, config.groups) if attention else nn.Identity()

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        h = self.block1(x) + self.temb_proj(temb)[:, :, None, None]
        h = self.block2(h) + self.shortcut(x)
        attended: Tensor = self.attn(h)
        return attended


class _Down(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        halved: Tensor = self.main(x)
        return halved


class _Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        doubled: Tensor = self.main(functional.interpolate(x, scale_factor=2, mode="nearest"))
        return doubled


class DDPMUNet(nn.Module):
    """The noise predictor: forward(x, t) -> eps.

    x: float (B, C, H, W), noised images on the scale [-1, 1]; t: int64 (B,), schedule indices 0..steps-1.
    Initialised as Ho et al. do: Xavier uniform, zero biases, the last convolution of each residual block and of the
    network scaled by 1e-5, so that it starts close to the identity.
    """

    def __init__(self, config: DDPMConfig) -> None:
        super().__init__()
        self.config = config
        self.time_embedding = _TimeEmbedding(config)
        self.head = nn.Conv2d(config.image[0], config.channels, 3, padding=1)
        self.downblocks, self.middleblocks, self.upblocks = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        width, skips, last = config.channels, [config.channels], len(config.widths) - 1
        for level, target in enumerate(config.widths):
            for _ in range(config.blocks):
                self.downblocks.append(_Residual(config, width, target, level in config.attention))
                width = target
                skips.append(width)
            if level < last:
                self.downblocks.append(_Down(width))
                skips.append(width)
        self.middleblocks.append(_Residual(config, width, width, True))
        self.middleblocks.append(_Residual(config, width, width, False))
        for level, target in reversed(list(enumerate(config.widths))):
            for _ in range(config.blocks + 1):
                self.upblocks.append(_Residual(config, width + skips.pop(), target, level in config.attention))
                width = target
            if level > 0:
                self.upblocks.append(_Up(width))
        self.tail = nn.Sequential(
            nn.GroupNorm(config.groups, width), nn.SiLU(), nn.Conv2d(width, config.image[0], 3, padding=1)
        )
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.endswith("block2.3.weight") or name == "tail.2.weight":
                nn.init.xavier_uniform_(parameter, gain=1e-5)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        temb = self.time_embedding(t)
        h = self.head(x)
        skips = [h]
        for block in self.downblocks:
            h = block(h, temb)
            skips.append(h)
        for block in self.middleblocks:
            h = block(h, temb)
        for block in self.upblocks:
            if isinstance(block, _Residual):
                h = torch.cat([h, skips.pop()], dim=1)
            h = block(h, temb)
        eps: Tensor = self.tail(h)
        return eps


def state_shapes(config: DDPMConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the state dict of `DDPMUNet(config)`, in order, without allocating it."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in DDPMUNet(config).state_dict().items()}


def program(config: DDPMConfig, tensors: Mapping[str, ArrayLike]) -> Program:
    """The network of `config` with the arrays of its state dict, as the core runs it (evaluation mode: no dropout)."""
    build = ProgramBuilder(config.image, tensors)

    def normalise(x: int, layer: str) -> int:
        return build.group_norm(x, layer, config.groups)

    def attend(x: int, prefix: str) -> int:
        h = normalise(x, f"{prefix}.group_norm")
        q, k, v = (build.conv(h, f"{prefix}.proj_{role}") for role in "qkv")
        return build.add(x, build.conv(build.attention(q, k, v), f"{prefix}.proj"))

    def residual(x: int, prefix: str) -> int:
        h = build.conv(build.silu(normalise(x, f"{prefix}.block1.0")), f"{prefix}.block1.2")
        h = build.add(h, build.linear(temb, f"{prefix}.temb_proj.1"))
        h = build.conv(build.silu(normalise(h, f"{prefix}.block2.0")), f"{prefix}.block2.3")
        shortcut = build.conv(x, f"{prefix}.shortcut") if f"{prefix}.shortcut.weight" in tensors else x
        h = build.add(h, shortcut)
        return attend(h, f"{prefix}.attn") if f"{prefix}.attn.proj.weight" in tensors else h

    embedding = "time_embedding.timembedding"
    temb = build.linear(build.time_embedding(f"{embedding}.0"), f"{embedding}.1")
    temb = build.linear(build.silu(temb), f"{embedding}.3")
    temb = build.silu(temb)  # every residual block starts its projection with the same activation
    levels = len(config.multipliers)
    h = build.conv(build.IMAGE, "head")
    skips = [h]
    for index in range(levels * (config.blocks + 1) - 1):
        prefix = f"downblocks.{index}"
        resamples = f"{prefix}.main.weight" in tensors
        h = build.conv(h, f"{prefix}.main", stride=2) if resamples else residual(h, prefix)
        skips.append(h)
    for index in range(2):
        h = residual(h, f"middleblocks.{index}")
    for index in range(levels * (config.blocks + 2) - 1):
        prefix = f"upblocks.{index}"
        if f"{prefix}.main.weight" in tensors:
            h = build.conv(build.upsample(h), f"{prefix}.main")
        else:
            h = residual(build.concat(h, skips.pop()), prefix)
    build.conv(build.silu(normalise(h, "tail.0")), "tail.2")
    return build.finish()
