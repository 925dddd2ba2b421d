"""The loop with the real localizers and batches, small."""

from __future__ import annotations

import pytest
import torch

from wsol.training import CHECKPOINTS, build_strategy, fit


@pytest.mark.parametrize("head", ["gap", "lse"])
def test_a_real_localizer_trains_on_images_and_keeps_its_statistics(head, toy):
    models = pytest.importorskip("wsol.models")
    batch = pytest.importorskip("wsol.data").Batch

    def batches(epoch, generator):
        labels = torch.arange(4) % 2
        return [batch(toy.images_of(labels, generator, size=64), labels, list("abcd"), None) for _ in range(3)]

    net = models.build_localizer("efficientnet_lite0", head, 2, weights="imagenet", output_stride=16)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    history = fit(
        net, build_strategy("classify"), batches, epochs=2, keep={"last": CHECKPOINTS["last"]}, progress=False, device="cpu"
    )
    after = net.state_dict()
    assert len(history) == 2
    assert all(torch.equal(before[name], after[name]) for name in before if "running" in name)
    assert not torch.equal(before["head.weight"], after["head.weight"])


def test_a_real_bag_trains(toy):
    models = pytest.importorskip("wsol.models")
    batch = pytest.importorskip("wsol.data").Batch

    def batches(epoch, generator):
        labels = torch.tensor([0, 1])
        images = toy.images_of(labels.repeat_interleave(3), generator, size=64)
        return [batch(images, labels, ["s0", "s1"], torch.tensor([0, 0, 0, 1, 1, 1])) for _ in range(2)]

    net = models.build_localizer("efficientnet_lite0", "gap", 2, weights=None)
    history = fit(net, build_strategy("classify"), batches, epochs=1, progress=False, device="cpu")
    assert history[0]["train_loss"] > 0
