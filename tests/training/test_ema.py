from __future__ import annotations

import pytest
import torch
from torch import nn

from wsol.training.ema import Ema


def test_average_follows_the_formula():
    net = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(0.0)
    ema, expected = Ema(net, 0.5), 0.0
    for t in range(1, 30):
        with torch.no_grad():
            net.weight.fill_(float(t))
        ema.update(net)
        d = min(0.5, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * t
    assert ema.average["weight"].item() == pytest.approx(expected, rel=1e-5)


def test_applied_only_within_with():
    net = nn.BatchNorm1d(2)
    ema = Ema(net, 0.9)
    with torch.no_grad():
        net.weight.fill_(3.0)
        net.num_batches_tracked.fill_(5)
    ema.update(net)
    with ema.applied(net):
        assert 1 < net.weight[0].item() < 3
        assert net.num_batches_tracked.item() == 5
    assert net.weight[0].item() == 3
    with pytest.raises(ZeroDivisionError), ema.applied(net):
        1 / 0  # noqa: B018
    assert net.weight[0].item() == 3
    with pytest.raises(ValueError, match="ema"):
        Ema(net, 1.0)
