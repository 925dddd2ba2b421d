"""Vision transformers, with timm's names for their parameters: state dicts of timm and DeiT load as they are.

One grid from beginning to end, hence two stages: the patches before the transformer, and after it. Between blocks there is no
stage to resume from: what a block reads besides the grid, the class token, would be missing.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsol.models.backbones.base import StandardizedBackbone
from wsol.models.heads.base import at_least_float32
from wsol.models.weights import find_in_hub

PATCH = 16
"""Side of a patch in pixels."""

NATIVE = 14
"""Patches along each side of the images that the position embedding is made for, 224 px."""


class VisionTransformer(StandardizedBackbone):
    """ViT with 16 px patches, a class token, 12 pre-norm blocks and a norm after them, as DeiT without stochastic depth.

    Stage 0 is the grid of patch embeddings, stage 1 that of the patch tokens after the last norm (signed: no activation follows).
    The transformer joins the class token and the positions to stage 0, so a resumed encode is exact. For grids other than
    14 x 14 the position embedding is resized (bicubic). An image is padded to whole patches, right and below, by what
    `normalize` makes 0.

    `Features.extra["attention"]` (b, blocks, h, w) is the share of its attention that the class token gives to each cell, in the
    mean of the heads: with what it gives to itself it sums to 1.
    """

    paper = (
        "Dosovitskiy et al., An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale, ICLR 2021; "
        "Touvron et al., Training data-efficient image transformers & distillation through attention, ICML 2021"
    )
    width: ClassVar[int]
    heads: ClassVar[int]
    depth: ClassVar[int] = 12

    def __init__(self, output_stride: int = PATCH, freeze_bn: bool = True) -> None:
        if output_stride != PATCH:
            raise ValueError(f"a vision transformer has one cell per patch of {PATCH} px: output_stride=16; got {output_stride}")
        super().__init__(output_stride, freeze_bn)
        self.channels = (self.width, self.width)
        self.strides = (PATCH, PATCH)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, self.width, PATCH, PATCH)})
        self.cls_token = nn.Parameter(torch.empty(1, 1, self.width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + NATIVE**2, self.width))
        self.blocks = nn.ModuleList(_Block(self.width, self.heads) for _ in range(self.depth))
        self.norm = nn.LayerNorm(self.width, eps=1e-6)
        self.reset_parameters()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def reset_parameters(self) -> None:
        """A new start for the two parameters that are in no module of their own."""
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def stage(self, number: int, x: Tensor) -> Tensor:
        """Patch embeddings; all blocks and the norm."""
        return self.run(number, x)[0]

    def run(self, number: int, x: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """As `stage`; stage 1 hands on the attention of the class token."""
        if number == 0:
            height, width = x.shape[2:]
            return self.patch_embed["proj"](functional.pad(x, (0, -width % PATCH, 0, -height % PATCH))), {}
        size = (x.shape[2], x.shape[3])
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1) + self.positions(size)
        attention = []
        for block in self.blocks:
            tokens, seen = block(tokens)
            attention.append(seen)
        grid = self.norm(tokens)[:, 1:].transpose(1, 2).unflatten(2, size)
        return grid, {"attention": torch.stack(attention, 1).unflatten(2, size)}

    def positions(self, size: tuple[int, int]) -> Tensor:
        """The position embedding of a class token and a grid of this size, (1, 1 + h w, c)."""
        if size == (NATIVE, NATIVE):
            return self.pos_embed
        grid = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (NATIVE, NATIVE))
        resized = functional.interpolate(grid, size, mode="bicubic", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2)], 1)


class VitTiny(VisionTransformer):
    """ViT-Tiny/16: 192 channels, 3 heads, 5.5 M parameters; ImageNet weights are DeiT's."""

    width = 192
    heads = 3

    @staticmethod
    def find_imagenet() -> Path:
        """DeiT-tiny's file in torch's hub folder, downloaded where there is a network."""
        return find_in_hub("vit_tiny")


class VitSmall(VisionTransformer):
    """ViT-Small/16: 384 channels, 6 heads, 22 M parameters; ImageNet weights are DeiT's."""

    width = 384
    heads = 6

    @staticmethod
    def find_imagenet() -> Path:
        """DeiT-small's file in torch's hub folder, downloaded where there is a network."""
        return find_in_hub("vit_small")


class _Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); also what the class token attends to."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, seen = self.attn(self.norm1(x))
        x = x + y
        return x + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(x)))), seen


class _Attention(nn.Module):
    """Self-attention of several heads over tokens (b, n, c)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The new tokens, and the weights (b, n - 1) with which the class token read the others, in the mean of the heads."""
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (b, heads, n, c / heads)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        # Only this row of the weights is read; torch's fused attention makes none of them.
        scores = query[:, :, :1] @ key.transpose(2, 3) / math.sqrt(key.shape[-1])
        seen = at_least_float32(scores).softmax(3)[:, :, 0, 1:].mean(1)
        return self.proj(mixed.transpose(1, 2).flatten(2)), seen
