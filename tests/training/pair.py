"""One of several processes that train together, as torchrun starts them: `pair.py <folder> <what goes wrong>`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
import toy

from wsol.training import build_strategy, fit, join
from wsol.training.parallel import Ranks
from wsol.training.resume import weights_hash

SIZES = (8, 5, 1)
"""Labels in each batch of an epoch: the second has shares of different size, the third none for the second process."""


def stream(ranks: Ranks, fault: str):
    """Batches by epoch; of each the share of this process."""

    def batches(epoch, generator):
        shares = []
        for number, size in enumerate(SIZES):
            labels = torch.arange(size) % 2
            images, names = toy.images_of(labels, generator), [f"e{epoch}b{number}n{i}" for i in range(size)]
            own = slice(ranks.rank, None, ranks.count)
            shares.append(toy.Batch(images[own], labels[own], names[own]))
        if epoch == 2 and ranks.rank == ranks.count - 1 and fault == "nan":
            shares[1].images[0] = torch.nan

        class Deadly(list):
            def __iter__(self):
                for number, batch in enumerate(list.__iter__(self)):
                    if (epoch, number, ranks.rank, fault) == (2, 1, 1, "kill"):
                        os.kill(os.getpid(), signal.SIGKILL)
                    yield batch

        return Deadly(shares)

    return batches


def train(out: Path, fault: str, ranks: Ranks, progress=None):
    """Three epochs; the first process validates and writes, each writes what it holds at the end."""
    net, saved = toy.localizer(), []

    def validate(net):
        assert ranks.first
        return toy.validate(net)

    rows = fit(
        *(net, build_strategy("classify", label_smoothing=0.1), stream(ranks, fault)),
        **{
            "epochs": 3,
            "lr": 1e-2,
            "clip": 1.0,
            "ema": 0.5,
            "bf16": False,
            "device": "cpu",
            "progress": progress,
            "ranks": ranks,
        },
        **{"validate": validate, "save": lambda *a: saved.append(a[0]), "state_path": out / "state"},
        **{"history_path": out / "history.csv"},
    )
    torch.save({"weights": net.state_dict(), "hash": weights_hash(net), "rows": rows, "saved": saved}, out / f"{ranks.rank}.pt")


if __name__ == "__main__":
    ranks = join(torch.device("cpu"))
    train(Path(sys.argv[1]), sys.argv[2], ranks)
    ranks.leave()
