"""readout: against scikit-learn's ridge, in its limits, and what it leaves as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from wsol.data import Batch
from wsol.models import build_localizer
from wsol.training import build_strategy, fit


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def net_of(seed=0, **options):
    return build_localizer(
        "efficientnet_lite0", "readout", 2, weights=None, generator=torch.Generator().manual_seed(seed), head_options=options
    )


def batches(count=3, side=64, groups=None):
    return [Batch(noise(2, 3, side, side, seed=i), torch.tensor([0, 1]), ["a", "b"], groups) for i in range(count)]


def by_brightness(images, labels):
    """A teacher that calls bright cells foreground."""
    return 8 * (functional.avg_pool2d(images.mean(1, keepdim=True), 16)[:, 0] - 0.5)


def fitted(net, strategy, given):
    strategy.attach(net)
    strategy.prepare(net, given)
    return net.head.pixel.weight.flatten().double(), net.head.pixel.bias.double()


def cells(net, given, teacher=by_brightness):
    """Features (n, c) and targets (n,) of all cells, with the functions at hand."""
    with torch.no_grad():
        stages = [net.eval().encode(one.images).stages[net.head.stage] for one in given]
    shape = stages[0].shape[-2:]
    maps = [functional.interpolate(teacher(b.images, b.labels)[:, None], size=shape, mode="bilinear") for b in given]
    rows = torch.cat([s.permute(0, 2, 3, 1).flatten(0, 2) for s in stages])
    return rows.double().numpy(), torch.cat([m.sigmoid().flatten() for m in maps]).double().numpy()


@pytest.mark.parametrize("penalty", [0.1, 3.0])
def test_the_direction_is_that_of_scikit_learns_ridge(penalty):
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    net, given = net_of(stage=-2), batches()
    weight, _ = fitted(net, build_strategy("readout", seeds=by_brightness, penalty=penalty), given)
    x, t = cells(net, given)
    scaler = StandardScaler().fit(x)
    ridge = Ridge(alpha=penalty * len(x)).fit(scaler.transform(x), t)
    expected = ridge.coef_ / scaler.scale_
    got = weight.numpy()
    assert got / np.linalg.norm(got) == pytest.approx(expected / np.linalg.norm(expected), abs=1e-5)


def test_pixels_are_the_least_squares_fit_of_the_maps():
    net, given = net_of(stage=-2), batches()
    weight, bias = fitted(net, build_strategy("readout", seeds=by_brightness), given)
    x, t = cells(net, given)
    p = (x @ weight.numpy() + bias.numpy()) / 4 + 0.5
    slope, intercept = np.polyfit(p, t, 1)  # nothing is left to gain by another slope or offset
    assert (slope, intercept) == pytest.approx((1, 0), abs=1e-3)


def test_under_a_heavy_penalty_each_channel_counts_by_its_own_covariance():
    net, given = net_of(stage=-3), batches()
    weight, _ = fitted(net, build_strategy("readout", seeds=by_brightness, penalty=1e9), given)
    x, t = cells(net, given)
    expected = ((x - x.mean(0)) * (t - t.mean())[:, None]).mean(0) / x.var(0)
    got = weight.numpy()
    assert got / np.linalg.norm(got) == pytest.approx(expected / np.linalg.norm(expected), abs=1e-5)


def test_images_of_the_empty_class_have_no_foreground():
    given = batches()
    asked = []

    def teacher(images, labels):
        asked.append(labels.tolist())
        return by_brightness(images, labels)

    strategy = build_strategy("readout", seeds=teacher, empty_class=0)
    said = strategy.targets(given[0].images, torch.tensor([0, 1]), torch.zeros(2, 1, 4, 4))
    assert said[0].abs().max() == 0
    assert said[1] == pytest.approx(by_brightness(given[0].images, None)[1].sigmoid())
    bags = [Batch(noise(4, 3, 64, 64), torch.tensor([1, 0]), ["a", "b"], torch.tensor([0, 0, 1, 1]))]
    fitted(net_of(), strategy, bags)
    assert asked[-1] == [1, 1, 0, 0]  # a tile is asked for the class of its bag


def test_only_the_base_head_learns_by_steps():
    net, strategy = net_of(), build_strategy("readout", seeds=by_brightness)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    given = batches()
    fit(net, strategy, lambda epoch, generator: given, epochs=2, bf16=False, progress=False)
    changed = {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {k for k in before if k.startswith(("head.pixel.", "head.base."))}
    again = net_of()
    strategy.attach(again)
    strategy.prepare(again, given)
    assert torch.equal(again.head.pixel.weight, net.head.pixel.weight)  # of the closed form, not of the steps


def test_what_cannot_be_read_out_is_said():
    with pytest.raises(ValueError, match="the same everywhere"):
        fitted(net_of(), build_strategy("readout", seeds=lambda images, labels: torch.zeros(len(images), 4, 4)), batches())
    with pytest.raises(ValueError, match="fits the head 'readout'; got Gap"):
        build_strategy("readout", seeds=by_brightness).attach(build_localizer("efficientnet_lite0", "gap", 2, weights=None))
    for option, said in (({"penalty": 0.0}, "penalty"), ({"empty_class": -1}, "empty_class")):
        with pytest.raises(ValueError, match=said):
            build_strategy("readout", seeds=by_brightness, **option)
