"""What a backbone costs beside a MobileNetV2, in one run: `python benchmarks/backbones.py [--side 224] [--only lite,resnet18]`.

Prints ratios, not absolute times: CPU seconds of this process at one thread, best of the rounds, every net in every round, of a
forward without gradients and of a training step (forward, cross-entropy, backward) under the same GAP head, random weights,
channels last as in training. The peer is timm's mobilenetv2_100, which the extra brings (`pip install -c constraints.txt -e
'.[timm]'`); without timm, our efficientnet_lite0.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from peers import processor, timed
from torch.nn import functional

from wsol.models import BACKBONES, Localizer, build_localizer

PEER = "timm:mobilenetv2_100"


def nets(only: list[str]) -> dict[str, Localizer]:
    """The peer first, then ours of these names (all without any), at the coarsest output stride they have."""
    chosen = [n for n in BACKBONES if n != "timm:NAME" and (not only or any(part in n for part in only))]
    found: dict[str, Localizer] = {}
    for name in dict.fromkeys([PEER, "efficientnet_lite0", *chosen]):
        stride = 16 if name.startswith("vit") else 32
        try:
            net = build_localizer(name, "gap", 2, weights=None, output_stride=stride)
        except RuntimeError as error:
            print(f"missing: {name}, {error}")
            continue
        found[name] = net.to(memory_format=torch.channels_last)
    return found


def forward(net: Localizer, images: torch.Tensor) -> Callable[[], Any]:
    def run() -> None:
        net.eval()
        with torch.inference_mode():
            net(images)

    return run


def step(net: Localizer, images: torch.Tensor) -> Callable[[], Any]:
    labels = torch.arange(len(images)) % 2

    def run() -> None:
        net.train().zero_grad()
        functional.cross_entropy(net(images).logits, labels).backward()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=224, help="of the images, px")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="parts of names, with commas between")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(processor())
    torch.manual_seed(0)
    images = torch.rand(given.batch, 3, given.side, given.side).contiguous(memory_format=torch.channels_last)
    found = nets([part for part in given.only.split(",") if part])
    peer = next(iter(found))
    forwards = timed({name: forward(net, images) for name, net in found.items()}, given.rounds)
    steps = timed({name: step(net, images) for name, net in found.items()}, given.rounds)
    print(f"times the peer, {peer}, at {given.side} px, {given.batch} images, {given.rounds} rounds, float32, one thread")
    print(f"{'':22}{'parameters':>12}{'forward':>9}{'step':>7}")
    for name, net in found.items():
        millions = sum(p.numel() for p in net.backbone.parameters()) / 1e6
        print(f"{name:22}{millions:>10.1f} M{forwards[name] / forwards[peer]:>9.2f}{steps[name] / steps[peer]:>7.2f}")


if __name__ == "__main__":
    main()
