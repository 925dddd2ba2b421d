"""Pixel losses in closed form, and a U-Net that learns from masks and from nothing else."""

from __future__ import annotations

import math

import pytest
import torch

from wsol._names import resolve
from wsol.data import Batch, MaskedBatch
from wsol.models import Localizer
from wsol.models.heads.linear import Gap
from wsol.training import MASKED, STRATEGIES, build_strategy, cross_entropy, fit
from wsol.training.pixel_losses import IGNORED, partial_entropy, soft_dice


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(b=4, side=32, seed=0):
    """Noise with a dark box, the mask of the box; label 1 where there is one."""
    g = generator(seed)
    images, masks = torch.rand(b, 3, side, side, generator=g) * 0.3 + 0.7, torch.zeros(b, side, side, dtype=torch.bool)
    masks[1::2, 8:24, 4:20] = True
    return MaskedBatch(
        torch.where(masks[:, None], images - 0.6, images), torch.arange(b) % 2, [f"s{i}" for i in range(b)], masks=masks
    )


def test_entropy_of_constant_maps():
    labels = torch.full((3, 4, 5), IGNORED)
    labels[0, :2] = 1
    labels[1, 0, 0], labels[1, 0, 1:4] = 1, 0
    found = partial_entropy(torch.full((3, 1, 4, 5), 0.7), labels)
    p = 1 / (1 + math.exp(-0.7))
    assert found.tolist() == pytest.approx([-math.log(p), -(math.log(p) + 3 * math.log(1 - p)) / 4, 0.0])


def test_entropy_is_finite_and_has_a_slope_where_it_is_sure_and_wrong():
    pixels = torch.tensor([3e38, -200.0]).reshape(2, 1, 1, 1).requires_grad_(True)
    labels = torch.tensor([1, 1]).reshape(2, 1, 1)
    loss = partial_entropy(pixels, labels)
    loss.sum().backward()
    assert loss.tolist() == [0.0, 200.0]
    assert pixels.grad.flatten().tolist() == [0.0, -1.0]
    nothing = torch.zeros(2, 1, 1, 1, requires_grad=True)
    partial_entropy(nothing, torch.full((2, 1, 1), IGNORED)).sum().backward()
    assert nothing.grad.abs().max() == 0


def test_dice_of_constant_maps():
    masks = torch.zeros(3, 4, 5, dtype=torch.bool)
    masks[0, :2] = True
    even = soft_dice(torch.zeros(3, 1, 4, 5), masks)
    assert even.tolist() == pytest.approx([1 - 11 / 21, 1 - 1 / 11, 1 - 1 / 11])
    sure = torch.where(masks[:, None], 1e4, -1e4)
    assert soft_dice(sure, masks).tolist() == [0.0, 0.0, 0.0]
    assert soft_dice(-sure, masks).tolist() == pytest.approx([1 - 1 / 21, 1 - 1 / 21, 1 - 1 / 21])


def test_sizes_must_agree():
    with pytest.raises(ValueError, match=r"got \(2, 1, 4, 4\) and \(2, 4, 5\)"):
        soft_dice(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 5, dtype=torch.bool))


def test_the_table_of_masked_strategies_is_what_the_classes_say():
    kinds = {name: resolve("strategy", name, STRATEGIES, "wsol.training").supervision for name in STRATEGIES}
    assert {name for name, kind in kinds.items() if kind == "masks"} == set(MASKED)


def test_the_losses_are_what_they_say(pixel_net):
    made, told = pixel_net(), batch()
    strategy = build_strategy("unet", entropy=2.0, dice=3.0, classification=0.5, label_smoothing=0.1)
    strategy.attach(made)
    found = strategy(made, told, generator(), 1)
    said = made(told.images)
    full = torch.nn.functional.interpolate(said.pixels, size=(32, 32), mode="bilinear")[:, 0]
    p, y = full.sigmoid(), told.masks.float()
    entropy = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    dice = torch.stack([1 - (2 * (q * m).sum() + 1) / (q.sum() + m.sum() + 1) for q, m in zip(p, y, strict=True)]).mean()
    expected = {"pixel_entropy": 2 * entropy, "dice": 3 * dice}
    expected["cross_entropy"] = 0.5 * cross_entropy(said.logits, told.labels, label_smoothing=0.1)
    assert {k: v.item() for k, v in found.items()} == pytest.approx({k: v.item() for k, v in expected.items()}, rel=1e-4)
    assert set(build_strategy("unet", dice=0, classification=0)(made, told, generator(), 1)) == {"pixel_entropy"}


def test_it_learns_the_masks(pixel_net):
    made, told = pixel_net(), batch(8)
    fit(made, build_strategy("unet"), lambda epoch, g: [told] * 8, epochs=4, lr=1e-3, bf16=False, device="cpu", progress=False)
    with torch.no_grad():
        p = torch.nn.functional.interpolate(made(told.images).pixels, size=(32, 32), mode="bilinear")[:, 0] > 0
    dice = 2 * (p & told.masks).sum() / (p.sum() + told.masks.sum())
    assert dice > 0.8


def test_labels_alone_and_other_heads_are_refused(pixel_net):
    told = batch()
    plain = {k: v for k, v in vars(told).items() if k != "masks"}
    with pytest.raises(TypeError, match="trains on masks"):
        build_strategy("unet")(pixel_net(), Batch(**plain), generator(), 1)
    with pytest.raises(ValueError, match=r"needs a head that has them, 'decoded' or 'pixel'; got Gap"):
        build_strategy("unet").attach(Localizer(pixel_net().backbone, Gap(16, 2)))
    with pytest.raises(ValueError, match="both 0"):
        build_strategy("unet", entropy=0, dice=0)
    with pytest.raises(ValueError, match="dice is a weight"):
        build_strategy("unet", dice=-1)
