"""Peak response maps: peaks found by comparing neighbors, shares by the formula and by going back layer by layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from wsol.cams import cam
from wsol.models import Features, Localizer, Prediction


def peaks_of(m, above_median=True):
    """Cells (y, x) of a map that exceed all 8 neighbors."""
    h, w = m.shape
    around = functional.pad(m[None, None], (1, 1, 1, 1), value=-torch.inf)[0, 0]
    return [
        (y, x)
        for y in range(h)
        for x in range(w)
        if (around[y : y + 3, x : x + 3] < m[y, x]).sum() == 8 and (not above_median or m[y, x] >= m.median())
    ]


@pytest.mark.parametrize("above_median", [True, False])
def test_at_the_last_layer_it_is_a_map_of_peaks(net, images, targets, above_median):
    found = cam("prm", net, images, targets, above_median=above_median)
    for m, one in zip(cam("cam", net, images, targets), found, strict=True):
        expected = torch.zeros_like(one)
        for y, x in peaks_of(m, above_median):
            expected[y, x] = 1
        torch.testing.assert_close(one, expected)
        assert one.sum() >= 2


@pytest.mark.parametrize("layer", [0, 1])
def test_every_peak_hands_out_one_unit(net, images, targets, layer):
    found = cam("prm", net, images, targets, layers=[layer])
    for i, c in enumerate(targets.tolist()):
        a = net.encode(images[i : i + 1]).stages[layer].detach().requires_grad_(True)
        m = net.head.class_maps(Features(net.encode(a, start=layer + 1).stages))[0, c]
        slow = torch.zeros(a.shape[2:])
        peaks = peaks_of(m.detach())
        for y, x in peaks:
            (slope,) = torch.autograd.grad(m[y, x], a, retain_graph=True)
            share = (a * slope.clamp(min=0)).detach()[0].sum(0)
            slow += share / share.sum()
        torch.testing.assert_close(found[i], slow, rtol=1e-4, atol=1e-6)
        assert found[i].sum().item() == pytest.approx(len(peaks), rel=1e-5)


def test_without_negative_weights_it_is_winner_take_all(gap_net, images, targets):
    """Where no weight is negative, the authors' rule, layer by layer, gives the same as the one step."""
    net = gap_net
    with torch.no_grad():
        conv, norm = net.backbone.convs[2], net.backbone.norms[2]
        conv.weight.abs_()
        conv.bias.zero_()
        norm.weight.fill_(2.0)  # a scale that cancels in the rule
        net.head.weight.abs_()
    below, top = net.encode(images).stages[1:]
    found = cam("prm", net, images, targets, layers=[1])
    for i, c in enumerate(targets.tolist()):
        a, f = below[i : i + 1].detach(), top[i : i + 1].detach()
        expected = torch.zeros(a.shape[2:])
        for y, x in peaks_of(torch.einsum("c,chw->hw", net.head.weight[c], f[0]).detach()):
            won = torch.zeros_like(f)
            won[0, :, y, x] = f[0, :, y, x] * net.head.weight[c].detach()
            won /= won.sum()  # the class map hands its unit to the channels of the cell
            norm = functional.conv2d(a, conv.weight, stride=2, padding=1)
            back = functional.conv_transpose2d(
                torch.where(norm > 0, won / norm.clamp(min=1e-12), 0), conv.weight, stride=2, padding=1, output_padding=1
            )
            expected += (a * back[:, :, : a.shape[2], : a.shape[3]])[0].sum(0).detach()
        torch.testing.assert_close(found[i], expected, rtol=1e-4, atol=1e-6)


def test_a_peak_that_nothing_argues_for_hands_out_nothing(gap_net, images, targets):
    with torch.no_grad():
        gap_net.head.weight.abs_().neg_()
    assert not cam("prm", gap_net, images, targets).any()


def test_it_needs_class_maps_and_an_odd_window(gap_net, images, targets):
    class Flat(nn.Module):
        def forward(self, f, groups=None, labels=None):
            return Prediction(f.last.mean((2, 3))[:, :3])

    with pytest.raises(ValueError, match=r"method 'prm' needs a head with linear class maps.*Flat has none"):
        cam("prm", Localizer(gap_net.backbone, Flat()).eval(), images, targets)
    with pytest.raises(ValueError, match="window must be odd"):
        cam("prm", gap_net, images, targets, window=2)
