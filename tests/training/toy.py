"""Stand-ins for a localizer and its batches, small enough to train in a second; run as a script, one training to be killed."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import save_file
from torch import nn


@dataclass
class Batch:
    images: torch.Tensor
    labels: torch.Tensor
    samples: list[str]
    groups: torch.Tensor | None = None


@dataclass
class MaskedBatch(Batch):
    masks: torch.Tensor | None = None


class Head(nn.Module):
    def __init__(self, channels=8, classes=2):
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, f, groups=None, labels=None):
        logits = self.linear(f.last.mean((-2, -1)))
        if groups is not None:
            logits = torch.stack([logits[groups == g].mean(0) for g in range(int(groups.max()) + 1)])
        return SimpleNamespace(logits=logits)

    def loss(self, prediction, labels):
        return {}


class Net(nn.Module):
    """conv - norm - relu - dropout - conv - relu, then a linear head on the mean."""

    def __init__(self, seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            super().__init__()
            self.backbone = nn.Sequential(
                nn.Conv2d(3, 8, 3, stride=2, padding=1),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.Dropout(0.2),
                nn.Conv2d(8, 8, 3),
                nn.ReLU(),
            )
            self.head = Head()

    def encode(self, images):
        return SimpleNamespace(last=self.backbone(images))

    def forward(self, images, groups=None):
        return self.head(self.encode(images), groups=groups)


def localizer(classes=2, seed=0):
    """A real `Localizer`: three small stages (strides 2, 4, 4; the first signed, the others not) under a GAP head."""
    from wsol.models import Backbone, Localizer
    from wsol.models.heads.linear import Gap

    class Small(Backbone):
        channels, strides = (4, 6, 8), (2, 4, 4)

        def __init__(self):
            nn.Module.__init__(self)
            self.strides, self.freeze_bn = (2, 4, 4), True
            sizes = [(3, 4, 2), (4, 6, 2), (6, 8, 1)]
            self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=s, padding=1) for a, b, s in sizes)

        def normalize(self, images):
            return (images - 0.4) / 0.2

        def stage(self, number, x):
            x = self.convs[number](x)
            return x if number == 0 else x.relu()

        @staticmethod
        def find_imagenet():
            raise NotImplementedError

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Localizer(Small(), Gap(8, classes)).train()


def images_of(labels, generator, size=16):
    """Noise; class 1 has a bright red square somewhere."""
    images = torch.rand(len(labels), 3, size, size, generator=generator) * 0.5
    for image, label in zip(images, labels.tolist(), strict=True):
        if label:
            x, y = torch.randint(0, size - 6, (2,), generator=generator).tolist()
            image[0, y : y + 6, x : x + 6] = 1.0
    return images


def batches(epoch, generator, steps=4, batch_size=8):
    """A fixed number of batches with both classes in each."""
    labels = torch.arange(batch_size) % 2
    return [Batch(images_of(labels, generator), labels, [f"e{epoch}s{i}n{j}" for j in range(batch_size)]) for i in range(steps)]


def validate(net):
    """Accuracy, loss and an odd metric on eight fixed images; moves the global random state on purpose."""
    torch.rand(7)
    labels = torch.arange(8) % 2
    with torch.no_grad():
        logits = net(images_of(labels, torch.Generator().manual_seed(99))).logits.float()
    loss = float(nn.functional.cross_entropy(logits, labels))
    return {"valcl_accuracy": float((logits.argmax(1) == labels).float().mean()), "valcl_loss": loss}


def main(out: Path, *, epochs: int, kill: str, seed: int = 0, ema: float | None = 0.9):
    """Train and save; `kill` is "", "step:<epoch>" or "write:<n>" (in the n-th file write, between file and rename)."""
    from wsol.training import CHECKPOINTS, Criterion, build_strategy, fit

    what, _, number = kill.partition(":")

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def stream(epoch, generator):
        items = batches(epoch, generator)

        class Deadly(list):
            def __iter__(self):
                for i, item in enumerate(list.__iter__(self)):
                    if what == "step" and epoch == int(number) and i == 2:
                        die()
                    yield item

        return Deadly(items)

    if what == "write":
        rename, done = os.replace, []

        def deadly(a, b):
            done.append(b)
            if len(done) == int(number):
                die()
            rename(a, b)

        os.replace = deadly

    def save(name, net, epoch, metrics):
        weights = {k: v.contiguous() for k, v in net.state_dict().items()}
        save_file(weights, out / f"{name}.safetensors", metadata={"epoch": str(epoch)})

    keep = {"b-cl": CHECKPOINTS["b-cl"], "last": CHECKPOINTS["last"], "worst": Criterion("valcl_accuracy", higher=False)}
    fit(
        Net(seed),
        build_strategy("classify", label_smoothing=0.1),
        stream,
        **{"epochs": epochs, "validate": validate, "keep": keep, "save": save, "seed": seed, "lr": 1e-3, "ema": ema, "clip": 1.0},
        **{"state_path": out / "state", "history_path": out / "history.csv", "device": "cpu"},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), epochs=int(sys.argv[2]), kill=sys.argv[3])
