"""ACoL: what is erased, what branch B sees, how the two maps are joined."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from wsol.cams import cam
from wsol.models import Features, build_localizer
from wsol.models.heads.acol import Acol, minmax

CHANNELS, CLASSES = 5, 3


def features(b=4, h=4, w=6, seed=0):
    return Features((torch.rand(b, CHANNELS, h, w, generator=torch.Generator().manual_seed(seed)),))


def head(**options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = Acol(CHANNELS, CLASSES, width=8, **options).eval()
        for p in made.parameters():
            if p.ndim == 1:
                torch.nn.init.normal_(p)
    return made


@torch.no_grad()
def slow_branch(branch, x):
    """The five layers written out."""
    a, b, c = branch[0], branch[2], branch[4]
    y = functional.conv2d(x, a.weight, a.bias, padding=1).relu()
    return functional.conv2d(functional.conv2d(y, b.weight, b.bias, padding=1).relu(), c.weight, c.bias)


def slow(net, x, label, drawn):
    """One image (1, c, h, w), cell by cell: branch B's maps under erasing of `label`, and the joined map of class `drawn`."""
    first = slow_branch(net.first, x)[0]
    low, high = float(first[label].min()), float(first[label].max())
    erased = x.clone()
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            if (float(first[label, i, j]) - low) / (high - low) >= net.delta:
                erased[0, :, i, j] = 0
    second = slow_branch(net.second, erased)[0]

    def scaled(m):
        return (m - m.min()) / (m.max() - m.min())

    return second, torch.maximum(scaled(first[drawn]), scaled(second[drawn]))


@pytest.mark.parametrize("delta", [0.1, 0.6, 0.9])
def test_in_training_the_label_is_erased_and_branch_b_is_trained_on_the_rest(delta):
    f, net, labels = features(), head(delta=delta), torch.tensor([0, 2, 1, 2])
    p = net(f, labels=labels)
    torch.testing.assert_close(p.logits, slow_branch(net.first, f.last).mean((2, 3)))
    torch.testing.assert_close(net.logits(f), p.logits)
    seconds = [slow(net, f.last[i : i + 1], int(y), int(y))[0] for i, y in enumerate(labels)]
    expected = torch.stack(seconds).mean((2, 3))
    torch.testing.assert_close(p.extra["erased_logits"], expected)
    assert net.loss(p, labels)["erased"].item() == pytest.approx(functional.cross_entropy(expected, labels).item(), rel=1e-5)


def test_without_labels_each_map_erases_its_own_class_and_b_says_what_is_left_of_the_predicted_one():
    f, net, drawn = features(), head(released=True), head()
    with torch.no_grad():
        for one in (net, drawn):
            one.first[4].bias -= one.logits(f).mean(0)  # no class wins everywhere
    p, raw = net(f), drawn(f)
    predicted = p.logits.argmax(1)
    assert len(predicted.unique()) > 1
    for i in range(4):
        x = f.last[i : i + 1]
        for c in range(CLASSES):
            torch.testing.assert_close(p.maps[i, c], slow(net, x, c, c)[1])
        torch.testing.assert_close(p.extra["erased_logits"][i], slow(net, x, int(predicted[i]), 0)[0].mean((1, 2)))
    first = slow_branch(drawn.first, f.last) - drawn.first[4].bias[:, None, None]  # raw: in the range of branch A, without bias
    low, high = first.amin((2, 3), keepdim=True), first.amax((2, 3), keepdim=True)
    torch.testing.assert_close(raw.maps, low + p.maps * (high - low))
    assert (raw.maps >= first - 1e-5).all()
    assert (raw.maps > first + 1e-3 * (high - low)).any()


def test_exactly_the_strong_cells_are_erased_and_branch_b_sees_zeros_there():
    net = head(delta=0.5)
    first = torch.zeros(2, CLASSES, 1, 5)
    first[0, 1, 0] = torch.tensor([-2.0, 0.0, -1.0, 2.0, 0.01])  # half of the range lies at 0: that cell goes, too
    first[1, 0, 0] = torch.tensor([3.0, 3.0, 3.0, 3.0, 3.0])  # the same everywhere: nothing stands out
    x = torch.rand(2, CHANNELS, 1, 5) + 1
    erased = net.erase(x, first, torch.tensor([1, 0]))
    assert (erased == 0).all(1)[0, 0].tolist() == [False, True, False, True, True]
    assert torch.equal(erased[0][:, 0, [0, 2]], x[0][:, 0, [0, 2]])
    assert torch.equal(erased[1], x[1])
    seen = []
    handle = net.second.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    f, labels = features(), torch.tensor([0, 0, 1, 2])
    net(f, labels=labels)
    handle.remove()
    gone = minmax(slow_branch(net.first, f.last)[torch.arange(4), labels]) >= 0.5
    assert len(seen) == 1
    assert 0 < gone.sum() < gone.numel()
    assert torch.equal((seen[0] == 0).all(1), gone)


def test_above_one_nothing_is_erased_and_b_is_its_convolutions_on_the_features():
    f, net = features(), head(delta=1.01)
    second = slow_branch(net.second, f.last)
    for labels in (None, torch.tensor([0, 1, 2, 0])):
        torch.testing.assert_close(net(f, labels=labels).extra["erased_logits"], second.mean((2, 3)))
    first = slow_branch(net.first, f.last)
    net.released = True
    torch.testing.assert_close(net(f).maps, torch.maximum(minmax(first), minmax(second)))


def test_no_slope_of_b_runs_through_the_choice_of_cells():
    f, net, labels = features(), head(), torch.tensor([0, 2, 1, 2])
    leaf = f.last.clone().requires_grad_(True)
    p = net(Features((leaf,)), labels=labels)
    net.loss(p, labels)["erased"].backward()
    assert all(q.grad is None for q in net.first.parameters())
    assert all(q.grad is not None and q.grad.abs().sum() > 0 for q in net.second.parameters())
    gone = minmax(slow_branch(net.first, f.last)[torch.arange(4), labels]) >= net.delta
    assert (leaf.grad.abs().sum(1)[gone] == 0).all()
    assert (leaf.grad.abs().sum(1)[~gone] > 0).all()


def test_bags_pool_both_branches():
    f, net, groups, labels = features(), head(bag_top=0.5), torch.tensor([0, 1, 0, 1]), torch.tensor([2, 0])
    bags, tiles = net(f, groups=groups, labels=labels), net(f, labels=labels[groups])
    pooled = net.pool_bags(tiles.extra["erased_logits"], groups)
    assert torch.equal(bags.extra["erased_logits"], pooled)
    assert torch.equal(bags.extra["tile_logits"], tiles.logits)
    assert net.loss(bags, labels)["erased"].item() == pytest.approx(functional.cross_entropy(pooled, labels).item())


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_the_loss_is_finite_for_dead_and_saturated_features(scale):
    f, net, labels = features(), head().train(), torch.tensor([0, 2, 1, 2])
    leaf = (f.last * scale).bfloat16().requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        p = net(Features((leaf,)), labels=labels)
        loss = net.loss(p, labels)["erased"]
    assert p.logits.dtype == p.maps.dtype == loss.dtype == torch.float32
    loss.backward()
    assert loss.isfinite()
    assert leaf.grad.isfinite().all()
    assert p.maps.isfinite().all()


def test_on_a_backbone_maps_are_drawn_and_a_tail_leaves_branch_b_out():
    net = build_localizer("efficientnet_lite0", "acol", 2, weights=None, output_stride=16, head_options={"width": 8}).eval()
    x, targets = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 0])
    with torch.no_grad():
        said = net(x)
    assert torch.equal(cam("native", net, x, targets), said.maps[torch.arange(2), targets])
    ran = []
    handle = net.head.second.register_forward_pre_hook(lambda *_: ran.append(1))
    m = cam("recipro-cam", net, x, targets, score="logit")
    handle.remove()
    assert len(ran) == 2  # the one look at the images, a run for each class; none for the 32 masks
    with torch.no_grad():
        last = net.encode(x).last
        alone = torch.zeros_like(last[:1])
        alone[:, :, 2, 1] = last[:1, :, 2, 1]
        expected = net.head(Features((alone,))).logits[0, 1]
    torch.testing.assert_close(m[0, 2, 1], expected, rtol=1e-4, atol=1e-5)


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match="delta must be above 0"):
        head(delta=0.0)
    with pytest.raises(ValueError, match="width must be at least 1"):
        Acol(4, 2, width=0)
