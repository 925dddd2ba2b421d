"""The loop with the real localizers and batches, small."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wsol.data import Batch, MaskedBatch
from wsol.models import build_localizer
from wsol.training import CHECKPOINTS, build_strategy, fit


def stained(toy, labels, generator, size=64):
    """Pink images, far from the statistics of natural photographs; class 1 has a redder square."""
    ink = 0.4 * toy.images_of(labels, generator, size=size) - 0.2
    return (torch.tensor([0.85, 0.6, 0.8]).view(1, 3, 1, 1) + 0.15 * ink).clamp(0, 1)


def test_frozen_statistics_are_why_short_fine_tuning_works(toy):
    """With live batch norm at the small momentum such nets come with, the loss falls and validation stays at chance."""

    def batches(epoch, generator):
        labels = torch.arange(8) % 2
        return [Batch(stained(toy, labels, generator), labels, list("abcdefgh")) for _ in range(8)]

    def validate(net):
        labels = torch.arange(32) % 2
        with torch.no_grad():
            logits = net(stained(toy, labels, torch.Generator().manual_seed(1))).logits
        return {"valcl_accuracy": float((logits.argmax(1) == labels).float().mean())}

    last = {}
    for frozen in (True, False):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            net = build_localizer("efficientnet_lite0", "gap", 2, weights="imagenet", output_stride=32, freeze_bn=frozen)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d) and not frozen:
                module.momentum = 0.01
        before = {name: value.clone() for name, value in net.state_dict().items() if "running" in name}
        history = fit(
            net, build_strategy("classify"), batches, epochs=2, lr=3e-4, validate=validate, progress=False, device="cpu", seed=1
        )
        assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items()) == frozen
        assert history[1]["train_loss"] < history[0]["train_loss"]
        last[frozen] = history[-1]["valcl_accuracy"]
    assert last[True] > 0.8
    assert last[False] < 0.7


@pytest.mark.parametrize("head", ["gap", "lse"])
def test_bags_train_and_checkpoints_reload(head, toy, tmp_path):
    from wsol.models import load_checkpoint, save_checkpoint

    def batches(epoch, generator):
        labels = torch.tensor([0, 1])
        images = stained(toy, labels.repeat_interleave(3), generator)
        return [Batch(images, labels, ["s0", "s1"], torch.tensor([0, 0, 0, 1, 1, 1])) for _ in range(2)]

    def save(name, net, epoch, metrics):
        save_checkpoint(net, tmp_path / f"{name}.safetensors", {"epoch": epoch, **metrics})

    net = build_localizer("efficientnet_lite0", head, 2, weights=None)
    fit(
        *(net, build_strategy("classify"), batches),
        **{"epochs": 1, "save": save, "keep": {"last": CHECKPOINTS["last"]}, "state_path": tmp_path / "state"},
        **{"progress": False, "device": "cpu"},
    )
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(
            net.to(memory_format=torch.contiguous_format)(images).logits,
            load_checkpoint(tmp_path / "last.safetensors")(images).logits,
        )


def test_masks_are_refused(toy):
    labels = torch.arange(4) % 2
    images = stained(toy, labels, torch.Generator().manual_seed(0))
    masked = MaskedBatch(images, labels, list("abcd"), masks=torch.zeros(4, 64, 64, dtype=torch.bool))
    with pytest.raises(TypeError, match="handed a MaskedBatch with masks"):
        fit(toy.Net(), build_strategy("classify"), lambda e, g: [masked], epochs=1, progress=False, device="cpu")


def test_image_files_train_the_same_whatever_the_workers(toy, tmp_path):
    """From files through the real loader: mixed sizes, a seeded order, two runs bit-equal."""
    import numpy as np
    import pandas as pd
    from PIL import Image

    from wsol.data import ImageBatches, train_transform

    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (70 + 10 * (i % 2), 80, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    rows = pd.DataFrame({"sample": list("abcdef"), "path": [str(tmp_path / f"{i}.png") for i in range(6)], "label": [0, 1] * 3})
    ends = []
    for ahead in (0, 2):
        loader = ImageBatches(rows, batch_size=4, transform=train_transform(crop=64), ahead=ahead)
        net = toy.Net()
        fit(
            *(net, build_strategy("classify"), lambda epoch, generator, loader=loader: loader.epoch(generator)),
            **{"epochs": 2, "steps": len(loader), "progress": False, "device": "cpu"},
        )
        ends.append(net.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
